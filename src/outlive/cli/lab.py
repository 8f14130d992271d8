"""`outlive lab …`: build hosts on this one machine, and break them."""

from typing import TYPE_CHECKING, Any

import click

from outlive.errors import Failed, OutliveError

from .connect import say
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.lab.lab import Lab

READY_S = 30.0
POWER_OFF = 2

name_option = click.option(
    "--name", default="lab", show_default=True, envvar="OUTLIVE_LAB", metavar="NAME", help="Which lab."
)

store_option = click.option(
    "--store", default="sqlite", show_default=True, metavar="sqlite|etcd|etcd://…",
    help="The cluster's store: a file beside the network, an etcd of three members within it, or one outside.",
)  # fmt: skip


def _open(name: str) -> "Lab":
    from outlive.lab.lab import Lab

    return Lab.open(name)


@click.group()
def command() -> None:
    """Build hosts on this one machine, and break them.

    Each host is a network namespace with its own agent, address, data folder and programs; all is real but the
    machines. Talk to the lab's cluster with `outlive --lab` options or OUTLIVE_LAB=lab.
    """


@command.command()
@name_option
@click.option("--hosts", "count", type=click.IntRange(1, 32), default=3, show_default=True, help="How many hosts.")
@click.option("--sites", type=click.IntRange(1, 32), default=1, show_default=True, help="How many sites they are in.")
@store_option
@json_option
def up(name: str, count: int, sites: int, store: str, as_json: bool) -> None:
    """Make a lab and wait until its cluster has a leader. Ctrl-C clears everything away again.

    With `--store etcd` the members store1, store2 and store3 can be broken as hosts can: kill, start, pause, resume,
    isolate, heal.
    """
    from outlive.lab.lab import Lab
    from outlive.lab.ready import until_ready

    lab = Lab.up(name, count, sites, say, store=store)
    try:
        outlook = until_ready(lab, READY_S)
    except BaseException:
        lab.down()
        raise
    say(f"The lab is up: {', '.join(lab.on())}, led by {outlook['leader']}.")
    say("Now:  export OUTLIVE_LAB=" + name)
    say("      outlive run web --virtual-ip 10.77.0.100/24 -- /usr/bin/python3 -m http.server 8000")
    say("      outlive status; outlive lab kill HOST; outlive status; outlive lab down")
    if as_json:
        print_json(_told(lab))


def _told(lab: "Lab") -> dict[str, Any]:
    from outlive.lab.hosts import is_on
    from outlive.lab.plan import member_address

    on = set(lab.on())
    return {
        "store": lab.plan.store_kind,
        "members": [
            {
                "name": member,
                "address": member_address(member),
                "namespace": lab.plan.member_namespace(member),
                "on": is_on(lab.plan, member),
            }
            for member in lab.plan.members
        ],
        "name": lab.plan.name,
        "cluster": lab.plan.cluster,
        "folder": lab.plan.folder,
        "hosts": [
            {
                "name": host.name,
                "site": host.site,
                "address": host.address,
                "namespace": host.namespace,
                "socket": str(lab.plan.api(host.name)),
                "on": host.name in on,
            }
            for host in lab.plan.hosts
        ],
    }


@command.command()
@name_option
@json_option
def status(name: str, as_json: bool) -> None:
    """List a lab's hosts, and the members of its store: address, socket, and whether each is on."""
    told = _told(_open(name))
    if as_json:
        print_json(told)
        return
    for host in told["hosts"]:
        click.echo(
            f"{host['name']:6} {host['site']:6} {host['address']:13} {'on' if host['on'] else 'off':4} {host['socket']}"
        )
    for member in told["members"]:
        click.echo(f"{member['name']:6} {'etcd':6} {member['address']:13} {'on' if member['on'] else 'off'}")


@command.command()
@name_option
def down(name: str) -> None:
    """End a lab and clear away everything of it, also after a crash. Saying it twice is no error."""
    from outlive.lab.plan import LabMissing

    try:
        _open(name).down()
    except LabMissing:
        say(f"There is no lab {name!r}; nothing to do.")
        return
    say(f"The lab {name!r} is gone.")


