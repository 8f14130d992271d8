"""The lab's network: namespaces, bridges, links, and ways to cut them.

Every site is a bridge in the switch's namespace, and the bridges are joined. A host's link has one end, eth0, in its
own namespace and the other, named after the host, at the switch. Cutting takes place at the switch, so that what
a host's kernel says in its last moments does not get out.
"""

import subprocess
from collections.abc import Iterable

from outlive.errors import Failed

from .plan import CLIENT_NUMBER, NETWORK_4, NETWORK_6, LabPlan

COMMAND_S = 20.0
CLIENT_PORT = "client"
AWAY = "away"


def ip(*arguments: str, tolerate: bool = False) -> str:
    """Run `ip` and return what it prints. Raises Failed with its complaint unless `tolerate`."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode and not tolerate:
        raise Failed(
            f"`ip {' '.join(arguments)}` failed.",
            cause=done.stderr.strip(),
            remedy="the lab needs root and network namespaces: see `outlive doctor`",
        )
    return done.stdout


def namespaces() -> set[str]:
    """The named network namespaces of this machine."""
    return {line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()}


def make(lab: LabPlan) -> None:
    """Make all namespaces, bridges and links of a lab."""
    switch = lab.switch
    for namespace in (switch, lab.client, *(host.namespace for host in lab.hosts)):
        ip("netns", "add", namespace)
        ip("-n", namespace, "link", "set", "dev", "lo", "up")
    for index, site in enumerate(lab.sites):
        _bridge(switch, site)
        if index:
            ip("-n", switch, "link", "add", "name", f"up-{site}", "type", "veth", "peer", "name", f"down-{site}")
            ip("-n", switch, "link", "set", "dev", f"up-{site}", "master", lab.sites[0], "up")
            ip("-n", switch, "link", "set", "dev", f"down-{site}", "master", site, "up")
    _bridge(switch, AWAY)
    for host in lab.hosts:
        _link(lab, host.namespace, host.name, host.number, host.site)
    _link(lab, lab.client, CLIENT_PORT, CLIENT_NUMBER, lab.sites[0])


def _bridge(switch: str, name: str) -> None:
    ip("-n", switch, "link", "add", "name", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    ip("-n", switch, "link", "set", "dev", name, "up")


def _link(lab: LabPlan, namespace: str, port: str, number: int, site: str) -> None:
    ip("-n", lab.switch, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("-n", namespace, "addr", "add", f"{NETWORK_4}.{number}/24", "dev", "eth0")
    ip("-n", namespace, "addr", "add", f"{NETWORK_6}{number}/64", "dev", "eth0", "nodad")
    ip("-n", namespace, "link", "set", "dev", "eth0", "up")
    ip("-n", lab.switch, "link", "set", "dev", port, "master", site, "up")


def unmake(lab: LabPlan) -> None:
    """Remove whatever there is of the lab's network; removing what is gone already is no error."""
    there = namespaces()
    for namespace in (lab.switch, lab.client, *(host.namespace for host in lab.hosts)):
        if namespace in there:
            ip("netns", "del", namespace, tolerate=True)


def cut_power(lab: LabPlan, host: str) -> None:
    """Take the link down at the switch: from now on nothing of the host gets out, and nothing in."""
    ip("-n", lab.switch, "link", "set", "dev", host, "nomaster", "down")


def isolate(lab: LabPlan, host: str) -> None:
    """Unplug the port from its bridge; the host still has a carrier, and hears nobody."""
    ip("-n", lab.switch, "link", "set", "dev", host, "nomaster")


def partition(lab: LabPlan, hosts: Iterable[str], *, with_client: bool = False) -> None:
    """Move these hosts to a switch of their own: they hear each other, and nobody else."""
    for port in (*hosts, *([CLIENT_PORT] if with_client else [])):
        ip("-n", lab.switch, "link", "set", "dev", port, "master", AWAY, "up")


def heal(lab: LabPlan, hosts: Iterable[str]) -> None:
    """Plug these hosts, and the client, in where they belong."""
    for name in hosts:
        ip("-n", lab.switch, "link", "set", "dev", name, "master", lab.host(name).site, "up")
    ip("-n", lab.switch, "link", "set", "dev", CLIENT_PORT, "master", lab.sites[0], "up")


def reset(lab: LabPlan, host: str) -> None:
    """What a reboot does to a host's interfaces: its own address is there, every other is gone."""
    planned = lab.host(host)
    ip("-n", planned.namespace, "addr", "flush", "dev", "eth0", "scope", "global", tolerate=True)
    ip("-n", planned.namespace, "addr", "add", f"{planned.address}/24", "dev", "eth0", tolerate=True)
    ip("-n", planned.namespace, "addr", "add", f"{NETWORK_6}{planned.number}/64", "dev", "eth0", "nodad", tolerate=True)
