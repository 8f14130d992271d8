"""`outlive demo`: show a real workload outliving its host, in a lab on this machine."""

import time
from typing import TYPE_CHECKING, Protocol

import click

from .lab import store_option
from .output import json_option, print_json, stderr_console, stdout_console

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from outlive.lab.lab import Lab
    from outlive.lab.timeline import Story

    class Demo(Protocol):
        """What a demo is to this command."""

        def play(self, lab: Lab, progress: Callable[[str], None]) -> Story: ...
        def kept_its_word(self, counts: dict[str, Any]) -> bool: ...
        def sentences(self, counts: dict[str, Any]) -> list[str]: ...
        def reach(self, counts: dict[str, Any]) -> list[dict[str, Any]]: ...


hosts_option = click.option(
    "--hosts", "count", type=click.IntRange(2, 32), default=3, show_default=True, help="How many hosts."
)


@click.group(invoke_without_command=True)
@hosts_option
@store_option
@json_option
@click.pass_context
def command(context: click.Context, count: int, store: str, as_json: bool) -> int | None:
    """Show a real virtual machine outliving its host, in a lab on this machine.

    Two sites joined by a router, a machine whose standby follows it at the other site, clients that count over open
    connections. Then the power of its host is cut. Everything is cleared away at the end, on Ctrl-C, and if this is
    killed. `outlive demo service` shows a service instead.
    """
    if context.invoked_subcommand is not None:
        return None
    from outlive.lab import machine_demo

    return _show(machine_demo, "demo", "The machine outlived its host.", count, 2, store, as_json)


@command.command("service")
@hosts_option
@store_option
@json_option
def service(count: int, store: str, as_json: bool) -> int:
    """Show a real service outliving its host.

    Three hosts, a Redis whose every write is synced to the datastore, clients that count through its virtual IP. Then
    the power of its host is cut.
    """
    from outlive.lab import service_demo

    return _show(service_demo, "demo service", "Redis outlived its host.", count, 1, store, as_json)


def _show(demo: "Demo", name: str, outlived: str, hosts: int, sites: int, store: str, as_json: bool) -> int:
    from outlive.lab.sentinel import owned_lab

    began = time.monotonic()
    console = stderr_console()

    def progress(step: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {step}")

    with owned_lab("demo", hosts, sites, progress, store=store) as lab:
        story = demo.play(lab, progress)
    kept = demo.kept_its_word(story.counts)
    show(story, [*demo.sentences(story.counts), outlived if kept else "A promise was broken; see above."], kept)
    if as_json:
        counts = {**story.counts, "took_s": round(time.monotonic() - began, 1)}
        timeline = [{"after_s": round(each.after_s, 3), "what": each.what} for each in story.timeline]
        print_json({"bench": name, **counts, "timeline": timeline, "reach": demo.reach(story.counts), "peers": []})
    return 0 if kept else 1


def show(story: "Story", sentences: list[str], kept: bool) -> None:
    """Print the timeline, and the counts as sentences; the last of these is the verdict."""
    from rich.table import Table

    console = stdout_console()
    table = Table("AFTER", "WHAT", "DETAIL", box=None, pad_edge=False, padding=(0, 2))
    for each in story.timeline:
        table.add_row(f"{each.after_s * 1000:+8.0f} ms", each.what, f"[dim]{each.detail}[/]")
    console.print(table)
    console.print()
    for sentence in sentences[:-1]:
        console.print(sentence)
    console.print(sentences[-1], style="bold green" if kept else "bold red")
