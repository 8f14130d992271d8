"""The UDP socket of a host, on the agent's loop.

It sends to an address and port, and hands what the receiver accepts to a callback; what is refused is counted
and, within bounds, logged. Heartbeats that only repeat what their host said before are handed to nobody: they are
counted as accepted, and `Senders.shown` tells of them all at once. It reads the socket itself instead of through
asyncio's datagram transport: a datagram costs at most MOST_BYTES + 1 bytes of memory however large it was, one wake-up
takes at most REPEATS_AT_ONCE of them and stops after MOST_AT_ONCE that need to be read, and a send that would block is
dropped and counted instead of queued. It looks at most every REST_S, so that many datagrams cost few wake-ups.
Errors that the kernel reports (ICMP) are passed over.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import structlog

from outlive.errors import Failed

from .datagram import Message
from .receiver import Receiver
from .record import Refused
from .refusals import Refusals

RECEIVE_BUFFER_BYTES = 8 << 20
"""What ten thousand hosts say in a fifth of a second. It costs memory only while it is full."""
MOST_AT_ONCE = 256
REPEATS_AT_ONCE = 4096
REST_S = 0.005
FAILED_REST_S = 0.25
_SO_RCVBUFFORCE = 33

_log = structlog.get_logger()

Handle = Callable[[Message, "Address", float], None]


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address (numeric, IPv6 with %zone where it needs one) and a UDP port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class EndpointUnavailable(Failed):
    """The agent cannot listen where it was told to."""

    id = "wire.endpoint-unavailable"

    def __init__(self, address: Address, cause: str) -> None:
        super().__init__(
            f"Heartbeats cannot be received at {address}.",
            cause=cause,
            remedy="check that the address belongs to this machine and that no other agent uses the port",
        )


@dataclass(slots=True)
class Counts:
    """Datagrams since the endpoint was opened. unsent: dropped, because the kernel would not take them."""

    accepted: int = 0
    refused: int = 0
    sent: int = 0
    unsent: int = 0


class Endpoint:
    """An open UDP socket. Made by `open_endpoint`; used on the loop that it was opened on."""

    def __init__(self, sock: socket.socket, receiver: Receiver, handle: Handle, clock: Callable[[], float]) -> None:
        self._sock = sock
        self._receiver = receiver
        self._handle = handle
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._failing = False
        self.counts = Counts()
        self.refusals = Refusals()
        self.local = _address(sock.getsockname())

    def send(self, datagram: bytes, to: Address) -> bool:
        """Give a datagram to the kernel; False when it would not take it now. Never blocks, never raises."""
        try:
            self._sock.sendto(datagram, _sockaddr(to, self._sock.family))
        except OSError:  # also gaierror: an address that is none, or of the other family
            self.counts.unsent += 1
            return False
        self.counts.sent += 1
        return True

    def listen(self) -> None:
        """Read what arrives from now on, until `rest`."""
        self._loop.add_reader(self._sock.fileno(), self._read)

    def rest(self) -> None:
        """Read nothing."""
        self._loop.remove_reader(self._sock.fileno())
        if self._again is not None:
            self._again.cancel()

    def _read(self) -> None:
        """Take what has arrived, as much as is bearable at once, and come back: after a rest, or soon if there is more.

        Once a rest ends with nothing to take, the loop wakes this up with the next datagram.
        """
        rest_s: float | None = 0.0
        try:
            rest_s = self._take()
        finally:
            # Also when a handler raised: what was taken with its message is still to be dealt with.
            self.rest()
            if rest_s is None:
                self._again = None
                self.listen()
            else:
                self._again = self._loop.call_later(rest_s, self._read)

    def _take(self) -> float | None:
        """Deal with what has arrived; how long to rest before the next look, None: until something arrives."""
        senders, arrived, read = self._receiver.senders, 0, 0
        while True:
            read += self._deal_with_waiting()
            if read >= MOST_AT_ONCE or arrived >= REPEATS_AT_ONCE:
                return 0.0
            before = senders.repeated
            taken = senders.take(self._sock.fileno(), REPEATS_AT_ONCE - arrived, self._clock())
            arrived += taken.count
            self.counts.accepted += senders.repeated - before
            self._waiting.extend(taken.left)
            if taken.drained and not taken.left:
                self._failing = False
                return REST_S if arrived else None
            if not taken.count:
                self._tell_failing()
                return FAILED_REST_S

    def _tell_failing(self) -> None:
        if not self._failing:
            self._failing = True
            _log.error("wire.not_received", address=str(self.local), reason="the kernel gives nothing but errors")

    def _deal_with_waiting(self) -> int:
        """Read what no mere look was enough for; how many datagrams those were."""
        count = 0
        while self._waiting:
            data, raw = self._waiting.popleft()
            count += 1
            now = self._clock()
            message = self._receiver.accept(data, now)
            if isinstance(message, Refused):
                self._refuse(message, _source(raw), now)
            else:
                self.counts.accepted += 1
                self._handle(message, _source(raw), now)
        return count

    def _refuse(self, refused: Refused, source: Address, now: float) -> None:
        self.counts.refused += 1
        telling = self.refusals.count(refused, source.address, now)
        if telling is not None:
            _log.warning(
                "wire.datagram_refused",
                reason=telling.reason.value,
                address=telling.address,
                detail=telling.detail,
                host=refused.host,
                times=telling.times,
            )


@contextmanager
def open_endpoint(local: Address, receiver: Receiver, handle: Handle, clock: Callable[[], float]) -> Iterator[Endpoint]:
    """Listen at `local` on the running loop until the block ends.

    local:  port 0 takes any free one; address "::" hears IPv4 too.
    handle: called on the loop with each accepted message, where it came from, and clock() then. What it
            raises goes to the loop's exception handler and does not stop the endpoint.
    clock:  seconds, never going back.
    Raises EndpointUnavailable.
    """
    sock = _listen(local)
    try:
        endpoint = Endpoint(sock, receiver, handle, clock)
        endpoint.listen()
        try:
            yield endpoint
        finally:
            endpoint.rest()
    finally:
        sock.close()


def _listen(local: Address) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in local.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, local.address != "::")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            with contextlib.suppress(OSError):  # beyond the system's limit, which root alone may
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            sock.bind(_sockaddr(local, family))
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise EndpointUnavailable(local, error.strerror or str(error)) from error
    return sock


@lru_cache(maxsize=1024)
def _sockaddr(to: Address, family: int) -> tuple[str | int | bytes, ...]:
    """What the kernel wants to hear. Numeric only: looking up a name would block the loop."""
    if not 0 <= to.port < 65536:
        raise OSError(f"{to.port} is no port")
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_V4MAPPED
    return socket.getaddrinfo(to.address, to.port, family, socket.SOCK_DGRAM, 0, flags)[0][4]


def _source(raw: bytes) -> Address:
    """Where a datagram came from, of the kernel's own `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7))."""
    family, port = int.from_bytes(raw[:2], sys.byteorder), int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return Address(socket.inet_ntop(socket.AF_INET, raw[4:8]), port)
    scope = struct.unpack_from("=I", raw, 24)[0]
    return _address((socket.inet_ntop(socket.AF_INET6, raw[8:24]) + (f"%{_scope(scope)}" if scope else ""), port))


def _scope(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # the interface is gone
        return str(index)


def _address(sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    host = sockaddr[0].removeprefix("::ffff:") if "." in sockaddr[0] else sockaddr[0]
    return Address(host, sockaddr[1])
