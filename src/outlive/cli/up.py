"""`outlive up`: make this machine a cluster of one host, and say what to do next."""

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outlive.errors import ClusterUnreachable, Failed, UsageInvalid

from .connect import HOST, SITE, say
from .output import json_option, print_json

if TYPE_CHECKING:
    from outlive.agent.first_host import Places
    from outlive.config.agent_file import AgentConfig, StoreLogin, StoreTls

POLL_S = 0.1
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ENDED_S = 10.0
SYSTEMD = Path("/run/systemd/system")


class NoLeader(Failed):
    """The agent runs, and its cluster has no leader yet."""

    id = "up.no-leader"


@click.command()
@click.option("--name", type=HOST, metavar="NAME", help="This host's name in the cluster, if not the machine's own.")
@click.option("--address", metavar="IP", help="By which other hosts would reach it.  [default: 127.0.0.1]")
@click.option("--site", type=SITE, metavar="NAME", help="The site that it is in.")
@click.option("--port", type=click.IntRange(1, 65535), help="For heartbeats (UDP) and other agents (TCP).")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Keep everything in this folder instead of /etc, /var/lib and /run.",
)  # fmt: skip
@click.option(
    "--store", metavar="ADDRESS",
    help="sqlite:///PATH, etcd://HOST:PORT,…/PREFIX or etcds://… .  [default: a file of this host's]",
)  # fmt: skip
@click.option("--store-ca", type=FILE, metavar="PEM", help="The authority of etcd's certificates.")
@click.option("--store-certificate", type=FILE, metavar="PEM", help="What this host shows to etcd, with --store-key.")
@click.option("--store-key", type=FILE, metavar="PEM", help="Its private key.")
@click.option("--store-user", metavar="NAME", help="Who this host is to etcd, with --store-password-file.")
@click.option("--store-password-file", type=FILE, metavar="FILE", help="The file with that user's password.")
@click.option("--store-without-tls", is_flag=True, help="Send that password for all on the way to read.")
@click.option("--no-start", is_flag=True, help="Make everything, but leave the agent to systemd.")
@click.option("--restart", is_flag=True, help="Start the agent anew while workloads go on: after an upgrade.")
@click.option("--wait", "wait_s", type=float, default=30.0, show_default=True, help="Seconds to wait for a leader.")
@json_option
def command(
    name: str | None,
    address: str | None,
    site: str | None,
    port: int | None,
    folder: Path | None,
    store: str | None,
    store_ca: Path | None,
    store_certificate: Path | None,
    store_key: Path | None,
    store_user: str | None,
    store_password_file: Path | None,
    store_without_tls: bool,
    no_start: bool,
    restart: bool,
    wait_s: float,
    as_json: bool,
) -> None:
    """Make this machine a cluster of one host, start its agent, and say what to do next.

    It writes the agent's file, the cluster's key, an authority and this host's certificate, a store, and a datastore
    named `local`. Saying it again starts what does not run; nothing is ever overwritten.
    """
    from outlive.agent import exclusive, outset, presence
    from outlive.agent.first_host import Places, Wish, found_host

    need_root("make this machine a host")
    places = Places.below(folder) if folder else Places.installed()
    tls = _store_tls(store_ca, store_certificate, store_key)
    login = _store_login(store_user, store_password_file, without_tls=store_without_tls)
    wish = Wish(name, address, site, port, store, tls, login)
    config, fresh = found_host(places, wish, say)
    started = False
    pid = presence.agent_pid(config.run_folder) or exclusive.holder(config.run_folder)
    if restart and pid is not None:
        say(f"ending the agent of {config.host}; its workloads go on")
        outset.end(pid, ENDED_S, workloads=False)
        pid = None
    if not no_start:
        if pid is None:
            started = True
            start_and_wait(places.config, config, wait_s)
        else:
            until_led(config, wait_s, None)
    tell_next(config, places, folder, fresh=fresh, started=started, runs=not no_start)
    if as_json:
        print_json(
            {
                "host": config.host,
                "cluster": config.cluster.id,
                "address": config.address,
                "config": str(places.config),
                "socket": str(config.run_folder / presence.API_SOCKET),
                "fresh": fresh,
                "started": started,
            }
        )


