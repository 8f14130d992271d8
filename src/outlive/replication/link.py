"""One connection between two communication managers: bytes in order, with deadlines, encrypted where configured.

No meaning is given to the bytes here; that is `stream`. One thread may send while another receives: the library's TLS
objects bear only one call at a time, so each call is made without waiting, under a lock, and the waiting is done
outside it, on the socket. The invariant: no call waits longer than it was told to, whatever the peer does.
"""

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from outlive.errors import Failed
from outlive.replication.comm_config import TlsFiles

SOCKET_BUFFER_BYTES = 4 << 20
HANDSHAKE_S = 5.0
_READ_AHEAD_BYTES = 256 * 1024
_LONGEST_NAP_S = 0.05


class LinkBroken(Failed):
    """The connection to the peer ended, broke, or moved nothing for too long."""

    id = "replication.link_broken"


def boot_s() -> float:
    """Seconds on the host's boot clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bandwidth:
    """A token bucket: at most so many bytes a second over time, with bursts of a twentieth of a second."""

    def __init__(self, bytes_per_s: float | None, clock: Callable[[], float] = boot_s) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._free_at = 0.0

    def wait_s(self, size: int) -> float:
        """Take `size` bytes and return how long to wait before sending them, in seconds."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        burst_s = 0.05
        start = max(self._free_at, now - burst_s)
        self._free_at = start + size / self._rate
        return max(0.0, self._free_at - now - burst_s)


class Link:
    """A connected peer. sent_bytes, received_bytes: counted as the kernel takes and gives them.

    moved_at: when anything was last sent or received, in seconds on the boot clock; heard_at: when received.
    """

    def __init__(self, connection: socket.socket, limit: Bandwidth | None = None) -> None:
        self._socket = connection
        self._limit = limit or Bandwidth(None)
        self._lock: AbstractContextManager[object] = (
            threading.Lock() if isinstance(connection, ssl.SSLSocket) else nullcontext()
        )
        self._ahead = memoryview(bytearray(_READ_AHEAD_BYTES))
        self._first = self._last = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._closed = threading.Event()
        self.sent_bytes = 0
        self.received_bytes = 0
        self.moved_at = self.heard_at = boot_s()
        self.peer_name = peer_name(connection)
        connection.setblocking(False)

    def send(self, data: bytes | bytearray | memoryview, within_s: float) -> None:
        """Send all of it. within_s: how long the peer may take nothing at all. Raises LinkBroken."""
        rest = memoryview(data).cast("B")
        while len(rest):
            piece = rest[: 1 << 20]
            self._pause(self._limit.wait_s(len(piece)))
            rest = rest[len(piece) :]
            while len(piece):
                count = self._try(lambda piece=piece: self._socket.send(piece), select.POLLOUT, within_s)  # type: ignore[misc]
                piece = piece[count:]
                self.sent_bytes += count
                self.moved_at = boot_s()

    def receive_into(self, target: memoryview, within_s: float | None) -> None:
        """Fill `target`. within_s: how long nothing may come; None: as long as the link is open. Raises LinkBroken."""
        while len(target):
            if self._first == self._last and len(target) >= _READ_AHEAD_BYTES:
                count = self._read_into(target, within_s)
                target = target[count:]
                continue
            if self._first == self._last:
                self._first, self._last = 0, self._read_into(self._ahead, within_s)
            count = min(len(target), self._last - self._first)
            target[:count] = self._ahead[self._first : self._first + count]
            self._first += count
            target = target[count:]

    def close(self) -> None:
        """End the connection; calls that wait in other threads raise LinkBroken at once. May be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._wake_write, b"x")
        # Threads may still look at the descriptors: these are closed by `dispose`.
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def dispose(self) -> None:
        """Give the descriptors back: for the owner, once no thread uses the link any more. May be called twice."""
        self.close()
        self._socket.close()
        if self._wake_read >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    def _read_into(self, target: memoryview, within_s: float | None) -> int:
        count = self._try(lambda: self._socket.recv_into(target), select.POLLIN, within_s)
        if count == 0:
            raise LinkBroken("The peer ended the connection.")
        self.received_bytes += count
        self.moved_at = self.heard_at = boot_s()
        return count

    def _try(self, call: Callable[[], int], wanted: int, within_s: float | None) -> int:
        deadline = None if within_s is None else boot_s() + within_s
        while True:
            if self._closed.is_set():
                raise LinkBroken("The connection to the peer was closed.")
            try:
                with self._lock:
                    return call()
            except (BlockingIOError, InterruptedError):
                events = wanted
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except (OSError, ValueError) as error:
                raise LinkBroken("The connection to the peer broke.", cause=str(error)) from error
            self._wait(events, deadline)

    def _wait(self, events: int, deadline: float | None) -> None:
        left_ms = None if deadline is None else max(0.0, deadline - boot_s()) * 1000
        poll = select.poll()
        poll.register(self._socket.fileno(), events)
        poll.register(self._wake_read, select.POLLIN)
        if not poll.poll(left_ms):
            raise LinkBroken("The peer's connection moved nothing for too long.")

    def _pause(self, wait_s: float) -> None:
        while wait_s > 0 and not self._closed.is_set():
            self._closed.wait(min(wait_s, _LONGEST_NAP_S))
            self.moved_at = boot_s()  # we hold back on purpose: that is no lack of progress
            wait_s -= _LONGEST_NAP_S


def peer_name(connection: socket.socket) -> str:
    """The common name in the peer's certificate; empty without TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return ""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    names = {name: value for part in certificate.get("subject", ()) for name, value in part}
    return str(names.get("commonName", ""))


def connect(address: str, port: int, tls: TlsFiles | None, limit: Bandwidth, within_s: float) -> Link:
    """Connect to a standby's manager. Raises LinkBroken."""
    try:
        plain = socket.create_connection((address, port), timeout=within_s)
        return Link(_prepared(plain, _context(tls, server=False), server=False), limit)
    except OSError as error:
        raise LinkBroken(f"No connection to {address}:{port}.", cause=str(error)) from error


def accepted(connection: socket.socket, tls: TlsFiles | None) -> Link:
    """Make a link of a connection that a listening socket gave. Raises LinkBroken."""
    try:
        return Link(_prepared(connection, _context(tls, server=True), server=True))
    except OSError as error:
        connection.close()
        raise LinkBroken("A peer did not prove itself.", cause=str(error)) from error


def _prepared(connection: socket.socket, context: ssl.SSLContext | None, *, server: bool) -> socket.socket:
    connection.settimeout(HANDSHAKE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return connection if context is None else context.wrap_socket(connection, server_side=server)


def _context(tls: TlsFiles | None, *, server: bool) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # members are known by their authority and their common name, not by DNS
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)
    if server:
        context.num_tickets = 0
    return context
