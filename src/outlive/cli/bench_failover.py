"""`outlive bench failover`: how soon a lost host's workload is started elsewhere, and who is accused wrongly."""

import os
import time

import click

from .bench_tables import figures, new_table
from .output import json_option, print_json, stderr_console, stdout_console

LAB = "benchf"
DEFAULT_RUNS = 20


@click.command("failover")
@click.option(
    "--runs", type=click.IntRange(1, 10000), default=DEFAULT_RUNS, show_default=True, metavar="N",
    help="How often a host is lost: by power cut, SIGSTOP, partition and isolation in turn.",
)  # fmt: skip
@json_option
def failover(runs: int, as_json: bool) -> int:
    """Lose the host of a Redis again and again, with all processors busy, and measure how it comes back.

    Ends with 1 only when a promise was broken: a wrong verdict, something acknowledged lost or done twice, two hosts at
    once; or when not all runs could be made. Figures that miss their limit are told.
    """
    from outlive.lab import bench_failover
    from outlive.lab.bench_failover_values import TIMES, reach, spreads, told
    from outlive.lab.sentinel import owned_lab

    began, console = time.monotonic(), stderr_console()
    load_before = os.getloadavg()[0]

    def progress(step: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")

    with owned_lab(LAB, bench_failover.HOSTS, 1, progress) as lab:
        bench = bench_failover.play(lab, runs, progress)
    table = new_table("LOST BY|RUNS|DETECTED s|P90|WORST|RESTART ISSUED s|P90|WORST|FIRST REPLY s|P90|WORST|WRONG")
    for kind, times in spreads(bench).items():
        cells = [each for time_ in TIMES for each in (times[time_].median_s, times[time_].p90_s, times[time_].worst_s)]
        losses = [each for each in bench.losses if kind in ("all", each.kind)]
        shown = ("-" if each is None else f"{each:.2f}" for each in cells)
        table.add_row(kind, str(len(losses)), *shown, str(sum(len(each.wrong) for each in losses)))
    out = stdout_console()
    out.print(table)
    out.print()
    out.print(figures(reach(bench)))
    if bench.unfinished:
        out.print(f"\nNot all runs were made: {bench.unfinished}")
    if as_json:
        here = {"processors": os.cpu_count(), "load_before": round(load_before, 2)}
        took_s = round(time.monotonic() - began, 1)
        print_json({"bench": "failover", "here": here, "took_s": took_s, **told(bench)})
    return 0 if bench.clean and not bench.unfinished else 1
