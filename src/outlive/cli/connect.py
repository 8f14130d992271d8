"""What commands share that talk to a cluster: which agent, and how a wish or its dry run is told.

`--socket` names the agent; `--lab NAME` (or OUTLIVE_LAB) takes any host of a lab that answers.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from outlive.client import Client

Function = TypeVar("Function", bound=Callable[..., Any])


def named(what: str) -> Callable[[str], str]:
    """Make the type of an argument that names a thing; what cannot be a name is not asked for."""

    def name(text: str) -> str:
        from outlive.cluster.host import checked_name

        return checked_name(text, what)

    return name


HOST, SITE, WORKLOAD, MODULE = (named(what) for what in ("host", "site", "workload", "module"))


def cluster_options(function: Function) -> Function:
    """Give a command `--socket` and `--lab`, as the argument `client`."""

    def connected(*args: Any, socket: str | None, lab: str | None, **options: Any) -> Any:
        return function(*args, client=connect(socket, lab), **options)

    connected.__name__, connected.__doc__ = function.__name__, function.__doc__
    connected.__dict__.update(function.__dict__)
    connected = click.option("--lab", envvar="OUTLIVE_LAB", metavar="NAME", help="Talk to this lab's cluster.")(
        connected
    )
    return click.option("--socket", metavar="PATH", help="The agent's socket.")(connected)  # type: ignore[return-value]


def dry_run_option(function: Function) -> Function:
    """Give a command `--dry-run`."""
    option = click.option("--dry-run", is_flag=True, help="Print the commands that would be decided; change nothing.")
    return option(function)


def connect(socket: str | None, lab: str | None) -> "Client":
    """A client of the agent that was named, or of the first host of a lab that answers."""
    from outlive.client import Client

    if socket is not None or lab is None:
        return Client(socket)
    from outlive.errors import ClusterUnreachable
    from outlive.lab.lab import Lab

    opened = Lab.open(lab)
    sockets = [str(opened.plan.api(host)) for host in opened.on()]
    for path in sockets:
        try:
            Client(path).get("/healthz")
        except ClusterUnreachable:
            continue
        return Client(path, sockets)
    raise ClusterUnreachable(f"No host of the lab {lab} answers.", remedy="switch one on with `outlive lab start HOST`")


def if_revision_option(function: Function) -> Function:
    """Give a command `--if-revision`."""
    option = click.option(
        "--if-revision", type=click.IntRange(min=0), metavar="N",
        help="Only if the workload is still at this revision, as `ps --json` shows it; 0: if it does not exist.",
    )  # fmt: skip
    return option(function)


def force_option(function: Function) -> Function:
    """Give a command `--force`, for a wish that the cluster's policy on admission refuses."""
    return click.option(
        "--force", is_flag=True, help="Also when fewer hosts could be lost then than the cluster's policy asks for."
    )(function)


def check_one(if_revision: int | None, named: tuple[object, ...]) -> None:
    """Refuse one revision for several workloads. Raises UsageError."""
    if if_revision is not None and len(named) > 1:
        raise click.UsageError("--if-revision goes with one workload at a time.")


def query(dry_run: bool, force: bool = False) -> str:
    """The part of the address that asks for a dry run, or to do it all the same."""
    options = [f"{word}=1" for word, given in (("dry_run", dry_run), ("force", force)) if given]
    return f"?{'&'.join(options)}" if options else ""


def tell_notes(result: dict[str, Any]) -> None:
    """Tell what a person should know of a wish that was granted all the same."""
    for note in result.get("notes", ()):
        say(f"Note: {note}")


def tell_commands(result: dict[str, Any]) -> None:
    """Print the commands of a dry run, one a line."""
    import json

    commands = result.get("commands", [])
    if not commands:
        click.echo("Nothing would be decided at once; the next change in the cluster may lead to something.")
    for command in commands:
        told = {word: value for word, value in command.items() if word != "command"}
        click.echo(f"{command['command']}: {json.dumps(told, ensure_ascii=False)}")


def say(text: str) -> None:
    """Tell something on the way, not the result."""
    sys.stderr.write(text + "\n")
