"""`outlive start NAME…`: let a workload run."""

from typing import TYPE_CHECKING

import click

from .connect import WORKLOAD, cluster_options, dry_run_option, query, say, tell_commands
from .output import json_option, print_json
from .waiting import until_state

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("names", nargs=-1, required=True, type=WORKLOAD, metavar="NAME…")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", names: tuple[str, ...], wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Let a workload run, and wait until it runs."""
    results = []
    for name in names:
        results.append(client.put(f"/v1/workloads/{name}/desired{query(dry_run)}", {"desired": "running"}))
        if dry_run:
            tell_commands(results[-1])
        elif wait_s > 0:
            until_state(client, name, "running", wait_s)
            say(f"{name} runs.")
    if as_json:
        print_json({"workloads": results})
