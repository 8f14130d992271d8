"""`outlive start NAME…`: let a workload run."""

from typing import TYPE_CHECKING

import click

from .connect import WORKLOAD, cluster_options, dry_run_option, force_option, if_revision_option
from .desire import desire
from .output import json_option

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("names", nargs=-1, required=True, type=WORKLOAD, metavar="NAME…")
@click.option("--wait", "wait_s", type=float, default=60.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@if_revision_option
@force_option
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client",
    names: tuple[str, ...],
    wait_s: float,
    if_revision: int | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a workload run, and wait until it runs."""
    desire(client, names, "running", "runs", wait_s, dry_run, as_json, if_revision, force)
