"""Neighbour solicitations and advertisements of IPv6 as values and as Ethernet frames.

Pure: bytes in, values out. Questions follow duplicate address detection (RFC 4862, 5.4), announcements are
unsolicited advertisements with the override flag (RFC 4861, 7.2.6). The invariant: a message that fails any of
the checks that RFC 4861 (7.1) asks of a receiver is refused, so that a garbled or routed-in packet says nothing.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from outlive.network.errors import PacketRefused

ETHERTYPE = 0x86DD
SOLICITATION, ADVERTISEMENT = 135, 136

_ETHERNET = struct.Struct("!6s6sH")
_IPV6 = struct.Struct("!IHBB16s16s")
_MESSAGE = struct.Struct("!BBHI16s")
_ICMPV6 = 58
_HOP_LIMIT = 255
_MOST_OPTIONS = 64
_SOURCE_LINK, _TARGET_LINK = 1, 2
_ROUTER, _SOLICITED, _OVERRIDE = 1 << 31, 1 << 30, 1 << 29
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))

UNSPECIFIED = IPv6Address(0)
ALL_NODES = IPv6Address("ff02::1")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One neighbour solicitation or advertisement.

    link_mac: from the source (solicitation) or target (advertisement) link-layer option; None without.
    frame_mac: the sender of the Ethernet frame.
    router, solicited, override: flags of an advertisement.
    """

    kind: int
    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    frame_mac: bytes
    link_mac: bytes | None = None
    router: bool = False
    solicited: bool = False
    override: bool = False


def solicited_node(ip: IPv6Address) -> IPv6Address:
    """The multicast group in which the holder of `ip` listens for questions."""
    return IPv6Address(_SOLICITED_NODE | (int(ip) & 0xFFFFFF))


def group_mac(group: IPv6Address) -> bytes:
    """The Ethernet address of an IPv6 multicast group."""
    return b"\x33\x33" + group.packed[-4:]


def probe(mac: bytes, ip: IPv6Address) -> bytes:
    """The frame that asks whether anybody has `ip`, without claiming it: it comes from no address."""
    return build(Neighbour(SOLICITATION, UNSPECIFIED, solicited_node(ip), ip, mac))


def announcement(mac: bytes, ip: IPv6Address, *, router: bool) -> bytes:
    """The frame that tells everybody that `ip` is at `mac` from now on.

    router: whether this host forwards packets; neighbours that use it as a router would forget it if we denied.
    """
    return build(Neighbour(ADVERTISEMENT, ip, ALL_NODES, ip, mac, link_mac=mac, router=router, override=True))


def build(message: Neighbour) -> bytes:
    """The message as an Ethernet frame to its destination's multicast group."""
    flags = _ROUTER * message.router | _SOLICITED * message.solicited | _OVERRIDE * message.override
    body = _MESSAGE.pack(message.kind, 0, 0, flags, message.target.packed)
    if message.link_mac is not None:
        option = _SOURCE_LINK if message.kind == SOLICITATION else _TARGET_LINK
        body += bytes((option, 1)) + message.link_mac
    checksum = _checksum(message.source.packed, message.destination.packed, body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    return (
        _ETHERNET.pack(group_mac(message.destination), message.frame_mac, ETHERTYPE)
        + _IPV6.pack(
            6 << 28,
            len(body),
            _ICMPV6,
            _HOP_LIMIT,
            message.source.packed,
            message.destination.packed,
        )
        + body
    )


def parse(frame: bytes) -> Neighbour:
    """Read a frame; padding after the packet is ignored. Raises PacketRefused."""
    if len(frame) < _ETHERNET.size + _IPV6.size + _MESSAGE.size:
        raise PacketRefused("A neighbour message was cut short.", cause=f"{len(frame)} bytes")
    _, frame_mac, ethertype = _ETHERNET.unpack_from(frame)
    version, length, header, hops, source, destination = _IPV6.unpack_from(frame, _ETHERNET.size)
    if (ethertype, version >> 28, header) != (ETHERTYPE, 6, _ICMPV6):
        raise PacketRefused("A packet was not ICMPv6.")
    if hops != _HOP_LIMIT:
        raise PacketRefused("A neighbour message came through a router.", cause=f"hop limit {hops}")
    start = _ETHERNET.size + _IPV6.size
    body = frame[start : start + length]
    if len(body) != length or length < _MESSAGE.size:
        raise PacketRefused("A neighbour message was cut short.", cause=f"{len(body)} of {length} bytes")
    if _checksum(source, destination, body) != 0:
        raise PacketRefused("A neighbour message was altered on the way.", cause="its checksum is wrong")
    kind, code, _, flags, target = _MESSAGE.unpack_from(body)
    if kind not in (SOLICITATION, ADVERTISEMENT) or code != 0:
        raise PacketRefused("A packet was no neighbour message.", cause=f"type {kind}, code {code}")
    advertisement = kind == ADVERTISEMENT
    message = Neighbour(
        kind,
        IPv6Address(source),
        IPv6Address(destination),
        IPv6Address(target),
        frame_mac,
        link_mac=_link_mac(body[_MESSAGE.size :], _TARGET_LINK if advertisement else _SOURCE_LINK),
        router=advertisement and bool(flags & _ROUTER),
        solicited=advertisement and bool(flags & _SOLICITED),
        override=advertisement and bool(flags & _OVERRIDE),
    )
    _check_sense(message)
    return message


def claimant(message: Neighbour, ip: IPv6Address) -> bytes | None:
    """The MAC that has `ip`, or is about to take it, by this message; None if the message does not say.

    A solicitation from no address is another host's duplicate detection for it (RFC 4862, 5.4.3).
    """
    if message.target != ip:
        return None
    if message.kind == ADVERTISEMENT:
        return message.link_mac or message.frame_mac
    return message.frame_mac if message.source == UNSPECIFIED else None


def _check_sense(message: Neighbour) -> None:
    """What RFC 4861 (7.1) asks beyond the form."""
    if message.target.is_multicast:
        raise PacketRefused("A neighbour message was about a multicast address.")
    if message.kind == ADVERTISEMENT and message.solicited and message.destination.is_multicast:
        raise PacketRefused("A solicited advertisement was sent to a multicast group.")
    if message.kind == SOLICITATION and message.source == UNSPECIFIED:
        if message.link_mac is not None:
            raise PacketRefused("A solicitation from no address named its link address.")
        if int(message.destination) & ~0xFFFFFF != _SOLICITED_NODE:
            raise PacketRefused("A solicitation from no address was not sent to a solicited-node group.")


def _link_mac(options: bytes, wanted: int) -> bytes | None:
    """The MAC in the link-layer option of the wanted type; all options are checked for their length."""
    found: bytes | None = None
    for _ in range(_MOST_OPTIONS):
        if not options:
            return found
        size = options[1] * 8 if len(options) > 1 else 0
        if size == 0 or size > len(options):
            raise PacketRefused("A neighbour message had an option of a wrong length.")
        if options[0] == wanted and size == 8:
            found = found or options[2:8]
        options = options[size:]
    raise PacketRefused("A neighbour message had too many options.")


def _checksum(source: bytes, destination: bytes, body: bytes) -> int:
    """The Internet checksum over pseudo-header and body; zero for a body that holds its right checksum."""
    data = source + destination + struct.pack("!II", len(body), _ICMPV6) + body + bytes(len(body) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
