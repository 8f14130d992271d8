"""The demo of a service: a real Redis outlives the host that it runs on, and its clients are lied to about nothing.

A lab of three hosts, Redis with its append-only file synced always in the datastore under cold protection, clients
counting through its virtual IP. Then the power of its host is cut. What happened is told as a timeline from
the cluster's own events and the clients' own clocks, and ends with counts.
"""

import time
from collections.abc import Callable
from typing import Any

from outlive.errors import Failed

from . import ready
from .lab import Lab
from .plan import FIRST_VIRTUAL, NETWORK_4
from .timeline import Moment, Story, reached
from .watching import Counting, Sightings, counting_clients, watched

WORKLOAD = "counter"
ADDRESS = f"{NETWORK_4}.{FIRST_VIRTUAL}"
PORT = 6379
CLIENTS = 4
READY_S, RUNNING_S, TAKEOVER_S = 30.0, 30.0, 30.0
BEFORE_S, AFTER_S = 2.0, 2.0
LIMIT_RESTART_S = 5.0
SETTLE_S = 0.3

REDIS = f"""
name = "{WORKLOAD}"
data_on = "shared"

[[virtual_ip]]
address = "{ADDRESS}/24"

[module.redis]
command = ["/usr/bin/redis-server", "--bind", "{{address}}", "--port", "{PORT}", "--dir", "{{data}}",
  "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--protected-mode", "no", "--daemonize", "no"]

[[module.redis.check]]
kind = "command"
command = ["/usr/bin/redis-cli", "-h", "{{address}}", "-p", "{PORT}", "ping"]
"""

Progress = Callable[[str], None]


def play(lab: Lab, progress: Progress) -> Story:
    """Run the demo in a lab that is up. Raises Failed when Redis does not come back."""
    progress("waiting for a leader")
    ready.until_ready(lab, READY_S)
    progress("starting Redis, protected")
    client = ready.any_client(lab)
    client.put(f"/v1/workloads/{WORKLOAD}", REDIS.encode())
    primary = ready.until_running(lab, WORKLOAD, RUNNING_S)
    with watched(lab, WORKLOAD) as sightings, counting_clients(lab, ADDRESS, PORT, CLIENTS) as counting:
        progress(f"Redis runs on {primary}; {CLIENTS} clients count through {ADDRESS}")
        if not counting.wait_for(lambda: len(counting.acknowledged) >= CLIENTS * 10, RUNNING_S):
            raise Failed("The clients cannot count through Redis.", remedy="see `outlive logs counter --lab demo`")
        time.sleep(BEFORE_S)
        progress(f"cutting the power of {primary}")
        cut_at = time.time()
        lab.kill(primary)
        successor = _successor(lab, primary, counting, cut_at)
        progress(f"Redis answers again, on {successor}")
        time.sleep(AFTER_S)
        progress("counting what clients were told, and what is there")
        account = counting.finish()
        events = ready.any_client(lab).get(f"/v1/events?limit=500&workload={WORKLOAD}")["events"]
        verdicts = ready.any_client(lab).get(f"/v1/events?limit=500&host={primary}")["events"]
        found = [event for event in (*events, *verdicts) if event["unix_ms"] / 1000 >= cut_at - 1]
        return _tell(lab, primary, successor, cut_at, counting, sightings, account, found)


def _successor(lab: Lab, primary: str, counting: Counting, cut_at: float) -> str:
    deadline = time.monotonic() + TAKEOVER_S
    while time.monotonic() < deadline:
        counting.wait_for(lambda: counting.acknowledged[-1][0] > cut_at + SETTLE_S, 1.0)
        if (first := counting.first_after(cut_at + SETTLE_S)) is not None and first:
            return ready.until_running(lab, WORKLOAD, TAKEOVER_S, besides=(primary,))
    raise Failed(f"Redis did not come back within {TAKEOVER_S:g} s.", remedy="see `outlive doctor`")


def _tell(
    lab: Lab,
    primary: str,
    successor: str,
    cut_at: float,
    counting: Counting,
    sightings: Sightings,
    account: dict[str, Any],
    events: list[dict[str, Any]],
) -> Story:
    def when(kind: str) -> dict[str, Any] | None:
        return next(
            (event for event in sorted(events, key=lambda each: each["unix_ms"]) if event["kind"] == kind), None
        )

    def moment(kind: str, what: str) -> Moment | None:
        event = when(kind)
        return None if event is None else Moment(event["unix_ms"] / 1000 - cut_at, what, event["text"])

    first_reply = counting.first_after(cut_at + SETTLE_S)
    moments = [
        Moment(0.0, "power cut", f"link of {primary} down, then every process killed"),
        _last_heartbeat(when("verdict.dead"), cut_at),
        moment("verdict.suspect", f"{primary} suspect"),
        moment("verdict.dead", f"{primary} dead"),
        moment("workload.fenced", f"{primary} fenced"),
        moment("failover.started", f"placed on {successor}"),
        moment("workload.prepared", "run lock taken, address added"),
        moment("module.running", "Redis started"),
        moment("workload.running", "address announced"),
        Moment(first_reply - cut_at, "first reply to a client") if first_reply is not None else None,
    ]
    timeline = tuple(sorted((each for each in moments if each is not None), key=lambda each: each.after_s))
    dead, placed = when("verdict.dead"), when("failover.started")
    counts = {
        **account,
        "detect_s": _after(dead, cut_at),
        "restart_issued_s": _after(placed, cut_at),
        "first_reply_s": round(first_reply - cut_at, 3) if first_reply is not None else None,
        "double_run": sightings.double_run,
        "looks": sightings.looks,
        "primary": primary,
        "successor": successor,
    }
    return Story(primary, successor, timeline, counts)


def _after(event: dict[str, Any] | None, cut_at: float) -> float | None:
    return None if event is None else round(event["unix_ms"] / 1000 - cut_at, 3)


def _last_heartbeat(dead: dict[str, Any] | None, cut_at: float) -> Moment | None:
    """The verdict's evidence says how long ago the last heartbeat came; that gives its time."""
    if dead is None or not dead["text"].startswith("network "):
        return None
    ago_s = float(dead["text"].split()[1])
    return Moment(dead["unix_ms"] / 1000 - ago_s - cut_at, "last heartbeat")


def kept_its_word(counts: dict[str, Any]) -> bool:
    """Whether nothing acknowledged was lost or came twice, and two hosts never acted at once."""
    return counts.get("lost") == 0 and counts.get("duplicated") == 0 and counts.get("double_run") is False


def sentences(counts: dict[str, Any]) -> list[str]:
    """The counts, for people."""
    return [
        f"{counts['acknowledged']} increments were acknowledged; {counts['lost']} of them lost, "
        f"{counts['duplicated']} counted twice. Two hosts acted at once: {'yes' if counts['double_run'] else 'never'}."
    ]


def reach(counts: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures to reach, with what was measured."""
    rows = [("restart issued after the power cut", counts.get("restart_issued_s"), "s", LIMIT_RESTART_S)]
    rows += [(f"{word} acknowledged increments", counts.get(word), "", 0) for word in ("lost", "duplicated")]
    return reached(rows)
