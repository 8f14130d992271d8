"""The lab's network: namespaces, bridges, links, and ways to cut them.

A host has three links, each with its other end at the switch. `eth0` is in the LAN, where clients are and virtual IPs
move: every site is a bridge in the switch's namespace, and the bridges are joined. `lan0` is a port of the host's own
bridge `br-lan`, by which virtual machines are in the same LAN. `site0` is in the site's own network, see `underlay`;
hosts talk to each other by it. Cutting takes place at the switch, so that what a host's kernel says in its last
moments does not get out, and cuts all three.
"""

from collections.abc import Iterable

from . import underlay
from .commands import ip as ip
from .plan import CLIENT_NUMBER, NETWORK_4, NETWORK_6, LabPlan

CLIENT_PORT = "client"
AWAY = "away"
MACHINES_BRIDGE = "br-lan"
OWN_LINKS = frozenset({"lo", "eth0", "lan0", "site0", MACHINES_BRIDGE})


def namespaces() -> set[str]:
    """The named network namespaces of this machine."""
    return {line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()}


def _namespaces(lab: LabPlan) -> list[str]:
    hosts = [host.namespace for host in lab.hosts]
    return [lab.switch, lab.client, *hosts, *(lab.member_namespace(member) for member in lab.members)]


def make(lab: LabPlan) -> None:
    """Make all namespaces, bridges and links of a lab."""
    switch = lab.switch
    for namespace in _namespaces(lab):
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
        _machines_link(lab, host.namespace, lan_port(host.name), host.site)
    _link(lab, lab.client, CLIENT_PORT, CLIENT_NUMBER, lab.sites[0])
    underlay.make(lab)


def lan_port(host: str) -> str:
    """The switch's end of a host's `lan0`."""
    return f"{host}-lan"


def _bridge(switch: str, name: str) -> None:
    ip("-n", switch, "link", "add", "name", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
    ip("-n", switch, "link", "set", "dev", name, "up")


def _link(lab: LabPlan, namespace: str, port: str, number: int, site: str) -> None:
    ip("-n", lab.switch, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("-n", namespace, "addr", "add", f"{NETWORK_4}.{number}/24", "dev", "eth0")
    ip("-n", namespace, "addr", "add", f"{NETWORK_6}{number}/64", "dev", "eth0", "nodad")
    ip("-n", namespace, "link", "set", "dev", "eth0", "up")
    ip("-n", lab.switch, "link", "set", "dev", port, "master", site, "up")


def _machines_link(lab: LabPlan, namespace: str, port: str, site: str) -> None:
    ip("-n", lab.switch, "link", "add", "name", port, "type", "veth", "peer", "name", "lan0", "netns", namespace)
    _bridge(namespace, MACHINES_BRIDGE)
    for silent in (MACHINES_BRIDGE, "lan0"):
        ip("-n", namespace, "link", "set", "dev", silent, "addrgenmode", "none")
    ip("-n", namespace, "link", "set", "dev", "lan0", "master", MACHINES_BRIDGE, "up")
    ip("-n", lab.switch, "link", "set", "dev", port, "master", site, "up")


def unmake(lab: LabPlan) -> None:
    """Remove whatever there is of the lab's network; removing what is gone already is no error."""
    there = namespaces()
    for namespace in _namespaces(lab):
        if namespace in there:
            ip("netns", "del", namespace, tolerate=True)


def _ports(lab: LabPlan, host: str) -> tuple[str, ...]:
    return (underlay.port(host),) if host in lab.members else (host, lan_port(host), underlay.port(host))


def cut_power(lab: LabPlan, host: str) -> None:
    """Take the links down at the switch: from now on nothing of the host gets out, and nothing in."""
    for port in _ports(lab, host):
        ip("-n", lab.switch, "link", "set", "dev", port, "nomaster", "down")


def isolate(lab: LabPlan, host: str) -> None:
    """Unplug the ports from their bridges; the host still has a carrier, and hears nobody."""
    for port in _ports(lab, host):
        ip("-n", lab.switch, "link", "set", "dev", port, "nomaster")


def partition(lab: LabPlan, hosts: Iterable[str], *, with_client: bool = False) -> None:
    """Move these hosts to a switch of their own: they hear each other, and nobody else."""
    ports = [port for host in hosts for port in (host, lan_port(host))]
    for port in (*ports, *([CLIENT_PORT] if with_client else [])):
        ip("-n", lab.switch, "link", "set", "dev", port, "master", AWAY, "up")
    underlay.divide(lab, away(lab))


def away(lab: LabPlan) -> frozenset[str]:
    """The hosts, and the client, that are on the switch of their own."""
    shown = ip("-n", lab.switch, "-o", "link", "show", "master", AWAY)
    ports = {line.split()[1].partition("@")[0] for line in shown.splitlines()}
    return frozenset(ports & {CLIENT_PORT, *(host.name for host in lab.hosts)})


def heal(lab: LabPlan, hosts: Iterable[str]) -> None:
    """Plug these hosts or members of the store, and the client, in where they belong; mend one-way cuts."""
    names = list(hosts)
    for name in names:
        for port in () if name in lab.members else (name, lan_port(name)):
            ip("-n", lab.switch, "link", "set", "dev", port, "master", lab.host(name).site, "up")
        underlay.plug_in(lab, name)
    ip("-n", lab.switch, "link", "set", "dev", CLIENT_PORT, "master", lab.sites[0], "up")
    underlay.divide(lab, away(lab))
    underlay.mend(lab, names)


def reset(lab: LabPlan, host: str) -> None:
    """What a reboot does to a host's interfaces: its own are there with their own addresses, all else is gone."""
    planned = lab.host(host)
    ip("-n", planned.namespace, "addr", "flush", "dev", "eth0", "scope", "global", tolerate=True)
    ip("-n", planned.namespace, "addr", "add", f"{planned.lan_address}/24", "dev", "eth0", tolerate=True)
    ip("-n", planned.namespace, "addr", "add", f"{NETWORK_6}{planned.number}/64", "dev", "eth0", "nodad", tolerate=True)
    shown = ip("-n", planned.namespace, "-o", "link", "show", tolerate=True)
    for name in [line.split()[1].rstrip(":").partition("@")[0] for line in shown.splitlines()]:
        if name not in OWN_LINKS:
            ip("-n", planned.namespace, "link", "del", "dev", name, tolerate=True)
