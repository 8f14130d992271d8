"""What the kernel tells about interfaces, and which of it means that a link came back or went.

Pure: datagrams of rtnetlink in, changes out. The invariant: an interface whose carrier returned is reported even
if the loss itself was never seen, since the kernel counts the returns and joins notices that follow closely.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from outlive.network.errors import PacketRefused

NEW_LINK, DELETED_LINK, GET_LINK = 16, 17, 18
ERROR, DONE = 2, 3

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST_DUMP = 0x301
_UP, _RUNNING = 0x1, 0x40
_MAC, _NAME, _RETURNS = 1, 3, 47
_TYPE_MASK = 0x3FFF
_ANY_FAMILY = 0


class LinkState(StrEnum):
    """Running: up, with carrier. Down: there, but carries nothing. Gone: no such interface any more."""

    RUNNING = "running"
    DOWN = "down"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class LinkChange:
    """An interface that is in a state anew; RUNNING also when its carrier or MAC changed in between."""

    interface: str
    state: LinkState


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel tells it. returns: how often it has got carrier."""

    index: int
    name: str
    state: LinkState
    mac: bytes = b""
    returns: int = 0


def dump_request() -> bytes:
    """The datagram that asks the kernel for all interfaces; its answer ends with a DONE message."""
    size = _HEADER.size + _LINK.size
    return _HEADER.pack(size, GET_LINK, _REQUEST_DUMP, 1, 0) + _LINK.pack(_ANY_FAMILY, 0, 0, 0, 0)


def parse(datagram: bytes) -> tuple[tuple[Link, ...], bool]:
    """The interfaces that a datagram tells of, and whether it is the end of a list. Raises PacketRefused."""
    found: list[Link] = []
    while datagram:
        if len(datagram) < _HEADER.size:
            raise PacketRefused("A netlink message was cut short.")
        size, kind, *_ = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= size <= len(datagram):
            raise PacketRefused("A netlink message was cut short.", cause=f"{len(datagram)} of {size} bytes")
        if kind == DONE:
            return tuple(found), True
        if kind == ERROR:
            raise PacketRefused("The kernel answered a request for its interfaces with an error.")
        if kind in (NEW_LINK, DELETED_LINK):
            link = _link(kind, datagram[_HEADER.size : size])
            if link is not None:
                found.append(link)
        datagram = datagram[_aligned(size) :]
    return tuple(found), False


class LinkTable:
    """The interfaces as last told, to know what a new telling changes."""

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self._links = {link.index: link for link in links}

    def learn(self, links: Iterable[Link]) -> list[LinkChange]:
        """Take in what was told, in order; what it changed."""
        return [change for link in links for change in self._learn(link)]

    def replace(self, links: Iterable[Link]) -> list[LinkChange]:
        """Take in a complete list; what changed since, the interfaces that are no longer in it included."""
        complete = list(links)
        listed = {link.index for link in complete}
        gone = [known for index, known in self._links.items() if index not in listed]
        return self.learn(
            [Link(known.index, known.name, LinkState.GONE) for known in gone] + complete,
        )

    def _learn(self, link: Link) -> list[LinkChange]:
        before = self._links.pop(link.index, None)
        if link.state is not LinkState.GONE:
            self._links[link.index] = link
        if before is None:
            return [] if link.state is LinkState.GONE else [LinkChange(link.name, link.state)]
        changes = []
        if before.name != link.name:
            changes.append(LinkChange(before.name, LinkState.GONE))
        came_back = link.state is LinkState.RUNNING and (link.returns, link.mac) != (before.returns, before.mac)
        if changes or came_back or link.state is not before.state:
            changes.append(LinkChange(link.name, link.state))
        return changes


def _link(kind: int, body: bytes) -> Link | None:
    """One interface; None for what a bridge tells of its ports, which has the same type."""
    if len(body) < _LINK.size:
        raise PacketRefused("A netlink message was cut short.")
    family, _, index, flags, _ = _LINK.unpack_from(body)
    if family != _ANY_FAMILY:
        return None
    attributes = _attributes(body[_LINK.size :])
    name = attributes.get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    if not name:
        raise PacketRefused("The kernel told of an interface without a name.")
    returns = attributes.get(_RETURNS, b"")
    if kind == DELETED_LINK:
        state = LinkState.GONE
    else:
        state = LinkState.RUNNING if flags & _UP and flags & _RUNNING else LinkState.DOWN
    return Link(
        index,
        name,
        state,
        mac=attributes.get(_MAC, b""),
        returns=struct.unpack("=I", returns)[0] if len(returns) == 4 else 0,
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= size <= len(data):
            raise PacketRefused("An attribute in a netlink message has a wrong length.")
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : size]
        data = data[_aligned(size) :]
    return found


def _aligned(size: int) -> int:
    return (size + 3) & ~3
