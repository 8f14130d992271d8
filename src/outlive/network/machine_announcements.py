"""How neighbours are told that a virtual machine's card is now reached here.

A machine keeps its addresses and its MAC wherever it runs, so nobody's ARP table is wrong after a move; switches, and
VXLAN ends outside that learn, must see its MAC come from another side. The frames go out of the bridge, as if the
machine had sent them. The invariant: nothing here looks whether this host may speak for the machine; its caller does.
"""

import struct
from collections.abc import Iterable

from outlive.cluster.overlay import checked_mac
from outlive.network import arp, asking, ethernet
from outlive.network.address import IPAddress

REVERSE_ETHERTYPE = 0x8035
_REVERSE_REQUEST = 3
_SHORTEST_FRAME = 60
_PACKET = struct.Struct("!6s6sHHHBBH6s4s6s4s")


def reverse_request(mac: bytes) -> bytes:
    """The frame (RARP) that makes switches learn where a MAC is, and that no machine answers or learns from."""
    nobody = bytes(4)
    packet = _PACKET.pack(
        arp.BROADCAST, mac, REVERSE_ETHERTYPE, 1, 0x0800, 6, 4, _REVERSE_REQUEST, mac, nobody, mac, nobody
    )
    return packet.ljust(_SHORTEST_FRAME, b"\0")


def frames(mac: str, ips: Iterable[IPAddress] = ()) -> tuple[bytes, ...]:
    """All that is said for one card: where its MAC is, and for each known address that it is at this MAC.

    Raises MacInvalid.
    """
    own = bytes.fromhex(checked_mac(mac).replace(":", ""))
    told = [frame for ip in ips for frame in asking.announcements(ip, own, router=False)]
    return (reverse_request(own), *told)


def tell(bridge: str, said: Iterable[bytes]) -> None:
    """Send frames out of every port of a bridge. Blocks.

    Raises InterfaceMissing, InterfaceDown when it has no port that carries anything, InterfaceUnsuitable, NotPermitted.
    """
    link = ethernet.interface(bridge)
    ethernet.require_usable(link)
    ethernet.send(link, said)
