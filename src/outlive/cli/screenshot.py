"""`outlive screenshot NAME -o FILE.png`: save what a machine's display shows."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outlive.errors import Failed

from .connect import WORKLOAD, cluster_options, say
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client

MOST_BYTES = 64 * 1024 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"


@click.command()
@click.argument("name", type=WORKLOAD)
@click.option("--output", "-o", required=True, metavar="FILE.png", help="Where to; '-' is stdout.")
@cluster_options
@json_option
def command(client: "Client", name: str, output: str, as_json: bool) -> None:
    """Save what a machine's display shows now, as PNG. The guest does not notice."""
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("A picture is nothing for a terminal: name a file with --output.")
    if output == "-" and as_json:
        raise click.UsageError("The picture and the object cannot both go to stdout: name a file with --output.")
    picture = client.content(f"/v1/workloads/{name}/screenshot", MOST_BYTES)
    if not picture.startswith(_PNG) or len(picture) < 24:
        raise Failed(f"The agent gave no picture of {name}.", cause=f"it gave {len(picture)} bytes that are no PNG")
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    if output == "-":
        sys.stdout.buffer.write(picture)
        sys.stdout.buffer.flush()
        return
    try:
        Path(output).write_bytes(picture)
    except OSError as error:
        raise Failed(f"{output} cannot be written.", cause=error.strerror or str(error)) from error
    say(f"Wrote {output}: {width} × {height}.")
    if as_json:
        print_json({"workload": name, "file": output, "bytes": len(picture), "width": width, "height": height})
