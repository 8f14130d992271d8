"""The hosts of a bench: one process that sends the heartbeats of all of them to one address.

Started with `python -m outlive.bench.speakers`; it reads one JSON object a line from stdin: first what to say to whom
(`Speech`), then commands, and answers each command with what it has done so far. Every heartbeat is tagged as it goes,
with its host's next sequence, spread evenly over time. When it comes late it catches up, and says how late.

    {"silence": 5}   the first five hosts say nothing from now on
    {"count": true}  nothing changes
    {"end": true}    it ends
"""

import json
import os
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from outlive.wire.datagram import pack
from outlive.wire.seal import TAG_BYTES, Seal, Use

CLUSTER = "b" * 16
BOOT_ID = "ab" * 16
SLICE_S = 0.002
_SEQUENCE = slice(32, 40)


def host_name(number: int) -> str:
    """The name of one of the hosts; by name they are in the order of their numbers."""
    return f"h{number:05}"


def table(modules: int) -> ModuleTable:
    """What the status bits of all hosts stand for."""
    return ModuleTable(tuple(ModuleKey("w", 1, f"m{number}") for number in range(modules)))


@dataclass(frozen=True, slots=True)
class Speech:
    """What is said: by how many hosts, each of its modules' statuses, how often all together; key: in hexadecimal."""

    port: int
    key: str
    hosts: int
    modules: int
    per_second: float

    def heartbeat(self, number: int, sequence: int) -> Heartbeat:
        """One host's sign of life."""
        statuses = (ModuleStatus.RUNNING,) * self.modules
        flags = Flags.STORE_REACHABLE | Flags.DATASTORE_REACHABLE
        digest = table(self.modules).digest()
        return Heartbeat(CLUSTER, host_name(number), BOOT_ID, sequence, flags, 0.5, number + 1, digest, statuses)


@dataclass(slots=True)
class Spoken:
    """What was sent so far. late_s: the worst that a heartbeat came late. at: when this was counted, on the boot clock.

    silent: how many hosts are silent, and silent_since: since their last heartbeat, on the boot clock.
    """

    sent: int = 0
    late_s: float = 0.0
    at: float = 0.0
    silent: int = 0
    silent_since: float = 0.0


class Speakers:
    """All hosts, their datagrams as last sent, and whose turn it is."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._seal = Seal(CLUSTER, bytes.fromhex(speech.key))
        self._said = [bytearray(pack(speech.heartbeat(number, 1), self._seal)) for number in range(speech.hosts)]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", speech.port))
        self._sequence = time.time_ns() // 1000
        self._turn = 0
        self._began = time.monotonic()
        self._due = 0
        self.spoken = Spoken()

    def speak(self) -> None:
        """Send all that is due by now."""
        now = time.monotonic()
        due = int((now - self._began) * self._speech.per_second)
        self.spoken.late_s = max(self.spoken.late_s, (due - self._due) / self._speech.per_second)
        hosts, silent = len(self._said), self.spoken.silent
        for _ in range(due - self._due):
            number, self._turn = self._turn, (self._turn + 1) % hosts
            if number >= silent:
                self._say(number)
        self._due = due

    def _say(self, number: int) -> None:
        said = self._said[number]
        self._sequence += 1
        said[_SEQUENCE] = self._sequence.to_bytes(8, "big")
        said[-TAG_BYTES:] = self._seal.tag(Use.DATAGRAM, bytes(said[:-TAG_BYTES]))
        try:
            self._socket.send(said)
        except OSError:  # nobody listens (yet, or any more), or the kernel has no room
            return
        self.spoken.sent += 1

    def obey(self, command: dict[str, Any]) -> None:
        """Do what a line asked for."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if "silence" in command:
            # Their last heartbeats are at most one round old; said once more, they all end now.
            for number in range(command["silence"]):
                self._say(number)
            self.spoken.silent, self.spoken.silent_since = command["silence"], now
        self.spoken.at = now


def main() -> None:
    """Speak until told to end, or until nobody is there any more to tell."""
    told = sys.stdin.fileno()
    # Unbuffered, since what a buffer holds already wakes nobody up.
    speakers = Speakers(Speech(**json.loads(_line(told))))
    while True:
        speakers.speak()
        if select.select([told], [], [], SLICE_S)[0]:
            line = _line(told)
            if not line or "end" in (command := json.loads(line)):
                return
            speakers.obey(command)
            print(json.dumps(asdict(speakers.spoken)), flush=True)
            speakers.spoken.late_s = 0.0


def _line(fd: int) -> bytes:
    """The next line; b"" at the end."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            return b""
        line += byte
    return line


if __name__ == "__main__":
    main()
