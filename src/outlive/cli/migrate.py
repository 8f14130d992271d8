"""`outlive migrate NAME`: move a workload to another host, as planned work."""

from typing import TYPE_CHECKING

import click

from outlive.errors import RefusedForSafety

from .connect import HOST, WORKLOAD, cluster_options, dry_run_option, say
from .operate import operate
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--to", "target", type=HOST, metavar="HOST", help="Where to; without it the best other host.")
@click.option("--wait", "wait_s", type=float, default=600.0, show_default=True, help="Seconds to wait; 0: do not wait.")
@click.option("--cancel", "cancels", is_flag=True, help="Take back the move that is under way.")
@dry_run_option
@cluster_options
@json_option
def command(
    client: "Client", name: str, target: str | None, wait_s: float, cancels: bool, dry_run: bool, as_json: bool
) -> None:
    """Move a workload to another host, as planned work.

    A service is stopped here in order and started there at once. A virtual machine goes on while it is moved, and
    stands still for a moment at the end; should anything fail, it goes on where it was. A host that cannot have it is
    refused before anything is changed.
    """
    if cancels:
        if target is not None or dry_run:
            raise click.UsageError("--cancel goes with a name alone.")
        _cancel(client, name, as_json)
        return
    operate(client, "migrate", name, target, wait_s, dry_run, as_json)


def _cancel(client: "Client", name: str, as_json: bool) -> None:
    from .moving import cancel

    answer = cancel(client, name)
    if answer is None:
        raise RefusedForSafety(f"{name} is not being moved.", remedy="see `outlive ps`")
    say(f"The move of {name} is taken back; it goes on where it was.")
    if as_json:
        print_json(answer)