def _store_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> "StoreTls | None":
    from outlive.config.agent_file import StoreTls

    given = (ca, certificate, key)
    return StoreTls(*(path and path.absolute() for path in given)) if any(given) else None


def _store_login(user: str | None, password_file: Path | None, *, without_tls: bool) -> "StoreLogin | None":
    from outlive.config.agent_file import StoreLogin

    if (user is None) != (password_file is None):
        raise UsageInvalid("A user of etcd needs both --store-user and --store-password-file.")
    return None if user is None or password_file is None else StoreLogin(user, password_file.absolute(), without_tls)


def need_root(what: str) -> None:
    """Raise UsageInvalid unless this is root."""
    if os.geteuid() != 0:
        raise UsageInvalid(f"Only root can {what}.", remedy="say it again with sudo", id="needs-root")


def start_and_wait(config_file: Path, config: "AgentConfig", wait_s: float) -> None:
    """Start the agent and wait until its cluster has a leader; Ctrl-C lets it go on alone."""
    from outlive.agent import outset

    say(f"starting the agent of {config.host}")
    process = outset.start(config_file, config)
    try:
        until_led(config, wait_s, process)
    except KeyboardInterrupt:
        say("Detached. The agent goes on starting; see `outlive status`.")
        raise


def until_led(config: "AgentConfig", wait_s: float, process: "subprocess.Popen[bytes] | None") -> dict[str, Any]:
    """Wait until the agent answers, leads or follows a leader, and holds its claim. Raises NoLeader."""
    from outlive.agent import exclusive, outset, presence
    from outlive.client import Client

    client = Client(str(config.run_folder / presence.API_SOCKET))
    deadline = time.monotonic() + wait_s
    last = "it does not answer yet"
    while True:
        # Where somebody else started one at the same moment, that one is waited for.
        if process is not None and exclusive.holder(config.run_folder) is None:
            outset.check_alive(process, config)
        try:
            outlook: dict[str, Any] = client.get("/v1/cluster")["outlook"]
            me = [host for host in outlook["hosts"] if host["name"] == config.host]
            if outlook["leader"] is not None and me and me[0]["claim"]:
                return outlook
            last = str(outlook["sentence"])
        except ClusterUnreachable:
            pass
        if time.monotonic() > deadline:
            raise NoLeader(
                f"The agent of {config.host} runs, but there is no leader after {wait_s:g} s.",
                cause=last,
                remedy=f"it goes on trying; see `outlive doctor` and {config.data_folder / outset.CONSOLE}",
            )
        time.sleep(POLL_S)


def tell_next(
    config: "AgentConfig", places: "Places", folder: Path | None, *, fresh: bool, started: bool, runs: bool
) -> None:
    """Say what is so now, and what to do with it."""
    if not runs:
        say(f"{config.host} is set up ({places.config}); its agent was not started.")
    elif fresh:
        say(f"{config.host} is a cluster of one host now, and leads it.")
    elif started:
        say(f"{config.host} runs again.")
    else:
        say(f"{config.host} runs already; nothing had to be done.")
    if folder is not None:
        say(f"Now:   export OUTLIVE_SOCKET={config.run_folder}/api.sock")
    say(f"{'Now:' if folder is None else '    '}   outlive run web -- /usr/bin/python3 -m http.server 8000")
    say("       outlive status")
    say("One host mends programs that fail. Another host is needed to outlive this one: see it with `outlive demo`.")
    if SYSTEMD.is_dir() and folder is None:
        say("To have systemd start the agent with the machine, from a checkout of Outlive:")
        say("       outlive down && install -m 644 packaging/outlive-agent.service /etc/systemd/system/")
        say("       systemctl enable --now outlive-agent")
