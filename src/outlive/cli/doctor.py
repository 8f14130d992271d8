"""`outlive doctor`: check this host, before and after it is set up."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.agent.finding import Finding

MARKS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "failed": "[red]failed [/]"}
FAILED, DEGRADED = 1, 5


@click.command()
@click.option(
    "--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="The agent's file, if not /etc/outlive/agent.toml.",
)  # fmt: skip
@json_option
def command(config_file: Path | None, as_json: bool) -> int:
    """Check this host: each check with its result and the fix, before and after it is set up.

    Nothing is changed. The exit code is 0 when all is well, 5 with warnings, 1 when something does not work.
    """
    findings = asyncio.run(_examined(config_file, as_json))
    counts = {word: sum(found.result == word for found in findings) for word in MARKS}
    if as_json:
        print_json({"checks": findings, "counts": counts})
    else:
        _sum_up(counts)
    return FAILED if counts["failed"] else DEGRADED if counts["warning"] else 0


async def _examined(config_file: Path | None, as_json: bool) -> list["Finding"]:
    from outlive.agent import checkup
    from outlive.agent.finding import tried

    findings = []

    def note(found: "Finding") -> None:
        findings.append(found)
        if not as_json:
            show(found)

    async for found in checkup.examine(config_file):
        note(found)
    for id, check in (("agent", lambda: agent(config_file)), ("labs", labs)):
        for found in await tried(id, check):
            note(found)
    return findings


def agent(config_file: Path | None) -> "Finding":
    """Whether the agent answers, and is of this version."""
    from outlive import __version__
    from outlive.agent import checkup
    from outlive.agent.finding import ok, warning
    from outlive.agent.presence import API_SOCKET
    from outlive.client import Client
    from outlive.errors import ClusterUnreachable

    config, _ = checkup.read_config(config_file)
    if config is None:
        return ok("agent", "none is set up on this host")
    try:
        health = Client(str(config.run_folder / API_SOCKET)).get("/healthz")
    except ClusterUnreachable as error:
        return warning("agent", str(error), "start it: outlive up")
    if not health["store_reachable"]:
        return warning("agent", f"answers as {health['host']}, but cannot reach its store", "see the check `store`")
    if health["version"] != __version__:
        what = f"runs version {health['version']}; this is {__version__}"
        return warning("agent", what, "restart it within 4 s: see docs/operations.md")
    return ok("agent", f"answers as {health['host']}, version {health['version']}")


def labs() -> "Finding":
    """Whether a lab left something behind."""
    from outlive.agent.finding import ok, warning
    from outlive.lab.leftovers import leftovers

    up, left = leftovers()
    if left:
        fix = "; ".join(f"outlive lab down --name {name}" for name in left)
        return warning("labs", f"left behind: {', '.join(left)}", fix)
    return ok("labs", f"up: {', '.join(up)}" if up else "none, and nothing left of one")


def show(found: "Finding") -> None:
    """Print one finding."""
    from rich.markup import escape

    console = stdout_console()
    console.print(f"{MARKS[found.result]} {found.id:20} {escape(found.found)}", soft_wrap=True)
    if found.fix:
        console.print(f"{'':28} [bold]Do:[/] {escape(found.fix)}", soft_wrap=True)


def _sum_up(counts: dict[str, int]) -> None:
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if counts["failed"]:
        verdict = "Outlive cannot do its work here yet."
    elif counts["warning"]:
        verdict = "Outlive works here, with less than it could have."
    else:
        verdict = "All is well."
    stdout_console().print(f"{told}. {verdict}")
