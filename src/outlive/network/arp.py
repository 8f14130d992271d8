"""ARP packets as values and as Ethernet frames: questions, announcements, and who claims an address.

Pure: bytes in, values out. What is asked and told follows RFC 5227 (address conflict detection); announcements
come in both forms, request and reply, since some devices learn from only one of them. The invariant: a frame
that is not whole and well-formed is refused, never guessed at.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from outlive.network.errors import PacketRefused

ETHERTYPE = 0x0806
BROADCAST = b"\xff" * 6
NO_MAC = bytes(6)

_ETHERNET = struct.Struct("!6s6sH")
_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_HARDWARE, _IPV4_PROTOCOL = 1, 0x0800
_UNSPECIFIED = IPv4Address(0)

REQUEST, REPLY = 1, 2


@dataclass(frozen=True, slots=True)
class Arp:
    """One ARP packet for IPv4 over Ethernet."""

    operation: int
    sender_mac: bytes
    sender_ip: IPv4Address
    target_mac: bytes
    target_ip: IPv4Address


def probe(mac: bytes, ip: IPv4Address) -> bytes:
    """The frame that asks whether anybody has `ip`, without claiming it: the sender's address is left zero."""
    return build(Arp(REQUEST, mac, _UNSPECIFIED, NO_MAC, ip))


def announcements(mac: bytes, ip: IPv4Address) -> tuple[bytes, bytes]:
    """The two frames, request and reply form, that tell everybody that `ip` is at `mac`.

    The reply form names the sender as its own target: neighbours take it for an announcement only then.
    """
    return build(Arp(REQUEST, mac, ip, NO_MAC, ip)), build(Arp(REPLY, mac, ip, mac, ip))


def build(packet: Arp) -> bytes:
    """The packet as a broadcast Ethernet frame."""
    return _ETHERNET.pack(BROADCAST, packet.sender_mac, ETHERTYPE) + _PACKET.pack(
        _ETHERNET_HARDWARE,
        _IPV4_PROTOCOL,
        len(packet.sender_mac),
        len(packet.sender_ip.packed),
        packet.operation,
        packet.sender_mac,
        packet.sender_ip.packed,
        packet.target_mac,
        packet.target_ip.packed,
    )


def parse(frame: bytes) -> Arp:
    """Read a frame; padding after the packet is ignored. Raises PacketRefused."""
    if len(frame) < _ETHERNET.size + _PACKET.size:
        raise PacketRefused("An ARP packet was cut short.", cause=f"{len(frame)} bytes")
    _, _, ethertype = _ETHERNET.unpack_from(frame)
    hardware, protocol, mac_length, ip_length, operation, sender_mac, sender_ip, target_mac, target_ip = (
        _PACKET.unpack_from(frame, _ETHERNET.size)
    )
    kinds = (ethertype, hardware, protocol, mac_length, ip_length)
    if kinds != (ETHERTYPE, _ETHERNET_HARDWARE, _IPV4_PROTOCOL, 6, 4):
        raise PacketRefused("A packet was not ARP for IPv4 over Ethernet.", cause=f"it says {kinds}")
    if operation not in (REQUEST, REPLY):
        raise PacketRefused("An ARP packet was neither request nor reply.", cause=f"operation {operation}")
    return Arp(operation, sender_mac, IPv4Address(sender_ip), target_mac, IPv4Address(target_ip))


def claimant(packet: Arp, ip: IPv4Address) -> bytes | None:
    """The MAC that has `ip`, or is about to take it, by this packet; None if the packet does not say.

    A probe for the same address is another host's attempt to take it at this moment (RFC 5227, 2.1.1).
    """
    if packet.sender_ip == ip:
        return packet.sender_mac
    if packet.operation == REQUEST and packet.sender_ip == _UNSPECIFIED and packet.target_ip == ip:
        return packet.sender_mac
    return None
