"""`outlive freeze`: have nothing done by itself, cluster-wide, until `outlive unfreeze`."""

from typing import TYPE_CHECKING

import click

from .connect import cluster_options, dry_run_option, query, say, tell_commands
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever looks.")
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", reason: str, dry_run: bool, as_json: bool) -> None:
    """Have nothing done by itself, cluster-wide, as for work on the network between hosts.

    No failover, no restoration, no choice of standbys, no rollout, and hosts that are cut off stop nothing. Verdicts
    go on and are shown. What you ask for is done: apply, start, stop, rm, migrate, failover, maintenance. A hot
    machine and its standby still settle between themselves who goes on. What was missed happens at `outlive unfreeze`.
    """
    from .emptying import user

    answer = client.put(f"/v1/policies/frozen{query(dry_run)}", {"reason": reason, "by": user()})
    if dry_run:
        tell_commands(answer)
    elif answer["changed"]:
        say("The cluster is frozen. While it is, nothing is failed over; `outlive unfreeze` ends it.")
    else:
        say(f"The cluster is frozen already, by {answer['policies']['frozen']['by']}.")
    if as_json:
        print_json(answer)
