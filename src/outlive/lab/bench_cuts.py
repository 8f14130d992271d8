"""Power cuts of a hot machine's primary at random moments, one after the other in one lab, each told by itself.

The host that lost its power is switched on again as soon as its clients were asked what they saw, and so becomes the
next standby or the one after it. Times are the clients' own clocks, and the cluster's own events.
"""

import json
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from outlive.errors import OutliveError

from . import machines, network, ready
from .bench_measure import Progress, Subject
from .bench_values import PowerCut
from .guests.clients import Asking, Clients
from .guests.history import IN_FLIGHT_MS, History, Outcome, first_replies_ms, judge
from .speaking import Voices, listened

COUNTING, WRITING = 7, 1
THINK_MS = 2.0
SOONEST_S, LATEST_S = 0.5, 2.5
SILENT_S = 1.0
"""How long nothing is asked of the cluster after a power cut, so that asking does not make it slow."""
AGAIN_S, AFTER_S, FOLLOWED_S = 30.0, 1.0, 120.0
POLL_S = 0.5
ADOPTED = "machine.adopted"


def power_cuts(subject: Subject, count: int, progress: Progress) -> tuple[tuple[PowerCut, ...], str]:
    """Cut the power of whoever is the primary, so often; also says why there were fewer, or ''."""
    lab, found, unfinished = subject.lab, list[PowerCut](), ""
    with listened(lab) as voices:
        try:
            for number in range(count):
                primary, standby = machines.until_followed(lab, subject.name, FOLLOWED_S)
                found.append(_cut(subject, primary, standby, voices))
                lab.start(primary)
                progress(f"power cut {number + 1} of {count}: {sentence(found[-1])}")
        except OutliveError as error:
            # What was measured before is still worth telling.
            unfinished = f"{error.sentence} {error.cause or ''}".strip()
        time.sleep(AFTER_S)
    return tuple(found), unfinished


def sentence(cut: PowerCut) -> str:
    """One power cut, for people."""
    reply = cut.first_reply_median_ms
    ending = "nothing lost" if cut.clean else "A PROMISE WAS BROKEN"
    when = f"first reply after {reply:.0f} ms" if reply is not None else "no reply"
    return f"{cut.primary} to {cut.successor}, {when}, {ending}"


def _cut(subject: Subject, primary: str, standby: str, voices: Voices) -> PowerCut:
    lab, folder = subject.lab, Path(subject.lab.plan.folder)
    spoke = len(voices.both)
    with ExitStack() as stack:
        asked = [
            stack.enter_context(Clients(asking, folder / f"cut-{number}", namespace=lab.plan.client))
            for number, asking in enumerate(
                (
                    Asking(subject.address, COUNTING, think_ms=THINK_MS),
                    Asking(subject.address, WRITING, request="dw", first_id=100, think_ms=THINK_MS),
                )
            )
        ]
        for clients, connections in zip(asked, (COUNTING, WRITING), strict=True):
            clients.until_answered(connections, AGAIN_S)
        time.sleep(random.uniform(SOONEST_S, LATEST_S))
        cut_unix_s, cut_ns = time.time(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        network.cut_power(lab.plan, primary)
        # What arrived until all links were down may have left before.
        in_flight_ms = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - cut_ns) / 1e6 + IN_FLIGHT_MS
        lab.kill(primary)
        time.sleep(SILENT_S)
        _until_answered_again(asked, cut_ns, in_flight_ms)
        time.sleep(AFTER_S)
        histories = [clients.stop() for clients in asked]
    replies = first_replies_ms(histories[0], cut_ns, in_flight_ms=in_flight_ms)
    events = _events(subject, primary, cut_unix_s)
    events += _adoptions(subject, standby, cut_unix_s)
    return put_together(primary, standby, replies, events, histories, cut_unix_s, len(voices.both) - spoke)


def put_together(
    primary: str,
    standby: str,
    replies: Sequence[float | None],
    events: Sequence[dict[str, Any]],
    histories: Sequence[History],
    cut_unix_s: float,
    double: int,
) -> PowerCut:
    """One power cut from what was recorded of it. events: of the machine, after the cut, each with kind and unix_ms."""

    def after_ms(kind: str) -> float | None:
        moments = [each["unix_ms"] for each in events if each["kind"] == kind]
        return min(moments) - cut_unix_s * 1000 if moments else None

    outcomes: list[Outcome] = [judge(each) for each in histories]
    adopt_ms = next((each["adopt_ms"] for each in events if each["kind"] == ADOPTED), None)
    successor = next((each["host"] for each in events if each["kind"] == "workload.taken_over"), standby)
    return PowerCut(
        primary,
        successor,
        after_ms("primary.lost"),
        after_ms("workload.taken_over"),
        adopt_ms,
        after_ms("workload.running"),
        tuple(replies),
        acknowledged=sum(each.answered for each in outcomes),
        lost=sum(each.lost + each.failed for each in outcomes),
        duplicated=sum(each.duplicated for each in outcomes),
        broken=sum(each.broken_connections + each.unanswered for each in outcomes),
        double=double,
    )


def _until_answered_again(asked: Sequence[Clients], cut_ns: int, in_flight_ms: float) -> None:
    """Wait until every connection had an answer since the cut, or for so long that none will come."""
    deadline = time.monotonic() + AGAIN_S
    while time.monotonic() < deadline:
        if all(None not in first_replies_ms(each.so_far(), cut_ns, in_flight_ms=in_flight_ms) for each in asked):
            return
        time.sleep(POLL_S)


def _events(subject: Subject, primary: str, cut_unix_s: float) -> list[dict[str, Any]]:
    client = ready.any_client(subject.lab, besides=(primary,))
    events = client.get(f"/v1/events?limit=200&workload={subject.name}")["events"]
    return [each for each in events if each["unix_ms"] >= cut_unix_s * 1000]


def _adoptions(subject: Subject, host: str, since_unix_s: float) -> list[dict[str, Any]]:
    """What a host's agent noted of machines that it took over, as events."""
    found: list[dict[str, Any]] = []
    log = subject.lab.plan.host_folder(host) / "data" / "agent.log"
    with suppress(OSError), log.open() as lines:
        for line in lines:
            if ADOPTED not in line:
                continue
            noted = json.loads(line)
            unix_ms = datetime.fromisoformat(noted["time"]).timestamp() * 1000
            if noted["event"] == ADOPTED and noted["workload"] == subject.name and unix_ms >= since_unix_s * 1000:
                found.append({"kind": ADOPTED, "unix_ms": unix_ms, "host": host, "adopt_ms": noted["adopt_ms"]})
    return found
