"""`outlive status`: say whether everything is protected, and what to do if not."""

from typing import TYPE_CHECKING, Any

import click

from .connect import cluster_options
from .output import json_option, print_json, stdout_console
from .ps import table

if TYPE_CHECKING:
    from outlive.client import Client

DEGRADED = 5
MOST_WITHOUT = 5


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


def frozen_line(frozen: dict[str, Any]) -> str:
    """Who froze the cluster, when and why."""
    from datetime import datetime

    since = datetime.fromtimestamp(frozen["since_unix_ms"] / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    why = f": {frozen['reason']}" if frozen["reason"] else ""
    return f"FROZEN by {frozen['by']} since {since}{why}. Nothing is done by itself; `outlive unfreeze` ends it."


def show(asked: str, outlook: dict[str, Any]) -> None:
    """Print hosts, workloads and the verdict."""
    from rich import box
    from rich.table import Table

    console = stdout_console()
    if outlook.get("frozen"):
        console.print(frozen_line(outlook["frozen"]), style="bold yellow", markup=False, soft_wrap=True)
    console.print(
        f"Cluster {outlook['cluster'] or 'unknown'}, leader {outlook['leader'] or 'none'}, as host {asked} sees it; "
        f"{number_to_lose(outlook)}.",
        soft_wrap=True,
    )
    hosts = Table("HOST", "SITE", "ADDRESS", "VERDICT", "CLAIM", "WORKLOADS", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in outlook["hosts"]:
        colour = "green" if each["verdict"] == "alive" else "red"
        name = f"{each['name']} (leader)" if each["leads"] else each["name"]
        claim = "held" if each["claim"] else "none"
        workloads = ", ".join(each["workloads"]) or "-"
        verdict = f"[{colour}]{each['verdict']}[/]"
        if each.get("maintenance"):
            verdict += f", {each['maintenance']}"
        hosts.add_row(name, each["site"], each["address"], verdict, claim, workloads)
    console.print(hosts)
    if outlook["workloads"]:
        console.print(table(outlook["workloads"]))
    tell_without(outlook["losable"])
    style = {"protected": "bold green", "unknown": "bold yellow"}.get(outlook["standing"], "bold red")
    console.print(outlook["sentence"], style=style, markup=False, soft_wrap=True)


def number_to_lose(outlook: dict[str, Any]) -> str:
    """How many hosts may die at once, in words."""
    lost = outlook["losable"]
    if lost["without"] and not lost["worst"]:
        return "not everything has a place even now"
    least = "" if lost["exact"] else "at least "
    return f"any {least}{lost['hosts']} of its hosts may be lost"


def tell_without(lost: dict[str, Any]) -> None:
    """Print what would have no place if too many hosts were lost, or has none now."""
    if not lost["without"]:
        return
    console = stdout_console()
    worst = " and ".join(lost["worst"])
    console.print(f"Without {worst}, no place for:" if worst else "No place now for:", markup=False, soft_wrap=True)
    for each in lost["without"][:MOST_WITHOUT]:
        console.print(f"  {each['workload']}: {each['reason']}", markup=False, soft_wrap=True)
    if len(lost["without"]) > MOST_WITHOUT:
        console.print(f"  and {len(lost['without']) - MOST_WITHOUT} more", markup=False)
