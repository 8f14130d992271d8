"""Measuring one machine in a lab under one load after another: answers, transfers, epochs, and what each process costs.

What clients saw is timed by their own program; epochs are what the primary's communication manager tells each second;
processors are the kernel's own account of each process. Nothing here judges a figure.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import hosts, machines, ready
from .bench_values import CLIENTS, Bulk, Cpu, Level, Run, Second, Window, over
from .guests.clients import Asking, Clients, Server
from .guests.history import between, judge
from .guests.tiny import TinyGuest
from .lab import Lab

THINK_MS = 10.0
UNTHINKING = 32
ANSWER_S = 60.0
SETTLE_S = 1.0
POLL_S = 0.2
EPOCH_S = 0.1
"""How long an epoch of a guest is that nobody talks to: `idle_ms` of a policy that says nothing else."""
FASTER, CALIBRATIONS, ENOUGH = 1.25, 3, 0.9
MOST_PAGES_PER_S = 2_000_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. window_s: each load.  bulk_bytes: each transfer.  levels: what the guest does by itself."""

    window_s: float
    bulk_bytes: int
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A machine to measure. standby: '' for one that nobody follows.  rates: pages that it changes a second, by level.

    rates of a hot machine are found while it is measured; those of the unprotected one are the same.
    """

    lab: Lab
    name: str
    address: str
    primary: str
    standby: str
    rates: dict[str, int]

    def server(self) -> Server:
        """A connection to its guest's server. Raises GuestSilent."""
        return Server.reach(self.address, ANSWER_S, namespace=self.lab.plan.client)

    def second(self) -> Second | None:
        """What its communication manager told last; None when nothing."""
        told = machines.progress(self.lab, self.name)
        if not told:
            return None
        return Second(
            time.monotonic(), told["epochs"], told["pause_ms_median"], told["pause_ms_p99"], told["dirty_pages"],
            told["bytes_sent"],
        )  # fmt: skip


def start(lab: Lab, wish: machines.Wish, guest: TinyGuest, rates: dict[str, int]) -> Subject:
    """Start a machine to measure, and wait for its standby. Raises LabNotReady and GuestSilent."""
    host, standby = machines.begin(lab, guest, wish), ""
    if wish.protection == "hot":
        host, standby = machines.until_followed(lab, wish.name, machines.BOOTED_S)
    return Subject(lab, wish.name, wish.address, host, standby, rates)


def forget(subject: Subject) -> None:
    """End it, so that the next one has the lab for itself. Raises LabNotReady."""
    ready.any_client(subject.lab).delete(f"/v1/workloads/{subject.name}")

    def forgotten(found: dict[str, Any]) -> bool:
        return ready.workload(found, subject.name) is None

    ready.until(subject.lab, f"{subject.name} is forgotten", forgotten, machines.BOOTED_S)


def measure(subject: Subject, effort: Effort, progress: Progress) -> Run:
    """Measure it under every load. Raises GuestSilent and ClientsFailed."""
    windows: list[Window] = []
    bulk: list[Bulk] = []
    kind = "hot" if subject.standby else "unprotected"
    for level in effort.levels:
        progress(f"{kind}: {level.name}")
        _dirty(subject, level)
        windows += [_window(subject, level, clients, effort.window_s) for clients in CLIENTS]
        with subject.server() as server:
            to_guest = server.send_bulk(effort.bulk_bytes)
            bulk.append(Bulk(level.name, to_guest, server.receive_bulk(effort.bulk_bytes)))
    with subject.server() as server:
        server.ask("dirty 0 0")
    return Run(tuple(windows), tuple(bulk))


def _dirty(subject: Subject, level: Level) -> None:
    """Have the guest change memory: as many pages in each epoch as the level says, where there are epochs."""
    known = level.name in subject.rates
    rate = subject.rates.setdefault(level.name, round(level.pages / EPOCH_S * FASTER))
    with subject.server() as server:
        server.ask(f"dirty {rate} {level.pages}")
        time.sleep(SETTLE_S)
        if known or not subject.standby or not level.pages:
            return
        for _ in range(CALIBRATIONS):
            seconds = _seconds(subject, 2 * SETTLE_S)
            pages = max((each.pages for each in seconds[1:]), default=level.pages)
            if pages >= ENOUGH * level.pages or rate >= MOST_PAGES_PER_S:
                break
            rate = min(MOST_PAGES_PER_S, round(rate * FASTER * level.pages / max(pages, level.pages // 4)))
            server.ask(f"dirty {rate} {level.pages}")
            time.sleep(SETTLE_S)
    subject.rates[level.name] = rate


def _window(subject: Subject, level: Level, clients: int, window_s: float) -> Window:
    if not clients:
        seconds, cpu, _ = _watched(subject, window_s)
        return Window(level.name, 0, None, None, None, over(seconds), cpu)
    think_ms = 0.0 if clients >= UNTHINKING else THINK_MS
    asking = Asking(subject.address, clients, think_ms=think_ms, after_s=ANSWER_S)
    record = Path(subject.lab.plan.folder) / "bench-clients"
    with Clients(asking, record, namespace=subject.lab.plan.client) as asked:
        asked.until_answered(clients, ANSWER_S)
        time.sleep(SETTLE_S)
        seconds, cpu, (began_ns, ended_ns) = _watched(subject, window_s)
        history = asked.stop()
    whole, part = judge(history), judge(between(history, began_ns, ended_ns), counts=False)
    wrong = whole.lost + whole.duplicated + whole.broken_connections
    return Window(
        level.name, clients, part.rtt_median_ms, part.rtt_p99_ms, part.requests_per_s, over(seconds), cpu, wrong
    )


def _watched(subject: Subject, window_s: float) -> tuple[Sequence[Second], Cpu, tuple[int, int]]:
    """Look at it for some seconds: what was told, what its processes used, and from when until when (boot clock)."""
    began_ns, before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), _used_s(subject)
    seconds = _seconds(subject, window_s)
    ended_ns, after = time.clock_gettime_ns(time.CLOCK_BOOTTIME), _used_s(subject)
    span_s = (ended_ns - began_ns) / 1e9
    # A process that was replaced meanwhile has used less than the one before it: then nothing is known.
    shares = [
        None if since is None or until is None or until < since else (until - since) / span_s
        for since, until in zip(before, after, strict=True)
    ]
    return seconds, Cpu(*shares), (began_ns, ended_ns)


def _seconds(subject: Subject, window_s: float) -> list[Second]:
    """Each second's news, once; none of a machine that nobody follows."""
    found: list[Second] = []
    deadline = time.monotonic() + window_s
    while (left_s := deadline - time.monotonic()) > 0:
        if not subject.standby:
            time.sleep(left_s)
            break
        told = subject.second()
        if told is not None and (not found or told.epochs != found[-1].epochs):
            found.append(told)
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
    return found


def _used_s(subject: Subject) -> tuple[float | None, float | None, float | None, float | None]:
    """Seconds of processor that each part has used: emulator here and there, communication manager here and there."""
    return (
        _group_used_s(subject, subject.primary, "vm"),
        _group_used_s(subject, subject.standby, "vm"),
        _group_used_s(subject, subject.primary, "comm"),
        _group_used_s(subject, subject.standby, "comm"),
    )


def _group_used_s(subject: Subject, host: str, module: str) -> float | None:
    if not host or (module == "comm" and not subject.standby):
        return None
    found = hosts.pids(subject.lab.plan, host, f"{hosts.WORKLOADS}/{subject.name}/{module}")
    used = [each for each in map(_process_used_s, found) if each is not None]
    return sum(used) if used else None


def _process_used_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S
