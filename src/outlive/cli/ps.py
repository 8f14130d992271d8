"""`outlive ps`: list workloads and where they run."""

from typing import TYPE_CHECKING, Any

import click

from .connect import cluster_options
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from rich.table import Table

    from outlive.client import Client

COLOURS = {"protected": "green", "at risk": "red", "stopped": "dim", "unknown": "yellow"}


@click.command()
@cluster_options
@json_option
def command(client: "Client", as_json: bool) -> None:
    """List workloads: state, host, generation, and whether each could be taken over."""
    workloads = list(client.pages("/v1/workloads", "workloads"))
    if as_json:
        print_json({"workloads": workloads})
        return
    stdout_console().print(table(workloads))


def table(workloads: list[dict[str, Any]]) -> "Table":
    """Workloads as rows."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    packaged = any(each.get("package") for each in workloads)
    titles = ["WORKLOAD", "STATE", "HOST", "GENERATION", *["PACKAGE"] * packaged, "STANDING", "WHY"]
    shown = Table(*titles, box=box.SIMPLE_HEAD, pad_edge=False)
    for each in workloads:
        colour = COLOURS.get(each["standing"], "")
        standing = f"[{colour}]{each['standing']}[/]" if colour else each["standing"]
        package = [each.get("package") or "-"] * packaged
        place = [each["host"] or "-", str(each["generation"])]
        shown.add_row(each["name"], each["state"], *place, *package, standing, escape(each["reason"]))
    return shown
