"""`outlive bench heartbeat`: what it costs one leader to hear very many hosts."""

import os
import time

import click

from .bench_tables import figures, new_table
from .output import json_option, print_json, stderr_console, stdout_console

DEFAULT_SECONDS = 5.0
COLUMNS = "HOSTS|HEARTBEATS/s|DROPPED|PROCESSOR|µs EACH|BARE µs|RATIO|TO FIRST|SUSPECT s|DEAD s|WRONG|LATE s"


@click.command("heartbeat")
@click.option("--hosts", type=click.IntRange(2, 16000), default=10000, show_default=True, metavar="N", help="Hosts.")
@click.option(
    "--modules", type=click.IntRange(0, 4000), default=100, show_default=True, metavar="N", help="Modules of each host."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 600),
    default=DEFAULT_SECONDS,
    show_default=True,
    metavar="S",
    help="How long each size is measured.",
)
@json_option
def heartbeat(hosts: int, modules: int, seconds: float, as_json: bool) -> int:
    """Measure what it costs one leader to hear N hosts, and to judge them.

    A hundredth of them, a tenth and all, each time with as many heartbeats a second; beside each, in the same run, the
    least that taking such datagrams from the kernel costs. In between some hosts fall silent.

    Ends with 1 only when a verdict was wrong; figures that miss their limit are told.
    """
    from outlive.bench import heartbeats, quiet

    began, console = time.monotonic(), stderr_console()
    load_before = os.getloadavg()[0]
    quiet()
    rows = heartbeats.play(
        hosts, modules, seconds, lambda step: console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")
    )
    shown = new_table(
        "HOSTS|HEARTBEATS/s|DROPPED|PROCESSOR|µs EACH|BARE µs|RATIO|TO FIRST|SUSPECT s|DEAD s|WRONG|LATE s"
    )
    for row in rows:
        shown.add_row(
            str(row.hosts),
            f"{row.per_second:.0f}",
            str(row.dropped),
            f"{row.cores * 100:.1f} %",
            f"{row.us_each:.2f}",
            f"{row.bare_us_each:.2f}",
            f"{row.to_bare:.2f}",
            f"{row.us_each / rows[0].us_each:.2f}" if rows[0].us_each else "-",
            f"{row.suspect_s[0]:.2f} to {row.suspect_s[1]:.2f}",
            f"{row.dead_s[0]:.2f} to {row.dead_s[1]:.2f}",
            str(row.wrong),
            f"{row.late_s:.2f}",
        )
    out = stdout_console()
    out.print(shown)
    out.print()
    out.print(figures(heartbeats.reach(rows, hosts)))
    if as_json:
        here = {"processors": os.cpu_count(), "load_before": round(load_before, 2)}
        took_s = round(time.monotonic() - began, 1)
        print_json({"bench": "heartbeat", "here": here, "took_s": took_s, **heartbeats.told(rows, hosts)})
    return 1 if any(row.wrong for row in rows) else 0
