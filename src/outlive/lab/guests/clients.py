"""Clients of a guest's server, run in a namespace where clients are, and single requests from here.

The counting clients are a program of their own in C, since a client that is itself slow measures nothing. What their
records prove is in `history`.
"""

import contextlib
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from outlive.errors import Failed
from outlive.lab import namespaces
from outlive.native import find_guest_program

from .history import History, parse
from .tiny import SERVER_PORT

MOST_S = 100_000.0
STOP_S = 10.0
_TRY_S = 0.5
_POLL_S = 0.1


class GuestSilent(Failed):
    """A guest's server did not answer."""

    id = "guest.silent"


class ClientsFailed(Failed):
    """The clients' program ended badly."""

    id = "guest.clients-failed"


@dataclass(frozen=True, slots=True)
class Asking:
    """What the clients are to do.

    connections: how many, each with one request under way at most.
    seconds:     for how long; None: until stopped.
    request:     inc, dw or echo.
    first_id:    the first connection's id; those of programs that run at the same time must differ (below 1024).
    think_ms:    the pause between an answer and the next request.
    after_s:     how long what is under way at the end is waited for.
    reconnect:   whether a broken connection is made anew.
    """

    address: str
    connections: int = 1
    seconds: float | None = None
    request: str = "inc"
    first_id: int = 0
    think_ms: float = 0.0
    after_s: float = 5.0
    reconnect: bool = False
    port: int = SERVER_PORT


class Clients:
    """A running program of clients; leaving its context ends it.

    namespace: the name of a network namespace, or None for the one that we are in.
    record:    the file that it writes its record to; it may be read while it grows.
    """

    def __init__(self, asking: Asking, record: Path, *, namespace: str | None = None) -> None:
        self.record = record
        self._after_s = asking.after_s
        words = (
            str(find_guest_program("outlive-guest-clients")),
            asking.address,
            str(asking.port),
            str(asking.connections),
            str(MOST_S if asking.seconds is None else asking.seconds),
            str(asking.first_id),
            str(asking.think_ms),
            str(asking.after_s),
            str(int(asking.reconnect)),
            asking.request,
        )
        enter = ("nsenter", f"--net=/run/netns/{namespace}", "--") if namespace else ()
        with record.open("wb") as output:
            self._process = subprocess.Popen(
                (*enter, *words), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True
            )

    def __enter__(self) -> "Clients":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def so_far(self) -> History:
        """What is recorded by now, some 50 ms late."""
        return parse(self.record.read_text())

    def until_answered(self, connections: int, timeout_s: float, *, answers: int = 0) -> None:
        """Wait until so many connections had an answer, and all together so many answers. Raises GuestSilent."""
        deadline = time.monotonic() + timeout_s
        while len(found := self.so_far().answers) < answers or len({each.connection for each in found}) < connections:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise GuestSilent(f"Not all of {connections} clients had an answer within {timeout_s:g} s.")
            time.sleep(_POLL_S)

    def stop(self) -> History:
        """Ask nothing more, wait for what is under way, and return the whole record. Raises ClientsFailed."""
        self._process.terminate()
        return self.wait(self._after_s + STOP_S)

    def wait(self, timeout_s: float) -> History:
        """Wait for the end by itself and return the whole record. Raises ClientsFailed."""
        try:
            _, complaint = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ClientsFailed(f"The clients did not end within {timeout_s:g} s.") from error
        if self._process.returncode:
            raise ClientsFailed("The clients' program failed.", cause=complaint.strip())
        return self.so_far()


class Server:
    """One connection to a guest's server, for what a test asks of it; leaving its context closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    @classmethod
    def reach(
        cls, address: str, timeout_s: float, *, namespace: str | None = None, port: int = SERVER_PORT
    ) -> "Server":
        """Connect, trying again until the guest has booted. Raises GuestSilent after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            connection = socket_in(namespace)
            try:
                connection.settimeout(_TRY_S)
                connection.connect((address, port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return cls(connection)
            except OSError as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise GuestSilent(
                        f"No server answers at {address} after {timeout_s:g} s.", cause=str(error)
                    ) from error
                time.sleep(_POLL_S)

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: str, timeout_s: float = 30.0) -> str:
        """Send one line and return the answer. Raises GuestSilent."""
        try:
            self._connection.settimeout(timeout_s)
            self._connection.sendall(request.encode() + b"\n")
            answer = self._lines.readline()
        except OSError as error:
            raise GuestSilent(f"The guest did not answer {request!r}.", cause=str(error)) from error
        if not answer.endswith(b"\n"):
            raise GuestSilent(f"The guest ended the connection instead of answering {request!r}.")
        return answer.decode().strip()

    def state(self) -> dict[str, str]:
        """What the server says of itself: counter, dirtied, issued, written, disk, instance, uptime_ms."""
        return dict(word.split("=", 1) for word in self.ask("get").split())

    def tell(self, request: str) -> None:
        """Send what has no answer: panic, poweroff, reboot."""
        with contextlib.suppress(OSError):
            self._connection.sendall(request.encode() + b"\n")

    def send_bulk(self, size: int, timeout_s: float = 120.0) -> float:
        """Send so many bytes to the guest; returns bytes a second until it had them all."""
        self._connection.settimeout(timeout_s)
        block = bytes(1 << 20)
        began = time.monotonic()
        self._connection.sendall(b"bulk in %d\n" % size)
        for begin in range(0, size, len(block)):
            self._connection.sendall(block[: size - begin])
        self._whole(self._lines.readline())
        return size / (time.monotonic() - began)

    def receive_bulk(self, size: int, timeout_s: float = 120.0) -> float:
        """Receive so many bytes from the guest; returns bytes a second."""
        self._connection.settimeout(timeout_s)
        began = time.monotonic()
        self._connection.sendall(b"bulk out %d\n" % size)
        self._whole(self._lines.readline())
        left = size
        while left:
            got = len(self._lines.read(min(left, 1 << 20)))
            self._whole(b"\n" if got else b"")
            left -= got
        return size / (time.monotonic() - began)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._connection.close()

    @staticmethod
    def _whole(line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise GuestSilent("The guest ended the connection in the middle of a transfer.")


def socket_in(namespace: str | None) -> socket.socket:
    """Return a TCP socket that lives in a named network namespace. Raises GuestSilent when there is none."""
    if namespace is None:
        return socket.socket()
    made: list[socket.socket] = []
    error: list[OSError] = []

    # A thread of its own enters the namespace and ends there; a socket stays where it was made.
    def enter() -> None:
        try:
            namespaces.enter(namespace)
            made.append(socket.socket())
        except OSError as caught:
            error.append(caught)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if not made:
        raise GuestSilent(f"The network namespace {namespace} cannot be entered.", cause=str(error[0]))
    return made[0]
