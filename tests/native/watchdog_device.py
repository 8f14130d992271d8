"""A watchdog device that a guard feeds, as a driver of the kernel would be one: armed by opening, fed by writing, left
running by a closing without the magic byte, and at its timeout it resets the host, which here is only noted.

The guard is built against the kernel's header and makes the system calls that it makes on a real device; a preloaded
library (watchdog_standin.c) carries them here."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .guarding import NS_PER_S, boot_ns

SOURCE = Path(__file__).with_name("watchdog_standin.c")
GETSUPPORT, SETTIMEOUT, GETTIMEOUT = 0x80285700, 0xC0045706, 0x80045707
KEEPALIVEPING, MAGICCLOSE, CAN_SET = 0x8000, 0x0100, 0x0080
ENOTTY = 25
FEED = struct.Struct("@qc7x")
HEARD_WITHIN_NS = NS_PER_S // 4


def standin(folder: Path) -> Path:
    """Build the preloaded library."""
    library = folder / "libwatchdog_standin.so"
    if not library.exists():
        words = ["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared"]
        subprocess.run([*words, str(SOURCE), "-o", str(library), "-ldl"], check=True)
    return library


@dataclass
class Device:
    """grants: turns the timeout asked for into the one granted. Moments in nanoseconds on the boot clock."""

    path: Path
    options: int = KEEPALIVEPING | MAGICCLOSE | CAN_SET
    least_s: int = 1
    asked: list[str] = field(default_factory=list)
    fed_ns: list[int] = field(default_factory=list)
    reset_ns: int = 0
    armed: bool = False
    opened: int = 0
    timeout_s: int = 60

    def __post_init__(self) -> None:
        self._magic = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(4)
        self._over = False
        self._hearing = threading.Lock()
        self._open: socket.socket | None = None
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve, self._count)]
        for each in self._threads:
            each.start()

    def environment(self, library: Path) -> dict[str, str]:
        """What makes a guard take this for its device; sanitizers mind what is loaded before their own runtime."""
        lenient = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0")))
        ours = {"LD_PRELOAD": str(library), "OUTLIVE_TEST_WATCHDOG": str(self.path), "ASAN_OPTIONS": lenient}
        return {**os.environ, **ours}

    def close(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            if self._open is not None:
                self._open.shutdown(socket.SHUT_RDWR)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(60)

    def _serve(self) -> None:
        while not self._over:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.opened += 1
            self.armed, self._magic = True, False
            self.fed_ns.append(boot_ns())
            self._open = connection
            with connection, contextlib.suppress(OSError):  # a guard may die with an answer unread
                self._speak(connection)
            if self._magic:
                self.armed = False

    def _speak(self, connection: socket.socket) -> None:
        while select.select([connection], [], []):
            with self._hearing:
                packet = connection.recv(256)
                if not packet:
                    return
                if len(packet) == FEED.size:
                    at_ns, byte = FEED.unpack(packet)
                    self._magic = byte == b"V"
                    self._fed(at_ns)
                    continue
                request, value, _ = struct.unpack("@Qqq", packet)
                connection.send(self._answer(request, value))

    def _answer(self, request: int, value: int) -> bytes:
        error, answer = 0, 0
        if request == SETTIMEOUT:
            self.asked.append(f"settimeout {value}")
            self.timeout_s = answer = max(value, self.least_s)
        elif request == GETTIMEOUT:
            self.asked.append("gettimeout")
            answer = self.timeout_s
        elif request == GETSUPPORT:
            self.asked.append("getsupport")
        else:
            error = ENOTTY
        return struct.pack("@qqII32s", error, answer, self.options, 1, b"stand in")

    def _fed(self, at_ns: int) -> None:
        """It was fed then, too late if it had fired by that moment."""
        if not self.reset_ns and self.armed and at_ns > self._fires_ns():
            self.reset_ns = self._fires_ns()
        self.fed_ns.append(at_ns)

    def _fires_ns(self) -> int:
        return self.fed_ns[-1] + self.timeout_s * NS_PER_S

    def _count(self) -> None:
        """The device's own clock; what was fed in time may be heard of a little later, or wait to be heard."""
        while not self._over:
            with self._hearing:
                due = self.armed and not self.reset_ns and boot_ns() > self._fires_ns() + HEARD_WITHIN_NS
                if due and not self._is_being_fed():
                    self.reset_ns = self._fires_ns()
            time.sleep(0.002)

    def _is_being_fed(self) -> bool:
        try:
            return self._open is not None and bool(self._open.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:  # nothing is there, or it is closed
            return False
