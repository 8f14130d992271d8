"""`outlive vm pause`, `unpause` and `reset`: a machine's buttons, wherever it runs."""

from typing import TYPE_CHECKING

import click

from .connect import WORKLOAD, cluster_options, say
from .output import json_option, print_json
from .rm import ask

if TYPE_CHECKING:
    from outlive.client import Client


def _press(client: "Client", name: str, button: str, done: str, as_json: bool) -> None:
    answer = client.post(f"/v1/workloads/{name}/button", {"press": button})
    say(f"{name} {done} on {answer['host']}.")
    if as_json:
        print_json(answer)


@click.command()
@click.argument("name", type=WORKLOAD)
@cluster_options
@json_option
def pause(client: "Client", name: str, as_json: bool) -> None:
    """Hold a cold machine's guest still where it is, until `unpause`."""
    _press(client, name, "pause", "stands still", as_json)


@click.command()
@click.argument("name", type=WORKLOAD)
@cluster_options
@json_option
def unpause(client: "Client", name: str, as_json: bool) -> None:
    """Let a guest that was paused go on."""
    _press(client, name, "unpause", "goes on", as_json)


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@cluster_options
@json_option
def reset(client: "Client", name: str, yes: bool, as_json: bool) -> None:
    """Press a machine's reset button: what its guest has not written is lost."""
    if not yes:
        ask(f"Reset {name}? What its guest has not written is lost.")
    _press(client, name, "reset", "was reset", as_json)
