"""`outlive why NAME`: tell a workload's last change as a chain of causes."""

from typing import TYPE_CHECKING

import click

from .connect import WORKLOAD, cluster_options
from .events import line
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@cluster_options
@json_option
def command(client: "Client", name: str, as_json: bool) -> None:
    """Tell a workload's last change as a chain of causes, the first cause first, with times."""
    answer = client.get(f"/v1/workloads/{name}/why")
    if as_json:
        print_json(answer)
        return
    before = None
    for event in answer["chain"]:
        passed = f"  {(event['unix_ms'] - before) / 1000:+8.3f} s  " if before is not None else "              "
        click.echo(passed + line(event))
        before = event["unix_ms"]
