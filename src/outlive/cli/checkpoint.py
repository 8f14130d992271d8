"""`outlive checkpoint NAME`: make a checkpoint of a machine now, while it runs."""

from typing import TYPE_CHECKING

import click

from .checkpoint_names import CHECKPOINT
from .connect import WORKLOAD, cluster_options, dry_run_option
from .operate import operate
from .output import json_option

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--as", "label", type=CHECKPOINT, metavar="CHECKPOINT", help="What to call it.")
@click.option("--wait", "wait_s", type=float, default=600.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", name: str, label: str | None, wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Make a checkpoint of a machine now: its memory, devices and disks at one moment.

    The machine goes on meanwhile; it is held still for milliseconds. `outlive resume` goes back to it.
    """
    operate(client, "checkpoint", name, None, wait_s, dry_run, as_json, label or "")
