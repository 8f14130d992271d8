"""What to ask and what to tell the neighbours about an address, the same for both families.

Pure: chooses between ARP and neighbour discovery, and makes the frames and the reader of the answers. How frames
get out and in is `ethernet`'s; when to ask and tell is `virtual_ip`'s.
"""

from ipaddress import IPv4Address

from outlive.network import arp, neighbour
from outlive.network.address import IPAddress
from outlive.network.errors import PacketRefused
from outlive.network.ethernet import Filter, Question

_LOAD_BYTE, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x15, 0x06
_NEXT_HEADER_AT, _ICMPV6_TYPE_AT = 14 + 6, 14 + 40
_ALL, _NOTHING = 0xFFFF, 0

NEIGHBOUR_MESSAGES: Filter = (
    (_LOAD_BYTE, 0, 0, _NEXT_HEADER_AT),
    (_JUMP_IF_EQUAL, 0, 4, 58),
    (_LOAD_BYTE, 0, 0, _ICMPV6_TYPE_AT),
    (_JUMP_IF_EQUAL, 1, 0, neighbour.SOLICITATION),
    (_JUMP_IF_EQUAL, 0, 1, neighbour.ADVERTISEMENT),
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, _NOTHING),
)
"""Lets solicitations and advertisements through, so that a busy host's other traffic does not fill the queue."""


def who_has(ip: IPAddress, mac: bytes, own_macs: frozenset[bytes]) -> Question:
    """The question whether a machine other than this one has `ip`, asked from `mac`."""

    def read(frame: bytes) -> bytes | None:
        try:
            if isinstance(ip, IPv4Address):
                found = arp.claimant(arp.parse(frame), ip)
            else:
                found = neighbour.claimant(neighbour.parse(frame), ip)
        except PacketRefused:
            return None
        return None if found in own_macs else found

    if isinstance(ip, IPv4Address):
        return Question(arp.probe(mac, ip), arp.ETHERTYPE, read)
    return Question(
        neighbour.probe(mac, ip),
        neighbour.ETHERTYPE,
        read,
        accept=NEIGHBOUR_MESSAGES,
        group=neighbour.group_mac(neighbour.solicited_node(ip)),
    )


def announcements(ip: IPAddress, mac: bytes, *, router: bool) -> tuple[bytes, ...]:
    """The frames that tell everybody that `ip` is at `mac`. router: see `neighbour.announcement`."""
    if isinstance(ip, IPv4Address):
        return arp.announcements(mac, ip)
    return (neighbour.announcement(mac, ip, router=router),)
