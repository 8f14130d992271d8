"""Virtual networks: what each host must have so that a frame finds the host where its receiver runs.

A virtual network spans hosts and sites. Every host on which one of its machines runs, or stands by, is a member;
members wrap frames (VXLAN) and send them to each other's own addresses. Nothing is learned from traffic: where a
machine is follows from its placement alone. What follows from it for one host is computed here; `outlive.network`
makes it so. The invariant: for one state of the store, no host sends a machine's frames to a host that its
placement does not name.

While the standby of a hot machine is paired, other hosts send the machine's frames there too (`Entry.shadow`):
it keeps them, and when it takes over nobody else has to change anything first.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from outlive.errors import UsageInvalid

from .host import NAME
from .machine import Machine

MOST_VNI = 0xFFFFFF
LEAST_MTU, MOST_MTU = 576, 9000
LEAST_MTU_6 = 1280
MTU = 1450
"""What is left of Ethernet's usual 1500 bytes when frames are wrapped over IPv4; over IPv6 it is 1430."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MULTICAST_BIT = 0x01


class MacInvalid(UsageInvalid):
    """The text is no MAC that a network card could have."""

    id = "network.mac-invalid"


@dataclass(frozen=True, slots=True)
class Outside:
    """A member that is no host of the cluster, such as a router's own VXLAN end.

    address: where wrapped frames are sent to.  macs: those known to be behind it; frames to others are flooded to it.
    """

    address: str
    macs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A virtual network, as in the store under `networks/NAME`.

    vni:    its number on the wire, 1 to 2²⁴-1; one network each.
    mtu:    the largest packet in bytes that its machines may send, without the Ethernet header.
    subnet: for people and for checks of addresses; the network itself carries any Ethernet frame.
    """

    name: str
    vni: int
    mtu: int = MTU
    subnet: str = ""
    outside: tuple[Outside, ...] = ()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a machine is by its placement.

    standby: the host that stands by, or that the machine is about to move to.
    paired:  the standby could take over at any moment.
    """

    workload: str
    generation: int
    host: str | None
    standby: str | None = None
    pairing: int = 0
    paired: bool = False

    @property
    def age(self) -> tuple[int, int]:
        """Grows with every change of where it is: generation, and pairing within it."""
        return self.generation, self.pairing


@dataclass(frozen=True, slots=True)
class Entry:
    """Frames for `mac` go to the member at `address`; shadow: besides to where they go anyway.

    age: of the whereabouts that it follows from; (0, 0) for what is outside. Only an older entry is replaced.
    """

    mac: str
    address: str
    age: tuple[int, int]
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Here:
    """A network card of a machine on this host. live: it runs here; else it stands by and says nothing."""

    workload: str
    nic: str
    mac: str
    live: bool
    age: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Segment:
    """One virtual network as one host has it.

    flood:    addresses of the other members: frames for everybody, and for unknown receivers, go to each.
    shadowed: some machine of it has a standby, so that shadow frames may come or go.
    """

    network: Network
    flood: tuple[str, ...]
    entries: tuple[Entry, ...]
    here: tuple[Here, ...]
    shadowed: bool


@dataclass(frozen=True, slots=True)
class Wiring:
    """All that one host must have. problems: sentences about what could not be wired."""

    segments: tuple[Segment, ...] = ()
    problems: tuple[str, ...] = ()


def checked_mac(text: str) -> str:
    """The MAC in lower case. Raises MacInvalid for what no single network card can have."""
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        cause = "it is not six bytes as in 52:54:00:12:34:56"
    elif mac == "00:00:00:00:00:00":
        cause = "it is zero"
    elif int(mac[:2], 16) & _MULTICAST_BIT:
        cause = "its first byte is odd, which means a group of receivers"
    else:
        return mac
    raise MacInvalid(
        f"{text[:40]!r} cannot be a card's MAC.", cause=cause, remedy="Write one such as 52:54:00:12:34:56."
    )


def problem_with(network: Network) -> str:
    """What keeps a network from ever working; '' for nothing."""
    if not NAME.fullmatch(network.name):
        return f"{network.name[:80]!r} is no name"
    if not 1 <= network.vni <= MOST_VNI:
        return f"its number {network.vni} is not from 1 to {MOST_VNI}"
    if not LEAST_MTU <= network.mtu <= MOST_MTU:
        return f"its MTU {network.mtu} is not from {LEAST_MTU} to {MOST_MTU}"
    try:
        if network.subnet and ip_network(network.subnet).version == 6 and network.mtu < LEAST_MTU_6:
            return f"its MTU {network.mtu} is too small for IPv6, which needs {LEAST_MTU_6}"
    except ValueError as error:
        return f"its subnet cannot be: {error}"
    for member in network.outside:
        try:
            ip_address(member.address)
            for mac in member.macs:
                checked_mac(mac)
        except (ValueError, MacInvalid) as error:
            return f"its outside member cannot be: {error}"
    return ""


