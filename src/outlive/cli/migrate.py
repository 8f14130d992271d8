"""`outlive migrate NAME`: move a workload to another host, as planned work."""

from typing import TYPE_CHECKING

import click

from .connect import HOST, WORKLOAD, cluster_options, dry_run_option
from .operate import operate
from .output import json_option

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--to", "target", type=HOST, metavar="HOST", help="Where to; without it the best other host.")
@click.option("--wait", "wait_s", type=float, default=120.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", name: str, target: str | None, wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Move a workload to another host, as planned work.

    It is stopped here in order and started there at once. A host that cannot have it is refused before
    anything is changed.
    """
    operate(client, "migrate", name, target, wait_s, dry_run, as_json)
