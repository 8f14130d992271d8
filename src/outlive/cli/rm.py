"""`outlive rm NAME…`: stop workloads and forget them; their data folders stay."""

import sys
from typing import TYPE_CHECKING

import click

from .connect import WORKLOAD, check_one, cluster_options, dry_run_option, if_revision_option, query, say, tell_commands
from .output import json_option, print_json
from .waiting import until_gone

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("names", nargs=-1, required=True, type=WORKLOAD, metavar="NAME…")
@click.option("--yes", "-y", is_flag=True, help="Do not ask when it runs.")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@if_revision_option
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client",
    names: tuple[str, ...],
    yes: bool,
    wait_s: float,
    if_revision: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Stop workloads and forget them. Their data folders on datastores stay as they are."""
    check_one(if_revision, names)
    results = []
    for name in names:
        stands = client.get(f"/v1/workloads/{name}")["outlook"]
        if stands["host"] and not (yes or dry_run):
            ask(f"{name} runs on {stands['host']}. Stop and forget it?")
        results.append(client.delete(f"/v1/workloads/{name}{query(dry_run)}", if_revision))
        if dry_run:
            tell_commands(results[-1])
        elif wait_s > 0:
            until_gone(client, name, wait_s)
            say(f"{name} is forgotten.")
    if as_json:
        print_json({"workloads": results})


def ask(question: str) -> None:
    """Ask a person; without a terminal refuse instead, and say how to go on. Raises RefusedForSafety."""
    if sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)
        return
    from outlive.errors import RefusedForSafety

    raise RefusedForSafety(question, cause="there is no terminal to ask at", remedy="say --yes if you mean it")
