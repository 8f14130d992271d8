"""A bench of failovers: a Redis whose host is lost in four ways, in turn, again and again, with all processors busy.

    power cut    the host's links go down and every process of it is gone
    SIGSTOP      all its processes stand still; it wakes once another host has its work
    partition    the switch lets nothing through between it and all others, clients too
    isolation    its own links go down

After each loss the host comes back, and the next begins once all hosts are alive. Times are from the cluster's own
events and the clients' own clocks; whether two ever acted is seen from outside, by the kernel's account.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from outlive.errors import Failed, OutliveError

from . import ready
from .bench_failover_values import FailoverBench, Loss, LossKind
from .lab import Lab
from .service_demo import ADDRESS, CLIENTS, PORT, READY_S, REDIS, RUNNING_S, WORKLOAD
from .watching import Counting, Sightings, counting_clients, watched

HOSTS = 3
SOONEST_S, LATEST_S = 1.0, 3.0
TAKEOVER_S, BACK_S = 60.0, 90.0
POLL_S = 0.05
MOST_EVENTS = 1000

Progress = Callable[[str], None]

_IDLER = """
import os, sys
owner = os.getppid()
while os.getppid() == owner:
    for _ in range(1_000_000):
        pass
"""


def play(lab: Lab, runs: int, progress: Progress) -> FailoverBench:
    """Lose the host of a Redis so often, in a lab that is up. Raises Failed when it does not even begin."""
    progress("waiting for a leader")
    ready.until_ready(lab, READY_S)
    client = ready.any_client(lab)
    # Here hosts die one after the other soon after they began it, which would else be held against it.
    client.put("/v1/policies", {"host_deaths": 0})
    client.put(f"/v1/workloads/{WORKLOAD}", REDIS.encode())
    ready.until_running(lab, WORKLOAD, RUNNING_S)
    losses, unfinished, kinds = list[Loss](), "", tuple(LossKind)
    with watched(lab, WORKLOAD) as sightings, counting_clients(lab, ADDRESS, PORT, CLIENTS) as counting, _busy():
        if not counting.wait_for(lambda: len(counting.acknowledged) >= CLIENTS * 10, RUNNING_S):
            raise Failed("The clients cannot count through Redis.")
        try:
            for number in range(runs):
                losses.append(_lose(lab, kinds[number % len(kinds)], counting, sightings))
                progress(f"{number + 1} of {runs}: {losses[-1].sentence()}")
        except OutliveError as error:
            # What was measured before is still worth telling.
            unfinished = f"{error.sentence} {error.cause or ''}".strip()
        account = counting.finish()
    return FailoverBench(tuple(losses), account.get("lost"), account.get("duplicated"), len(sightings.both), unfinished)


def _lose(lab: Lab, kind: LossKind, counting: Counting, sightings: Sightings) -> Loss:
    primary = ready.until_running(lab, WORKLOAD, TAKEOVER_S)
    time.sleep(random.uniform(SOONEST_S, LATEST_S))
    cut_unix_s = time.time()
    match kind:
        case LossKind.POWER:
            lab.kill(primary)
        case LossKind.SIGSTOP:
            lab.pause(primary)
        case LossKind.PARTITION:
            lab.partition(primary)
        case LossKind.ISOLATION:
            lab.isolate(primary)
    try:
        successor = _elsewhere(lab, primary)
        issued_unix_s = next((_unix_s(each) for each in _placed(_events(lab, primary, cut_unix_s))), cut_unix_s)
        if not counting.wait_for(lambda: counting.acknowledged[-1][0] > issued_unix_s, TAKEOVER_S):
            raise Failed(f"No client was answered within {TAKEOVER_S:g} s.")
        events, first_reply = _events(lab, primary, cut_unix_s), counting.first_after(issued_unix_s)
    finally:
        _bring_back(lab, kind, primary)
    ready.until(lab, "all hosts are alive", lambda found: _whole(found, lab), BACK_S)
    both = tuple((at - cut_unix_s, " ".join(hosts)) for at, hosts in sightings.both if at >= cut_unix_s)
    return replace(put_together(kind, primary, successor, events, cut_unix_s, first_reply), both=both)


def _bring_back(lab: Lab, kind: LossKind, host: str) -> None:
    match kind:
        case LossKind.POWER:
            lab.start(host)
        case LossKind.SIGSTOP:
            lab.resume(host)
        case _:
            lab.heal(host)


def put_together(
    kind: LossKind,
    primary: str,
    successor: str,
    events: list[dict[str, Any]],
    cut_unix_s: float,
    first_reply_unix_s: float | None,
) -> Loss:
    """One loss from what was recorded of it. events: since the cut and until clients were answered again."""
    verdicts = [each for each in events if each["kind"].startswith("verdict.")]
    wrong = tuple(f"{each['host']} {each['kind']}" for each in verdicts if not _is_right(each, kind, primary))
    noticed = [each for each in verdicts if each["host"] == primary and each["kind"] not in _HARMLESS]
    placed = _placed(events)
    return Loss(
        kind,
        primary,
        successor,
        _unix_s(noticed[0]) - cut_unix_s if noticed else None,
        _unix_s(placed[0]) - cut_unix_s if placed else None,
        first_reply_unix_s - cut_unix_s if first_reply_unix_s is not None else None,
        wrong,
    )


_HARMLESS = ("verdict.alive", "verdict.suspect")


def _is_right(event: dict[str, Any], kind: LossKind, primary: str) -> bool:
    """Whether a verdict is true. A suspicion accuses nobody; who is merely cut off and renews its claim is not dead."""
    if event["kind"] in _HARMLESS:
        return True
    cut_off = kind in (LossKind.PARTITION, LossKind.ISOLATION)
    return event["host"] == primary and not (cut_off and event["kind"] == "verdict.dead")


def _placed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in events if each["kind"] in ("failover.started", "workload.placed")]


def _unix_s(event: dict[str, Any]) -> float:
    return float(event["unix_ms"]) / 1000


def _events(lab: Lab, besides: str, since_unix_s: float) -> list[dict[str, Any]]:
    """What was recorded since then, in order, of hosts and of the workload."""
    found = ready.any_client(lab, besides=(besides,)).get(f"/v1/events?limit={MOST_EVENTS}")["events"]
    return sorted((each for each in found if _unix_s(each) >= since_unix_s), key=_unix_s)


def _elsewhere(lab: Lab, primary: str) -> str:
    def moved(found: dict[str, Any]) -> bool:
        each = ready.workload(found, WORKLOAD)
        return each is not None and each["state"] == "running" and each["host"] not in (None, primary)

    found = ready.until(lab, f"it runs elsewhere than on {primary}", moved, TAKEOVER_S, besides=(primary,))
    each = ready.workload(found, WORKLOAD)
    return str(each["host"]) if each is not None else ""


def _whole(found: dict[str, Any], lab: Lab) -> bool:
    each = ready.workload(found, WORKLOAD)
    alive = [host for host in found["hosts"] if host["verdict"] == "alive" and host["claim"]]
    return found["leader"] is not None and len(alive) == len(lab.plan.hosts) and (each or {}).get("state") == "running"


@contextmanager
def _busy() -> Iterator[None]:
    """Keep every processor busy with work of no use; it ends with this process too."""
    idlers = [subprocess.Popen([sys.executable, "-c", _IDLER]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in idlers:
            each.kill()
        for each in idlers:
            each.wait()
