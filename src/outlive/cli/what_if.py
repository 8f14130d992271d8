"""`outlive what-if --lose HOST…`: tell what the cluster would decide if hosts died now."""

import json
from typing import TYPE_CHECKING, Any

import click

from .connect import HOST, SITE, cluster_options, say
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client

DEGRADED = 5


@click.command()
@click.option("--lose", "hosts", type=HOST, multiple=True, metavar="HOST", help="A host that dies; may be repeated.")
@click.option("--lose-site", "sites", type=SITE, multiple=True, metavar="SITE", help="All hosts of a site.")
@click.argument("more", nargs=-1, type=HOST, metavar="[HOST…]")
@cluster_options
@json_option
def command(
    client: "Client", hosts: tuple[str, ...], sites: tuple[str, ...], more: tuple[str, ...], as_json: bool
) -> int:
    """Tell what the cluster would decide if hosts died now, all at once: `outlive what-if --lose a b`.

    The leader's own machine decides on a copy of what it knows; nothing is written, and nobody dies. Printed is each
    placement in the order in which it would be decided, with its generation and reason, and what would be without a
    place. The exit code is 5 when anything would.
    """
    lost = list(dict.fromkeys((*hosts, *more)))
    if not lost and not sites:
        raise click.UsageError("Say which hosts would be lost: --lose HOST, or --lose-site SITE.")
    asked = {"lose": lost, "lose_sites": list(sites)}
    answer = client.post_bytes("/v1/what-if", json.dumps(asked).encode())
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    return DEGRADED if answer["without"] else 0


def _show(told: dict[str, Any]) -> None:
    """Print the decisions, a line each, and what is without a place."""
    console = stdout_console()
    lost, leader = " and ".join(told["lost"]), told["leader"]
    console.print(f"Without {lost}" + (f", as {leader} would decide:" if leader else ":"), markup=False, soft_wrap=True)
    for each in told["decisions"]:
        console.print(f"  {_line(each)}", markup=False, soft_wrap=True)
    if not told["decisions"]:
        console.print("  nothing would be moved", markup=False)
    if told["without"]:
        console.print("Without a place:", style="bold red")
        for each in told["without"]:
            console.print(f"  {each['workload']}: {each['reason']}", markup=False, soft_wrap=True)
    elif told["whole"]:
        console.print("Everything has a place.", style="bold green")
    if not told["whole"]:
        say("This is not all: the time was over before everything was decided.")
    if leader is not None and told["by"] != leader:
        say(f"{told['by']} tells this from what it has heard itself, since the leader could not be asked.")


def _line(each: dict[str, Any]) -> str:
    where = {
        "placed": f"→ {each['host']}",
        "taken over": f"→ {each['host']}, its standby",
        "followed": f"⇢ {each['host']} is its next standby",
        "stopped": f"is stopped on {each['host']}",
        "waits": "waits",
    }[each["kind"]]
    why = f": {each['why']}" if each["why"] else ""
    return f"{each['workload']} {where} (generation {each['generation']}){why}"
