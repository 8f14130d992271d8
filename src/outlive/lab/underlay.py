"""The sites' own networks: a subnet each, joined by a router, by which a lab's hosts reach one another.

Each site is a bridge `net-SITE` in the switch's namespace, with the router's address; the switch forwards between them.
A host's link is `site0`. The client has one too, in a subnet of its own: a VXLAN end that learns goes on using the
route by which it reached a machine's old host, so all hosts must be behind one router for it. What may not pass is
dropped at the switch's port to the receiver, by its sender's address: so a cut can have a direction, and can lie
between any two.
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from outlive.errors import Failed

from .commands import ip, tc
from .plan import CLIENT_NUMBER, MEMBER_SUBNET, ROUTER_NUMBER, UNDERLAY, LabPlan, member_address, site_address

CLIENT = "client"
CLIENT_SUBNET = 100
STORE = "store"
OVERHEAD = 50

_DIVIDED, _ONE_WAY, _FROM_MEMBER = 1, 1000, 200
_IPV4, _ARP = 0x0800, 0x0806
_LOAD_HALF, _LOAD_WORD, _JUMP_IF_EQUAL, _JUMP, _RETURN = 0x28, 0x20, 0x15, 0x05, 0x06
_ETHERTYPE_AT, _IPV4_SENDER_AT, _ARP_SENDER_AT = 12, 14 + 12, 14 + 14
_PASS, _DROP = 0xFFFFFFFF, 2


def make(lab: LabPlan) -> None:
    """Make the sites' networks, the router between them, and each host's link."""
    for name, router in _subnets(lab).items():
        ip("-n", lab.switch, "link", "add", "name", _bridge(name), "type", "bridge", "mcast_snooping", "0")
        ip("-n", lab.switch, "addr", "add", f"{router}/24", "dev", _bridge(name))
        ip("-n", lab.switch, "link", "set", "dev", _bridge(name), "up")
    ip("netns", "exec", lab.switch, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    for host in lab.hosts:
        _link(lab, host.namespace, port(host.name), host.site, host.address)
    _link(lab, lab.client, port(CLIENT), CLIENT, client_address(lab))
    for member in lab.members:
        _link(lab, lab.member_namespace(member), port(member), STORE, member_address(member))


def _subnets(lab: LabPlan) -> dict[str, str]:
    """The router's address in each site's network, the client's, and that of the store's members if there are any."""
    routers = {site: site_address(site, ROUTER_NUMBER) for site in lab.sites}
    if lab.members:
        routers[STORE] = f"{UNDERLAY}.{MEMBER_SUBNET}.{ROUTER_NUMBER}"
    return {**routers, CLIENT: f"{UNDERLAY}.{CLIENT_SUBNET}.{ROUTER_NUMBER}"}


def port(name: str) -> str:
    """The switch's end of a host's `site0`."""
    return f"{name}-net"


def client_address(lab: LabPlan) -> str:
    """The client's address among the hosts' own."""
    return f"{UNDERLAY}.{CLIENT_SUBNET}.{CLIENT_NUMBER}"


def _bridge(site: str) -> str:
    return f"net-{site}"


def _link(lab: LabPlan, namespace: str, end: str, subnet: str, address: str) -> None:
    ip("-n", lab.switch, "link", "add", "name", end, "type", "veth", "peer", "name", "site0", "netns", namespace)
    ip("-n", lab.switch, "link", "set", "dev", end, "master", _bridge(subnet), "up")
    ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "site0")
    ip("-n", namespace, "link", "set", "dev", "site0", "up")
    ip("-n", namespace, "route", "add", f"{UNDERLAY}.0.0/16", "via", _subnets(lab)[subnet])
    tc(lab.switch, [f"qdisc add dev {end} clsact"])


def plug_in(lab: LabPlan, host: str) -> None:
    """Plug the link of a host, or of a member of the store, in where it belongs."""
    subnet = STORE if host in lab.members else lab.host(host).site
    ip("-n", lab.switch, "link", "set", "dev", port(host), "master", _bridge(subnet), "up")


def divide(lab: LabPlan, away: Collection[str]) -> None:
    """Let those who are away, and those who are not, hear only their own kind; with nobody away all hear all."""
    everybody = _addresses(lab)
    if not away:
        tc(lab.switch, [f"filter del dev {port(name)} egress pref {_DIVIDED}" for name in everybody], tolerate=True)
        return
    lines = []
    for name in everybody:
        others = [address for other, address in everybody.items() if (other in away) != (name in away)]
        lines.append(f"filter replace dev {port(name)} egress pref {_DIVIDED} handle 1 {_dropping(others)}")
    tc(lab.switch, lines)


def cut(lab: LabPlan, sources: Iterable[str], targets: Iterable[str]) -> None:
    """Let nothing pass from any of these hosts to any of those; what passes the other way still does."""
    everybody, receivers = _addresses(lab), list(targets)
    pairs = [(source, target) for source in sources for target in receivers if source != target]
    lines = [
        f"filter replace dev {port(target)} egress pref {_one_way(lab, source)} handle 1 "
        + _dropping([everybody[source]])
        for source, target in pairs
    ]
    tc(lab.switch, lines)


def mend(lab: LabPlan, hosts: Iterable[str]) -> None:
    """Undo every `cut` from or to these hosts."""
    everybody, mended = list(_addresses(lab)), set(hosts)
    lines = [
        f"filter del dev {port(target)} egress pref {_one_way(lab, source)}"
        for target in everybody
        for source in everybody
        if target != source and (target in mended or source in mended)
    ]
    tc(lab.switch, lines, tolerate=True)


def shape(lab: LabPlan, *, delay_ms: float = 0.0, loss_percent: float = 0.0, rate_mbit: float | None = None) -> None:
    """Make the links between sites slow; what stays within a site is as it was. Without arguments: as fast as they go.

    delay_ms: one way. rate_mbit: into each site. Raises Failed where the kernel cannot delay (no `sch_netem`).
    """
    devices = [_bridge(site) for site in lab.sites]
    tc(lab.switch, [f"qdisc del dev {device} root" for device in devices], tolerate=True)
    if delay_ms or loss_percent:
        rate = f" rate {rate_mbit}mbit" if rate_mbit else ""
        how = f"netem delay {delay_ms}ms loss {loss_percent}%{rate} limit 100000"
    elif rate_mbit:
        how = f"tbf rate {rate_mbit}mbit burst 64kb latency 50ms"
    else:
        return
    try:
        tc(lab.switch, [f"qdisc replace dev {device} root {how}" for device in devices])
    except Failed as error:
        raise Failed(
            "The links between the lab's sites cannot be made slow on this machine.",
            cause=error.cause,
            remedy="its kernel needs sch_netem for delay and loss, sch_tbf for a rate",
        ) from error


def join(lab: LabPlan, vni: int, address: str, mac: str, mtu: int, port_number: int = 4789) -> str:
    """Make the client a member of a virtual network, as an outside member that learns; the name of its interface.

    address: its own with prefix in that network. Frames that it has to look for go to every host of the lab. Hosts
    must know it as `Outside(client_address(lab), (mac,))`.
    """
    name = f"olvx{vni}"
    end = ["id", str(vni), "local", client_address(lab), "dstport", str(port_number), "dev", "site0"]
    ip("-n", lab.client, "link", "add", "name", name, "address", mac, "mtu", str(mtu), "type", "vxlan", *end)
    for host in lab.hosts:
        row = ["00:00:00:00:00:00", "dev", name, "dst", host.address]
        ip("netns", "exec", lab.client, "bridge", "fdb", "append", *row)
    ip("-n", lab.client, "addr", "add", address, "dev", name)
    ip("-n", lab.client, "link", "set", "dev", name, "up")
    return name


def leave(lab: LabPlan, vni: int) -> None:
    """Take the client out of a virtual network again."""
    ip("-n", lab.client, "link", "del", "dev", f"olvx{vni}", tolerate=True)


def _addresses(lab: LabPlan) -> dict[str, str]:
    members = {member: member_address(member) for member in lab.members}
    return {**{host.name: host.address for host in lab.hosts}, **members, CLIENT: client_address(lab)}


def _one_way(lab: LabPlan, source: str) -> int:
    if source in lab.members:
        return _ONE_WAY + _FROM_MEMBER + lab.members.index(source)
    return _ONE_WAY + (CLIENT_NUMBER if source == CLIENT else lab.host(source).number)


def _dropping(senders: Collection[str]) -> str:
    """A classic BPF program, as `tc` takes it, that drops IPv4 and ARP from these senders and lets all else pass."""
    count = len(senders)
    program = [
        (_LOAD_HALF, 0, 0, _ETHERTYPE_AT),
        (_JUMP_IF_EQUAL, 0, 2, _IPV4),
        (_LOAD_WORD, 0, 0, _IPV4_SENDER_AT),
        (_JUMP, 0, 0, 2),
        (_JUMP_IF_EQUAL, 0, count + 1, _ARP),
        (_LOAD_WORD, 0, 0, _ARP_SENDER_AT),
        *((_JUMP_IF_EQUAL, count - index, 0, int(IPv4Address(sender))) for index, sender in enumerate(senders)),
        (_RETURN, 0, 0, _PASS),
        (_RETURN, 0, 0, _DROP),
    ]
    text = ",".join(" ".join(map(str, step)) for step in program)
    return f"bpf direct-action bytecode '{len(program)},{text}'"
