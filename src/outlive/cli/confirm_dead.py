"""`outlive confirm-dead HOST`: say that a host is off, where no fence method could prove it."""

import getpass
import sys
from typing import TYPE_CHECKING

import click

from .connect import HOST, cluster_options, dry_run_option, say
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.client import Client


@click.command()
@click.argument("host", type=HOST)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for the host's name once more.")
@dry_run_option
@cluster_options
@json_option
def command(client: "Client", host: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Say that a host is off, where no fence method could prove it.

    First make sure of it: look at the machine, or cut its power by hand. What ran there is started elsewhere at once;
    if the host still runs, everything that it has runs twice, and data that both write to is lost. It is refused
    while anything tells that the host lives, is kept with your name, and holds until the host comes back. If another
    machine has the host's name by now, your word is about the one before it.
    """
    path = f"/v1/hosts/{host}/dead"
    foretold = client.post(f"{path}?dry_run=1", {"host": host})
    workloads = ", ".join(foretold["workloads"])
    machine = f"The machine that was {host} before" if foretold.get("before") else host
    if dry_run:
        say(f"{machine} would be taken for dead. If it is not, these would run twice: {workloads}.")
        answer = foretold
    else:
        off = f"the machine that was {host} before" if foretold.get("before") else host
        say(f"If {off} is not off, these will run twice and may lose data: {workloads}.")
        if not yes:
            _ask(host)
        answer = client.post(path, {"host": host, "by": _who()})
        say(f"{machine} is taken for dead. What it ran is started elsewhere; see `outlive status`.")
    if as_json:
        print_json(answer)


def _ask(host: str) -> None:
    """Have the host's name typed once more. Raises RefusedForSafety without a terminal, or with another name."""
    from outlive.errors import RefusedForSafety

    question = f"{host} is taken for dead only on somebody's word."
    if not sys.stdin.isatty():
        remedy = "say --yes if you have made sure that it is off"
        raise RefusedForSafety(question, cause="there is no terminal to ask at", remedy=remedy)
    asked = "If it is off, type its name once more"
    typed = click.prompt(asked, err=True, default="", show_default=False)
    if typed.strip() != host:
        raise RefusedForSafety(f"{host} was not confirmed.", cause="another name was typed, or none")


def _who() -> str:
    """The user, for the record; sudo's, where it is known."""
    import os

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
