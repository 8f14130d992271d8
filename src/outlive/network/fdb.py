"""The forwarding tables of VXLAN ends, changed and read by rtnetlink messages, many in one go.

A takeover changes an entry for every machine that moved, on every host, and must take milliseconds; so the messages
are made here and sent together. Messages are pure values; `change` and `rows` speak to the kernel, block for a bounded
time, and belong into a worker thread. Invariant: nothing but the tables of the given ends is changed.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from outlive.network.errors import PacketRefused, kernel_refused, not_permitted

ALL_MACS = "00:00:00:00:00:00"
"""In a VXLAN end's table: where frames for everybody and for unknown receivers go."""

LIMIT_S = 2.0

_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_NEW, _DELETE, _LIST = 28, 29, 30
_KIND_ERROR, _KIND_DONE = 2, 3
_REQUEST, _ACKNOWLEDGE, _REPLACE, _DUMP, _CREATE, _APPEND = 0x1, 0x4, 0x100, 0x300, 0x400, 0x800
_BRIDGE_FAMILY = 7
_PERMANENT_STATIC, _OWN_TABLE = 0x80 | 0x40, 0x02
_ADDRESS, _MAC = 1, 2
_MAC_BYTES, _ADDRESS_BYTES = 6, (4, 16)
_AT_ONCE = 64
_LONGEST_DATAGRAM = 64 * 1024
_BUFFER_BYTES = 1024 * 1024
_GONE = frozenset((errno.ENOENT, errno.ENODEV, errno.ENXIO))


@dataclass(frozen=True, slots=True)
class Change:
    """Have the end with this index send frames for `mac` to `address` (put), or no more.

    For ALL_MACS besides to others; for one MAC there alone.
    """

    put: bool
    index: int
    mac: str
    address: str


def message(change: Change, sequence: int) -> bytes:
    """The request for one change."""
    kind, how = _DELETE, 0
    if change.put:
        kind, how = _NEW, _CREATE | (_APPEND if change.mac == ALL_MACS else _REPLACE)
    body = _NEIGHBOUR.pack(_BRIDGE_FAMILY, change.index, _PERMANENT_STATIC, _OWN_TABLE, 0)
    body += _attribute(_MAC, bytes.fromhex(change.mac.replace(":", "")))
    body += _attribute(_ADDRESS, ip_address(change.address).packed)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACKNOWLEDGE | how, sequence, 0) + body


def parse(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence and body of each message in a datagram. Raises PacketRefused for what is cut short."""
    while datagram:
        if len(datagram) < _HEADER.size:
            raise PacketRefused("A netlink message was cut short.")
        size, kind, _, sequence, _ = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= size <= len(datagram):
            raise PacketRefused("A netlink message was cut short.", cause=f"{len(datagram)} of {size} bytes")
        yield kind, sequence, datagram[_HEADER.size : size]
        datagram = datagram[(size + 3) & ~3 :]


def read_row(body: bytes) -> tuple[int, str, str] | None:
    """Index, MAC and address in what the kernel tells of one entry; None for one that sends nowhere."""
    if len(body) < _NEIGHBOUR.size:
        raise PacketRefused("A netlink message was cut short.")
    _, index, _, _, _ = _NEIGHBOUR.unpack_from(body)
    mac = address = b""
    body = body[_NEIGHBOUR.size :]
    while len(body) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(body)
        if not _ATTRIBUTE.size <= size <= len(body):
            raise PacketRefused("An attribute in a netlink message has a wrong length.")
        if kind == _MAC:
            mac = body[_ATTRIBUTE.size : size]
        elif kind == _ADDRESS:
            address = body[_ATTRIBUTE.size : size]
        body = body[(size + 3) & ~3 :]
    if len(mac) != _MAC_BYTES or len(address) not in _ADDRESS_BYTES:
        return None
    return index, mac.hex(":"), str(ip_address(address))


def read_error(body: bytes) -> int:
    """The errno in an answer, 0 for none."""
    if len(body) < _ERROR.size:
        raise PacketRefused("A netlink message was cut short.")
    return -int(_ERROR.unpack_from(body)[0])


def change(changes: Sequence[Change]) -> None:
    """Make the changes, in their order; taking away what is not there is no error.

    Raises NotPermitted or KernelRefused for the first that the kernel refused; the others are made nevertheless.
    """
    refused: list[tuple[Change, int]] = []
    with _netlink() as asking:
        for begin in range(0, len(changes), _AT_ONCE):
            some = changes[begin : begin + _AT_ONCE]
            asking.send(b"".join(message(each, number) for number, each in enumerate(some)))
            for number, error in _answers(asking, len(some)):
                assert 0 <= number < len(some), "an answer is to one of the requests"
                expected = frozenset((errno.EEXIST,)) if some[number].put else _GONE
                if error and error not in expected:
                    refused.append((some[number], error))
    if refused:
        first, error = refused[0]
        doing = f"forward {first.mac} to {first.address}"
        raise not_permitted(doing, "CAP_NET_ADMIN") if error == errno.EPERM else kernel_refused(doing, error)


def rows(index: int) -> list[tuple[str, str]]:
    """MAC and address of every entry of one end."""
    body = _NEIGHBOUR.pack(_BRIDGE_FAMILY, index, 0, 0, 0)
    found: list[tuple[str, str]] = []
    with _netlink() as asking:
        asking.send(_HEADER.pack(_HEADER.size + len(body), _LIST, _REQUEST | _DUMP, 0, 0) + body)
        while True:
            for kind, _, told in parse(asking.recv(_LONGEST_DATAGRAM)):
                if kind == _KIND_DONE:
                    return found
                if kind == _KIND_ERROR:
                    raise kernel_refused("list what is forwarded", read_error(told))
                if kind == _NEW and (row := read_row(told)) is not None and row[0] == index:
                    found.append(row[1:])


def _answers(asking: socket.socket, count: int) -> Iterator[tuple[int, int]]:
    """For each of the last requests its number and the errno that it was answered with, 0 for none."""
    heard = 0
    while heard < count:
        for kind, sequence, told in parse(asking.recv(_LONGEST_DATAGRAM)):
            if kind == _KIND_ERROR:
                heard += 1
                yield sequence, read_error(told)


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


@contextmanager
def _netlink() -> Iterator[socket.socket]:
    """A socket to the kernel; what goes wrong with it is told as KernelRefused."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            netlink.settimeout(LIMIT_S)
            netlink.bind((0, 0))
            netlink.connect((0, 0))
            yield netlink
    except OSError as error:
        raise kernel_refused("say or change what is forwarded", error.errno or errno.ETIMEDOUT) from error
