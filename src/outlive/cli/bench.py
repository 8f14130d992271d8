"""`outlive bench …`: measure, in one run on this machine, what protection costs and how fast it is."""

import os
import time
from typing import TYPE_CHECKING, Any

import click

from .bench_decisions import decisions
from .bench_failover import failover
from .bench_heartbeat import heartbeat
from .bench_tables import figures, new_table
from .output import json_option, print_json, stderr_console, stdout_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from outlive.lab.bench_values import Bench, Window

LAB = "bench"
DEFAULT_CUTS, QUICK_CUTS = 20, 3
MIB = 1 << 20


@click.group()
def command() -> None:
    """Measure on this machine what protection costs, and how fast it is.

    A bench that needs a lab makes its own and clears it away, also on Ctrl-C and if it is killed. Figures are this
    machine's, of this moment: compare only what stands in one table.
    """


@command.command("vm")
@click.option(
    "--cuts",
    type=click.IntRange(0),
    metavar="N",
    help=f"How many power cuts; {DEFAULT_CUTS} if not said, {QUICK_CUTS} with --quick.",
)
@click.option("--quick", is_flag=True, help="Measure less and shorter, to see that it works.")
@click.option(
    "--board",
    type=click.Choice(["pc", "q35"]),
    default="pc",
    show_default=True,
    help="The machines' board; pauses are shorter on pc.",
)
@json_option
def vm(cuts: int | None, quick: bool, board: str, as_json: bool) -> int:
    """Measure a hot virtual machine beside an unprotected one, then cut its hosts' power again and again.

    Ends with 1 only when something was lost, doubled, broken, or said by two, or the machine did not become protected
    again; figures that miss their limit are told.
    """
    from outlive.lab import bench_machines
    from outlive.lab.bench_values import reach, told
    from outlive.lab.sentinel import owned_lab

    began = time.monotonic()
    console = stderr_console()

    def progress(step: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")

    effort = bench_machines.QUICK if quick else bench_machines.WHOLE
    count = cuts if cuts is not None else QUICK_CUTS if quick else DEFAULT_CUTS
    load_before = os.getloadavg()[0]
    with owned_lab(LAB, bench_machines.HOSTS, 1, progress) as lab:
        bench = bench_machines.play(lab, effort, count, progress, board)
    show(bench, reach(bench), stdout_console())
    if as_json:
        here = {"processors": os.cpu_count(), "board": board, "load_before": round(load_before, 2)}
        took_s = round(time.monotonic() - began, 1)
        print_json({"bench": "vm", "here": here, "took_s": took_s, **told(bench), "peers": []})
    return 0 if bench.clean and not bench.unfinished else 1


command.add_command(decisions)
command.add_command(failover)
command.add_command(heartbeat)


def show(bench: "Bench", reached: list[dict[str, Any]], console: "Console") -> None:
    """Print loads, transfers, power cuts, and the figures to reach."""
    cuts = [_cuts(bench)] if bench.cuts else []
    for table in (_loads(bench), _processors(bench), _transfers(bench), *cuts, figures(reached)):
        console.print(table)
        console.print()
    if bench.unfinished:
        console.print(f"Not all power cuts were made: {bench.unfinished}\n")
    verdict = "Nothing was lost, doubled or broken, and two never spoke." if bench.clean else "A promise was broken."
    console.print(verdict, style="bold green" if bench.clean else "bold red")


def _loads(bench: "Bench") -> "Table":
    table = new_table(
        "GUEST|CLIENTS|PAUSE ms|P99 ms|PAGES|EPOCHS/s|SENT MiB/s|RTT ms|UNPROTECTED|REQUESTS/s|UNPROTECTED|RATIO"
    )
    for alone, hot in bench.pairs():
        table.add_row(*_load(alone, hot))
    return table


def _processors(bench: "Bench") -> "Table":
    table = new_table("GUEST|CLIENTS|QEMU PRIMARY|QEMU STANDBY|COMM PRIMARY|COMM STANDBY|QEMU UNPROTECTED")
    for alone, hot in bench.pairs():
        cpu = hot.cpu
        shares = cpu.primary_emulator, cpu.standby_emulator, cpu.primary_comm, cpu.standby_comm
        control = alone.cpu.primary_emulator if alone else None
        table.add_row(hot.level, str(hot.clients), *(_percent(each) for each in (*shares, control)))
    return table


def _transfers(bench: "Bench") -> "Table":
    table = new_table("GUEST|TO IT MiB/s|UNPROTECTED|FROM IT MiB/s|UNPROTECTED")
    controls = {each.level: each for each in bench.unprotected.bulk}
    for hot in bench.hot.bulk:
        control = controls.get(hot.level)
        to_guest = hot.to_guest, control.to_guest if control else None
        from_guest = hot.from_guest, control.from_guest if control else None
        table.add_row(hot.level, *(_number(_mib(each), 1) for each in (*to_guest, *from_guest)))
    return table


def _cuts(bench: "Bench") -> "Table":
    table = new_table(
        "CUT|FROM|TO|NOTICED ms|WON ms|ADOPTED IN ms|RUNS ms|REPLY ms|LAST ms|ANSWERED|LOST|DOUBLED|BROKEN|TWO SPOKE"
    )
    for number, cut in enumerate(bench.cuts, start=1):
        last_ms = max((reply for reply in cut.first_reply_ms if reply is not None), default=None)
        times = cut.detected_ms, cut.won_ms, cut.adopt_ms, cut.running_ms, cut.first_reply_median_ms, last_ms
        counts = cut.acknowledged, cut.lost, cut.duplicated, cut.broken, cut.double
        table.add_row(str(number), cut.primary, cut.successor, *(_number(each, 0) for each in times), *map(str, counts))
    return table


def _load(alone: "Window | None", hot: "Window") -> list[str]:
    from outlive.lab.bench_values import ratio

    epochs = hot.epochs
    control = alone.requests_per_s if alone else None
    return [
        hot.level,
        str(hot.clients),
        _number(epochs.pause_ms if epochs else None, 2),
        _number(epochs.pause_p99_ms if epochs else None, 2),
        _number(epochs.pages if epochs else None, 0),
        _number(epochs.epochs_per_s if epochs else None, 0),
        _number(_mib(epochs.sent_bytes_per_s) if epochs else None, 1),
        _number(hot.rtt_ms, 2),
        _number(alone.rtt_ms if alone else None, 2),
        _number(hot.requests_per_s, 0),
        _number(control, 0),
        _number(ratio(hot.requests_per_s, control), 2),
    ]


def _mib(size: float | None) -> float | None:
    return None if size is None else size / MIB


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"
