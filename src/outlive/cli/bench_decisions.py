"""`outlive bench decisions`: how long a leader thinks when a site of a large cluster is lost."""

import os
import time

import click

from .bench_tables import new_table
from .output import json_option, print_json, stderr_console, stdout_console


@click.command("decisions")
@click.option("--hosts", type=click.IntRange(3, 10000), default=1000, show_default=True, metavar="N", help="Hosts.")
@click.option(
    "--workloads", type=click.IntRange(1, 99999), default=10000, show_default=True, metavar="N", help="Workloads."
)
@json_option
def decisions(hosts: int, workloads: int, as_json: bool) -> int:
    """Lose a third of N hosts at once and measure how long the leader thinks until all that ran there is placed.

    The decisions alone, in virtual time, at a tenth of the size, three tenths and the whole; then the same in a full
    cluster, where what ran there waits until hosts come back. Ends with 1 when a workload is left without a place.
    """
    from outlive.bench import decisions as bench
    from outlive.bench import quiet

    began, console = time.monotonic(), stderr_console()
    load_before = os.getloadavg()[0]
    quiet()
    rows, shortages = bench.play(
        hosts, workloads, lambda step: console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")
    )
    found = bench.told(rows, shortages)
    shown = new_table("HOSTS|WORKLOADS|MOVED|LEFT|EACH ms|GROWTH|CALM TICK ms|LONGEST STEP ms|PLACED AFTER s")
    for row, growth in zip(rows, (each["growth"] for each in found["rows"]), strict=True):
        shown.add_row(
            str(row.hosts),
            str(row.workloads),
            str(row.moved),
            str(row.left),
            f"{row.each_ms:.2f}",
            "-" if growth is None else f"{growth:.2f}",
            f"{row.look_ms:.1f}",
            f"{row.worst_ms:.1f}",
            f"{row.placed_s:.1f}",
        )
    stdout_console().print(shown)
    short = new_table("HOSTS|WORKLOADS|NO ROOM FOR|LEFT|FIRST ms|WAITING TICK ms|WOKEN ms|LONGEST TEXT")
    for each in shortages:
        short.add_row(
            str(each.hosts),
            str(each.workloads),
            str(each.waited),
            str(each.left),
            f"{each.first_ms:.1f}",
            f"{each.tick_ms:.1f}",
            f"{each.woken_ms:.1f}",
            str(each.longest_text),
        )
    stdout_console().print(short)
    if as_json:
        here = {"processors": os.cpu_count(), "load_before": round(load_before, 2)}
        print_json({"bench": "decisions", "here": here, "took_s": round(time.monotonic() - began, 1), **found})
    return 0 if found["all_placed"] else 1
