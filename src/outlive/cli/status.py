"""`outlive status`: say whether everything is protected, and what to do if not."""

from typing import TYPE_CHECKING, Any

import click

from .connect import cluster_options
from .output import json_option, print_json, stdout_console
from .ps import table

if TYPE_CHECKING:
    from outlive.client import Client

DEGRADED = 5


@click.command()
@cluster_options
@json_option
@click.pass_context
def command(ctx: click.Context, client: "Client", as_json: bool) -> int:
    """Say whether everything is protected, and what to do if not.

    The exit code is 0 when it is, 5 when something is at risk or unknown, 4 when no agent answers.
    """
    answer = client.get("/v1/cluster")
    outlook = answer["outlook"]
    if as_json:
        print_json(answer)
    else:
        show(answer["host"], outlook)
    return 0 if outlook["standing"] == "protected" else DEGRADED


def show(asked: str, outlook: dict[str, Any]) -> None:
    """Print hosts, workloads and the verdict."""
    from rich import box
    from rich.table import Table

    console = stdout_console()
    console.print(
        f"Cluster {outlook['cluster'] or 'unknown'}, leader {outlook['leader'] or 'none'}, as host {asked} sees it; "
        f"{outlook['failures_absorbed']} host(s) may be lost.",
        soft_wrap=True,
    )
    hosts = Table("HOST", "SITE", "ADDRESS", "VERDICT", "CLAIM", "WORKLOADS", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in outlook["hosts"]:
        colour = "green" if each["verdict"] == "alive" else "red"
        name = f"{each['name']} (leader)" if each["leads"] else each["name"]
        claim = "held" if each["claim"] else "none"
        workloads = ", ".join(each["workloads"]) or "-"
        hosts.add_row(name, each["site"], each["address"], f"[{colour}]{each['verdict']}[/]", claim, workloads)
    console.print(hosts)
    if outlook["workloads"]:
        console.print(table(outlook["workloads"]))
    style = {"protected": "bold green", "unknown": "bold yellow"}.get(outlook["standing"], "bold red")
    console.print(outlook["sentence"], style=style, markup=False, soft_wrap=True)
