"""An Ethernet interface of this host: its state, and raw frames out of it and into it.

Everything here blocks for a bounded time and belongs into a worker thread; even closing a packet socket makes
the kernel wait for milliseconds. What is in the frames is not known here. Everything concerns the network
namespace of the calling thread.
"""

import ctypes
import fcntl
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from outlive.network.errors import (
    InterfaceUnsuitable,
    interface_down,
    interface_missing,
    kernel_refused,
    not_permitted,
)

MOST_LATE_FRAMES = 1000
"""So many frames that wait when the time is over are still looked at; a flood cannot hold the thread."""

_IFREQ = struct.Struct("16s24s")
_GET_FLAGS, _GET_HARDWARE = 0x8913, 0x8927
_UP, _LOOPBACK, _RUNNING, _NO_ARP = 0x1, 0x8, 0x40, 0x80
_ETHERNET = 1

_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST = 263, 1, 0
_MEMBERSHIP = struct.Struct("iHH8s")
_FOR_US = (socket.PACKET_HOST, socket.PACKET_BROADCAST, socket.PACKET_MULTICAST)
_LONGEST_FRAME = 2048

Filter = tuple[tuple[int, int, int, int], ...]
"""A classic BPF program: (code, jump if true, jump if false, operand) each."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it is now.

    asks:    False where there are no neighbours to be asked (loopback, dummy, tunnels).
    running: it is up and has carrier.
    """

    name: str
    index: int
    mac: bytes
    asks: bool
    ethernet: bool
    up: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Frames to send, and how to know the answer.

    read:   returns the answer that a received frame holds, or None.
    accept: a filter in the kernel for what `read` is to see; empty is everything of the ethertype.
    group:  a multicast MAC to listen to besides; None for none.
    """

    frame: bytes
    ethertype: int
    read: Callable[[bytes], bytes | None]
    accept: Filter = ()
    group: bytes | None = None


def interface(name: str) -> Interface:
    """Look an interface up. Raises InterfaceMissing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            index = socket.if_nametoindex(name)
            flags: int = struct.unpack_from("H", _ask_kernel(asking, _GET_FLAGS, name))[0]
            hardware = _ask_kernel(asking, _GET_HARDWARE, name)
        except OSError as error:
            raise interface_missing(name) from error
    kind: int = struct.unpack_from("H", hardware)[0]
    return Interface(
        name,
        index,
        hardware[2:8],
        asks=not flags & (_LOOPBACK | _NO_ARP),
        ethernet=kind == _ETHERNET,
        up=bool(flags & _UP),
        running=bool(flags & _UP and flags & _RUNNING),
    )


def own_macs() -> frozenset[bytes]:
    """The MACs of all Ethernet interfaces of this host: whoever answers with one of them is this host."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                hardware = _ask_kernel(asking, _GET_HARDWARE, name)
            except OSError:
                continue  # it went away since it was listed
            if struct.unpack_from("H", hardware)[0] == _ETHERNET:
                found.add(hardware[2:8])
    return frozenset(found)


def require_usable(link: Interface) -> None:
    """Raise InterfaceDown or InterfaceUnsuitable unless frames to neighbours can leave here."""
    if not link.up:
        raise interface_down(link.name, "it is switched off")
    if not link.running:
        raise interface_down(link.name, "it has no carrier")
    if not link.ethernet:
        raise InterfaceUnsuitable(
            f"Interface {link.name} is not Ethernet.", remedy="Put the virtual IP on an Ethernet interface."
        )


def send(link: Interface, frames: Iterable[bytes]) -> None:
    """Send the frames, each once."""
    with _packet_socket() as sending:
        try:
            sending.bind((link.name, 0))
            for frame in frames:
                sending.send(frame)
        except OSError as error:
            raise _cannot_send(link, error) from error


def ask(link: Interface, question: Question, timeout_s: float, times: int) -> bytes | None:
    """Send the question `times` times, evenly over `timeout_s`, and return the first answer; None if none came."""
    with _packet_socket() as asking:
        try:
            # In this order, so that no frame is queued that has not passed the filter.
            if question.accept:
                _attach_filter(asking, question.accept)
            asking.setblocking(False)
            asking.bind((link.name, question.ethertype))
            if question.group is not None:
                group = _MEMBERSHIP.pack(link.index, _PACKET_MR_MULTICAST, len(question.group), question.group)
                asking.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, group)
            return _exchange(asking, question, timeout_s, times)
        except OSError as error:
            raise _cannot_send(link, error) from error


def _exchange(asking: socket.socket, question: Question, timeout_s: float, times: int) -> bytes | None:
    readable = select.poll()
    readable.register(asking, select.POLLIN)
    begun_s = time.monotonic()
    sent = late = 0
    while late < MOST_LATE_FRAMES:
        passed_s = time.monotonic() - begun_s
        if sent < times and passed_s >= sent * timeout_s / times:
            asking.send(question.frame)
            sent += 1
        over = sent == times and passed_s >= timeout_s
        next_s = sent * timeout_s / times if sent < times else timeout_s
        # A process that was stopped meanwhile still reads what has arrived: it waits no more, but it looks.
        if readable.poll(max(0.0, next_s - passed_s) * 1000):
            late += over
            frame, sender = asking.recvfrom(_LONGEST_FRAME)
            answer = question.read(frame) if sender[2] in _FOR_US else None
            if answer is not None:
                return answer
        elif over:
            return None
    return None


def _packet_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError as error:
        raise not_permitted("send frames to neighbours", "CAP_NET_RAW") from error


def _cannot_send(link: Interface, error: OSError) -> Exception:
    """What an error of a packet socket means: the link may have gone since it was looked at."""
    now = interface(link.name)
    if now.running:
        return kernel_refused(f"exchange frames on {link.name}", error.errno or 0)
    return interface_down(link.name, "it went down just now")


def _ask_kernel(asking: socket.socket, request: int, name: str) -> bytes:
    return fcntl.ioctl(asking, request, _IFREQ.pack(name.encode(), b""))[16:]


def _attach_filter(asking: socket.socket, program: Filter) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    asking.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
