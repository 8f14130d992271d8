"""`outlive logs NAME`: show what a workload's modules wrote, wherever they ran."""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from .connect import MODULE, WORKLOAD, cluster_options
from .output import json_option

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines, from whatever host, until Ctrl-C.")
@click.option("--module", "-m", "modules", multiple=True, type=MODULE, metavar="MODULE", help="Only of this module.")
@click.option("--lines", "-n", type=click.IntRange(0, 100000), default=100, show_default=True, help="The last so many.")
@cluster_options
@json_option
def command(client: "Client", name: str, follow: bool, modules: tuple[str, ...], lines: int, as_json: bool) -> None:
    """Show what a workload's modules wrote, the oldest first, from every host they ran on.

    With --json each line is one object.
    """
    address = f"/v1/workloads/{name}/logs?lines={lines}&modules={','.join(modules)}&follow={int(follow)}"
    for raw in client.lines(address):
        if as_json:
            sys.stdout.write(raw.decode(errors="replace"))
        else:
            each = json.loads(raw)
            stamp = time.strftime("%H:%M:%S", time.localtime(each["unix_ms"] / 1000)) + f".{each['unix_ms'] % 1000:03d}"
            click.echo(f"{stamp} {each['host']:8} {each['module']:12} {each['text']}")
        sys.stdout.flush()
