"""`outlive maintenance on|off|show`: empty a host for work on it, and give it back."""

from typing import TYPE_CHECKING, Any

import click

from .connect import HOST, cluster_options, dry_run_option
from .emptying import begin, end
from .output import json_option, print_json, stdout_console

if TYPE_CHECKING:
    from outlive.client import Client


@click.group()
def command() -> None:
    """Empty a host for work on it, and give it back.

    What runs there moves away: virtual machines while they go on, services by a stop here and a start there. Nothing is
    placed there until `maintenance off`, also after restarts of the host.
    """


@command.command("on", short_help="Empty a host, and keep it empty.")
@click.argument("host", type=HOST)
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever looks.")
@click.option("--force", is_flag=True, help="Stop there what can go nowhere else.")
@click.option("--yes", is_flag=True, help="Do not ask, with --force.")
@click.option("--wait", "wait_s", type=float, default=3600.0, show_default=True, help="Seconds to wait; 0: do not.")
@dry_run_option
@cluster_options
@json_option
def on(
    client: "Client", host: str, reason: str, force: bool, yes: bool, wait_s: float, dry_run: bool, as_json: bool
) -> None:
    """Empty HOST and keep it empty. What could go nowhere else is told before anything is changed."""
    begin(client, host, reason, force, yes, wait_s, dry_run, as_json)


@command.command("off", short_help="Let a host have workloads again.")
@click.argument("host", type=HOST)
@click.option("--return", "back", is_flag=True, help="Bring back what was there.")
@click.option("--wait", "wait_s", type=float, default=3600.0, show_default=True, help="Seconds to wait; 0: do not.")
@dry_run_option
@cluster_options
@json_option
def off(client: "Client", host: str, back: bool, wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Let HOST have workloads again. What went elsewhere stays there, unless --return is given."""
    end(client, host, back, wait_s, dry_run, as_json)


@command.command(short_help="Show hosts in maintenance, or what emptying one would do.")
@click.argument("host", type=HOST, required=False)
@cluster_options
@json_option
def show(client: "Client", host: str | None, as_json: bool) -> None:
    """Show the hosts in maintenance and how far they are; of HOST also where each workload would go."""
    answer = client.get(f"/v1/hosts/{host}/maintenance") if host else client.get("/v1/maintenance")
    if as_json:
        print_json(answer)
    elif host:
        _show_one(answer)
    else:
        _show_all(answer["hosts"])


def _show_one(answer: dict[str, Any]) -> None:
    from .emptying import state, table

    click.echo(state(answer))
    if answer["plan"]:
        stdout_console().print(table(answer["plan"]))


def _show_all(hosts: list[dict[str, Any]]) -> None:
    from .emptying import state

    for each in hosts:
        click.echo(state(each))
    if not hosts:
        click.echo("No host is in maintenance.")
