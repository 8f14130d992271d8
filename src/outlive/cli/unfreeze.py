"""`outlive unfreeze`: let the cluster act by itself again."""

from typing import TYPE_CHECKING

import click

from .connect import cluster_options, dry_run_option, query, say, tell_commands
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", dry_run: bool, as_json: bool) -> None:
    """Let the cluster act by itself again. What it has missed while it was frozen happens now."""
    answer = client.delete(f"/v1/policies/frozen{query(dry_run)}")
    if dry_run:
        tell_commands(answer)
    else:
        say("The cluster acts by itself again." if answer["changed"] else "The cluster is not frozen.")
    if as_json:
        print_json(answer)