def _breaking(verb: str, doc: str, done: str) -> None:
    """Register a command that does one thing to each host that is named."""

    @click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
    @name_option
    def act(hosts: tuple[str, ...], name: str) -> None:
        lab = _open(name)
        for host in hosts:
            getattr(lab, verb)(host)
            say(f"{host}: {done}.")

    act.__doc__ = doc
    command.command(verb.replace("_", "-"))(act)


_breaking("kill", "Cut hosts off from power: the link first, then every process at once.", "the power is cut")
_breaking("start", "Switch hosts on again; their disks are as they were.", "switched on")
_breaking("isolate", "Cut each host off from every other.", "isolated")
_breaking("cut_store", "Cut hosts off from the store alone; `heal` mends it.", "cut off from the store")
_breaking("fill_disk", "Fill hosts' own disks to the last byte; `heal` frees them.", "its disk is full")


class _Power(click.Command):
    """A command whose code 2 means one thing alone."""

    def make_context(self, *args: Any, **keys: Any) -> click.Context:
        try:
            return super().make_context(*args, **keys)
        except click.UsageError as error:
            raise Failed(error.format_message(), remedy="see outlive lab power --help") from error


@command.command(cls=_Power)
@click.argument("host", metavar="HOST")
@name_option
def power(host: str, name: str) -> int:
    """Say whether a host has power: exit code 0 it is on, 2 it is off, 1 cannot tell. A lab's fence method asks so."""
    from outlive.lab.hosts import is_on

    try:
        lab = _open(name)
        lab.plan.host(host)
    except OutliveError as error:
        raise Failed(error.sentence, cause=error.cause, remedy=error.remedy) from error
    on = is_on(lab.plan, host)
    click.echo(f"{host}: {'on' if on else 'off'}")
    return 0 if on else POWER_OFF


@command.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@name_option
@click.option("--agent-only", is_flag=True, help="Only the agent, not the guard and the workloads.")
def pause(hosts: tuple[str, ...], name: str, agent_only: bool) -> None:
    """Stop hosts where they stand, as when a machine's own host stalls."""
    lab = _open(name)
    for host in hosts:
        lab.pause(host, agent_only=agent_only)
        say(f"{host}: paused.")


@command.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@name_option
@click.option("--agent-only", is_flag=True, help="Only the agent.")
def resume(hosts: tuple[str, ...], name: str, agent_only: bool) -> None:
    """Let paused hosts go on, the guard first."""
    lab = _open(name)
    for host in hosts:
        lab.resume(host, agent_only=agent_only)
        say(f"{host}: goes on.")


@command.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@name_option
@click.option("--with-client", is_flag=True, help="The clients are on the hosts' side.")
def partition(hosts: tuple[str, ...], name: str, with_client: bool) -> None:
    """Cut these hosts off from all others, but not from each other."""
    _open(name).partition(*hosts, with_client=with_client)
    say(f"{', '.join(hosts)}: cut off from the rest.")


@command.command()
@click.argument("hosts", nargs=-1, metavar="[HOST…]")
@name_option
def heal(hosts: tuple[str, ...], name: str) -> None:
    """Connect hosts again, all by default, and undo full disks and slow datastores."""
    _open(name).heal(*hosts)
    say("Connected again.")


@command.command("slow-datastore")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@name_option
@click.option("--bytes-per-s", type=click.IntRange(1), default=4096, show_default=True, help="A few: as good as hung.")
def slow_datastore(hosts: tuple[str, ...], name: str, bytes_per_s: int) -> None:
    """Limit what hosts can write to the datastore; `heal` lifts it."""
    lab = _open(name)
    for host in hosts:
        lab.slow_datastore(host, bytes_per_s)
        say(f"{host}: {bytes_per_s} bytes/s to its datastore.")
