"""Watching a lab from outside: clients' acknowledgements as they come, and whether two hosts ever act at once.

The watcher looks at the kernel's own account (control groups with processes in them), never at what agents say.
"""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from . import hosts
from .lab import Lab
from .lookouts import looking

LOOK_S = 0.01
END_S = 45.0


@dataclass
class Counting:
    """A running program of counting clients. acknowledged: (unix_s, client, number, total) in order."""

    process: "subprocess.Popen[bytes]"
    acknowledged: list[tuple[float, int, int, str]] = field(default_factory=list)
    result: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        """Take in what the clients print, until they end."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            with self.changed:
                if raw.startswith(b"{"):
                    self.result = json.loads(raw)
                else:
                    unix_s, client, number, total = raw.decode().split()
                    self.acknowledged.append((float(unix_s), int(client), int(number), total))
                self.changed.notify_all()

    def wait_for(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds of what was read; says whether it does."""
        with self.changed:
            return self.changed.wait_for(holds, timeout_s)

    def first_after(self, unix_s: float) -> float | None:
        """When the first acknowledgement after a moment came."""
        with self.changed:
            return next((each[0] for each in self.acknowledged if each[0] > unix_s), None)

    def longest_gap_s(self) -> float:
        """The longest time in which no client was told anything."""
        with self.changed:
            times = [each[0] for each in self.acknowledged]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def finish(self) -> dict[str, Any]:
        """Have the clients stop and verify; returns their account."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.wait_for(lambda: bool(self.result) or self.process.poll() is not None, END_S)
        return dict(self.result)


@contextmanager
def counting_clients(lab: Lab, address: str, port: int, clients: int) -> Iterator[Counting]:
    """Clients that count from the lab's client namespace for as long as the block lasts."""
    process = lab.in_client(
        sys.executable,
        "-m",
        "outlive.lab.counting",
        address,
        str(port),
        str(clients),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    counting = Counting(process)
    reader = threading.Thread(target=counting.read, daemon=True)
    reader.start()
    try:
        yield counting
    finally:
        process.kill()
        process.wait(END_S)
        reader.join(END_S)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@dataclass
class Sightings:
    """When which hosts were seen to act for a workload. both: moments (unix_s) with more than one."""

    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    both: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    looks: int = 0

    @property
    def double_run(self) -> bool:
        """Whether two hosts were ever seen to act at once."""
        return bool(self.both)


@contextmanager
def watched(lab: Lab, workload: str) -> Iterator[Sightings]:
    """Look every few milliseconds at which hosts have processes of a workload that can run. Raises Failed when it
    could not be looked at all the time."""
    sightings = Sightings()

    def look(stop: threading.Event) -> None:
        while not stop.wait(LOOK_S):
            acting = tuple(host.name for host in lab.plan.hosts if acts(lab, host.name, workload))
            # Looking takes time: the first may have stopped before the last began, unless they act still.
            acting = (*(host for host in acting[:-1] if acts(lab, host, workload)), *acting[-1:])
            now = time.time()
            sightings.looks += 1
            for host in acting:
                sightings.seen[host] = (sightings.seen.get(host, (now, now))[0], now)
            if len(acting) > 1:
                sightings.both.append((now, acting))

    with looking("The hosts of the lab were not watched all the time.", [look]):
        yield sightings


def acts(lab: Lab, host: str, workload: str) -> bool:
    """Whether a process of a workload on a host can still run a single instruction of its program."""
    folder = hosts.group(lab.plan, host) / hosts.WORKLOADS / workload
    try:
        events = (folder / "cgroup.events").read_text()
    except OSError:
        return False
    if "populated 1" not in events or "frozen 1" in events:
        return False
    return any(not hosts.is_dying(pid) for pid in hosts.pids(lab.plan, host, f"{hosts.WORKLOADS}/{workload}"))
