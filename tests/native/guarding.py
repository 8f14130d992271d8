"""A real guard to talk to, packet by packet, and things for it to guard: processes in cgroups, addresses in a
network namespace. Everything started here is ended by whoever started it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from outlive import native

PATIENCE_S = 60.0
NS_PER_S = 1_000_000_000


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; a machine that is too slow for it is broken."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, "it never came to hold"
        time.sleep(0.005)


def populated(cgroup: Path) -> bool:
    return "populated 1" in (cgroup / "cgroup.events").read_text()


@contextlib.contextmanager
def sleeper(cgroup: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives in a cgroup until it is killed, by us at the latest."""
    cgroup.mkdir(parents=True, exist_ok=True)
    enter = f"echo 0 > '{cgroup}/cgroup.procs' && exec sleep 1000"
    process = subprocess.Popen(["sh", "-c", enter])
    try:
        until(lambda: str(process.pid) in (cgroup / "cgroup.procs").read_text().split())
        yield process
    finally:
        process.kill()
        process.wait()


class Namespace:
    """A network namespace with one pair of interfaces, v0 and v1."""

    def __init__(self) -> None:
        own = os.readlink("/proc/self/ns/net")
        self._keeper = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.path = f"/proc/{self._keeper.pid}/ns/net"
        until(lambda: os.readlink(self.path) != own)
        self.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")

    def ip(self, *words: str) -> str:
        command = ["nsenter", f"--net={self.path}", "ip", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def addresses(self) -> set[str]:
        return set(re.findall(r"inet6? (\S+)", self.ip("addr", "show")))

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


class Client:
    """One connection to a guard. Bytes are sent as they are, so that they can be wrong."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))
        self.hello = self.hear()

    def hear(self) -> str:
        return self.socket.recv(65536).decode()

    def ask(self, message: str | bytes) -> str:
        self.socket.send(message.encode() if isinstance(message, str) else message)
        return self.hear()

    def entries(self) -> dict[str, str]:
        """State of each workload, as STATUS tells it."""
        answer = self.ask("STATUS")
        while not answer.startswith("STATE "):  # news of what fired may come first
            answer = self.hear()
        states: dict[str, str] = {}
        while (line := self.hear()) != "END":
            if line.startswith("ENTRY "):
                _, workload, generation, state, *_ = line.split(" ")
                states[f"{workload} {generation}"] = state
        return states

    def extend(self, seconds: float) -> int:
        deadline_ns = boot_ns() + int(seconds * NS_PER_S)
        assert self.ask(f"DEADLINE {deadline_ns}") == f"OK {deadline_ns}"
        return deadline_ns

    def close(self) -> None:
        self.socket.close()


class GuardProcess:
    """A guard on a socket of its own."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        namespace: Namespace | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.path = folder / "guard.sock"
        self.log = folder / "guard.log"
        command = [str(native.find("outlive-guard")), f"--socket={self.path}", *options]
        if namespace is not None:
            command = ["nsenter", f"--net={namespace.path}", *command]
        reading, writing = os.pipe()
        with self.log.open("ab") as log, open(reading, "rb") as answer:
            self.process = subprocess.Popen(
                [*command, f"--ready-fd={writing}"], pass_fds=(writing,), stderr=log, cwd=folder, env=environment
            )
            os.close(writing)
            self.answer = answer.readline().decode().strip()
        self.clients: list[Client] = []

    def connect(self) -> Client:
        client = Client(self.path)
        self.clients.append(client)
        return client

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.process.kill()
        self.process.wait()


def succeeding(start: Callable[[], GuardProcess]) -> GuardProcess:
    """Start a guard in place of one that was killed, whose lock the kernel lets go of after its end was told."""
    give_up_at = time.monotonic() + PATIENCE_S
    while (guard := start()).answer == "ERR another guard holds the lock file beside the socket":
        assert time.monotonic() < give_up_at, "it never came to hold"
        time.sleep(0.02)
    return guard


def clear(root: Path) -> None:
    """Kill all below a cgroup and remove it."""
    with contextlib.suppress(FileNotFoundError):
        (root / "cgroup.kill").write_text("1")
        until(lambda: not populated(root))
        for folder, _, _ in os.walk(root, topdown=False):
            os.rmdir(folder)