def wiring(
    host: str,
    networks: Iterable[Network],
    machines: Mapping[str, Machine],
    whereabouts: Iterable[Whereabouts],
    addresses: Mapping[str, str],
) -> Wiring:
    """What `host` must have.

    machines:    of every workload of kind vm, by its name.
    addresses:   each host's own address, by its name; `host` among them.
    Raises nothing: what cannot be wired is left out and named in `problems`.
    """
    own = addresses.get(host)
    if own is None or _version(own) is None:
        return Wiring(problems=(f"This host has no address of its own in the cluster: {own!r}.",))
    problems: list[str] = []
    reachable = {name: text for name, text in addresses.items() if _version(text) == _version(own)}
    known = _distinct(networks, problems)
    cards = _cards(known, machines, whereabouts, problems)
    segments = tuple(
        segment
        for network in known.values()
        if (segment := _segment(host, network, cards.get(network.name, []), reachable, problems)) is not None
    )
    return Wiring(segments, tuple(dict.fromkeys(problems)))


@dataclass(frozen=True, slots=True)
class _Card:
    nic: str
    mac: str
    at: Whereabouts

    def hosts(self) -> list[str]:
        return [name for name in (self.at.host, self.at.standby) if name is not None]


def _distinct(networks: Iterable[Network], problems: list[str]) -> dict[str, Network]:
    """Networks that can be, by name; of two with the same number the first by name."""
    known: dict[str, Network] = {}
    numbers: dict[int, str] = {}
    for network in sorted(networks, key=lambda each: each.name):
        if problem := problem_with(network):
            problems.append(f"Network {network.name} cannot be: {problem}.")
        elif (other := numbers.setdefault(network.vni, network.name)) != network.name:
            problems.append(f"Network {network.name} has the number {network.vni}, which is that of {other}.")
        else:
            known[network.name] = network
    return known


def _cards(
    known: Mapping[str, Network],
    machines: Mapping[str, Machine],
    whereabouts: Iterable[Whereabouts],
    problems: list[str],
) -> dict[str, list[_Card]]:
    """The cards of placed machines, by network; of two with the same MAC the first by workload and card."""
    found: dict[str, list[_Card]] = {}
    owners: dict[tuple[str, str], str] = {}
    for at in sorted(whereabouts, key=lambda each: each.workload):
        machine = machines.get(at.workload)
        for nic in machine.nics if machine is not None and at.host is not None else ():
            if nic.network is None:
                continue
            card = f"{at.workload}/{nic.name}"
            if nic.network not in known:
                problems.append(f"{card} is on network {nic.network}, which is not there.")
                continue
            try:
                mac = checked_mac(nic.mac)
            except MacInvalid as error:
                problems.append(f"{card}: {error}")
                continue
            if (other := owners.setdefault((nic.network, mac), card)) != card:
                problems.append(f"{card} has the MAC {mac}, which is that of {other}.")
                continue
            found.setdefault(nic.network, []).append(_Card(nic.name, mac, at))
    return found


def _segment(
    host: str, network: Network, cards: list[_Card], reachable: Mapping[str, str], problems: list[str]
) -> Segment | None:
    """The network as the host has it; None where it has none of its machines."""
    members = {name for card in cards for name in card.hosts()}
    if host not in members:
        return None
    problems += [
        f"Network {network.name} does not reach host {name}: no address of the same family is known."
        for name in sorted(members - reachable.keys())
    ]
    own = reachable[host]
    outside = [each for each in network.outside if _version(each.address) == _version(own) and each.address != own]
    flood = {reachable[name] for name in members - {host} if name in reachable} | {each.address for each in outside}
    entries = {mac.lower(): Entry(mac.lower(), each.address, (0, 0)) for each in outside for mac in each.macs}
    shadows: list[Entry] = []
    here: list[Here] = []
    for card in cards:
        entries.pop(card.mac, None)
        if host in card.hosts():
            here.append(Here(card.at.workload, card.nic, card.mac, card.at.host == host, card.at.age))
        if card.at.host is not None and card.at.host != host and card.at.host in reachable:
            entries[card.mac] = Entry(card.mac, reachable[card.at.host], card.at.age)
        standby = card.at.standby
        if standby is not None and card.at.paired and host not in card.hosts() and standby in reachable:
            shadows.append(Entry(card.mac, reachable[standby], card.at.age, shadow=True))
    shadowed = any(card.at.standby is not None for card in cards)
    ordered = (*sorted(entries.values(), key=lambda entry: entry.mac), *shadows)
    return Segment(network, tuple(sorted(flood)), ordered, tuple(here), shadowed)


def _version(address: str) -> int | None:
    try:
        return ip_address(address).version
    except ValueError:
        return None
