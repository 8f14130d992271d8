"""`outlive failover NAME`: force a workload off its host, after a failure."""

from typing import TYPE_CHECKING

import click

from .connect import HOST, WORKLOAD, cluster_options, dry_run_option
from .operate import operate
from .output import json_option
from .rm import ask

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--to", "target", type=HOST, metavar="HOST", help="Where to; without it the best other host.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--wait", "wait_s", type=float, default=120.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client", name: str, target: str | None, yes: bool, wait_s: float, dry_run: bool, as_json: bool
) -> None:
    """Force a workload off its host, after a failure.

    The host is asked to stop it. One that does not loses its claim, and with it everything that it runs; the
    workload starts elsewhere once that claim has certainly ended. For planned work use `migrate`.
    """
    if not (yes or dry_run):
        host = client.get(f"/v1/workloads/{name}")["outlook"]["host"] or "nowhere"
        ask(f"{name} is on {host}. If {host} does not stop it in order, everything on {host} is stopped. Go on?")
    operate(client, "failover", name, target, wait_s, dry_run, as_json)
