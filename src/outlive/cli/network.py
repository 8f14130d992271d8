"""`outlive network …`: the virtual networks that machines are on, across hosts and sites."""

from typing import TYPE_CHECKING, Any

import click

from .connect import cluster_options, named, say
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client

NETWORK = named("network")
MOST_VNI = 0xFFFFFF


@click.group()
def command() -> None:
    """Make the virtual networks that machines are on.

    A network spans hosts and sites: a machine keeps its address wherever it runs.
    """


@command.command(short_help="Make a network.")
@click.argument("name", type=NETWORK)
@click.option(
    "--vni", type=click.IntRange(1, MOST_VNI), metavar="NUMBER", help="Its number on the wire; else a free one."
)
@click.option("--mtu", type=click.IntRange(576, 9000), metavar="BYTES", help="The largest packet; else what fits.")
@click.option("--subnet", metavar="ADDRESS/LENGTH", help="The addresses of its machines, for checks.")
@cluster_options
@json_option
def create(client: "Client", name: str, vni: int | None, mtu: int | None, subnet: str | None, as_json: bool) -> None:
    """Make the network NAME, or change the one that is there to what the options say."""
    stands = any(each["name"] == name for each in client.get("/v1/networks")["networks"])
    asked = {"vni": vni, "mtu": mtu, "subnet": subnet}
    answer = client.put(f"/v1/networks/{name}", {key: value for key, value in asked.items() if value is not None})
    network = answer["network"]
    said = f"number {network['vni']}, MTU {network['mtu']}"
    if as_json:
        print_json(answer)
    elif answer["changed"]:
        click.echo(f"{'Changed' if stands else 'Made'} the network {name}: {said}.")
    else:
        say(f"The network {name} is there already: {said}.")


@command.command("list", short_help="List networks and their machines.")
@cluster_options
@json_option
def list_(client: "Client", as_json: bool) -> None:
    """List networks, and the machines on each."""
    answer = client.get("/v1/networks")
    if as_json:
        print_json(answer)
    elif not answer["networks"]:
        say("There are no networks yet; make one with `outlive network create NAME`.")
    else:
        _show(answer["networks"])


def _show(networks: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("NETWORK", "NUMBER", "MTU", "SUBNET", "MACHINES"):
        table.add_column(title)
    for each in networks:
        cells = (each["name"], str(each["vni"]), str(each["mtu"]), each["subnet"], ", ".join(each["workloads"]))
        table.add_row(*map(Text, cells))
    stdout_console().print(table)


@command.command(short_help="Remove networks that no machine is on.")
@click.argument("names", nargs=-1, required=True, type=NETWORK, metavar="NAME…")
@cluster_options
@json_option
def rm(client: "Client", names: tuple[str, ...], as_json: bool) -> None:
    """Remove networks. One that a machine is on is refused."""
    results = []
    for name in names:
        results.append(client.delete(f"/v1/networks/{name}"))
        say(f"The network {name} is gone.")
    if as_json:
        print_json({"networks": results})
