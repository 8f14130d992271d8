"""The demo: a hot virtual machine outlives the host that it runs on, and its clients' connections go on.

A lab of two sites joined by a router, a virtual network across both, and a machine whose standby follows it at the
other site. Clients count over connections that stay open, through everything. Then the power of the primary's host is
cut. What happened is told from the cluster's own events, the clients' own clocks and the taps' own counts.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machines, ready, underlay
from .guests.clients import Asking, Clients
from .guests.history import IN_FLIGHT_MS, History, between, first_replies_ms, judge
from .guests.tiny import tiny
from .lab import Lab
from .speaking import Voices, listened
from .timeline import Moment, Story, moments, reached

NETWORK, VNI, MTU = "demo", 4211, 1450
SUBNET = "10.88.0"
ADDRESS, CLIENT_ADDRESS = f"{SUBNET}.10", f"{SUBNET}.2"
CLIENT_MAC = "52:54:00:88:00:02"
CLIENTS = 8
THINK_MS = 2.0
READY_S, FOLLOWED_S, TAKEOVER_S = 30.0, 60.0, 30.0
BEFORE_S, AFTER_S = 3.0, 2.0
LIMIT_FIRST_REPLY_MS = 200.0

WISH = machines.Wish(
    protection="hot",
    address=ADDRESS,
    cpus=2,
    type="pc",
    disk_on="local",
    network=NETWORK,
    more='[placement]\nprefer_sites = ["site1"]\napart = "site"\n',
)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of one power cut. cut_unix_s and cut_ns are the same moment, by the wall and the boot clock."""

    primary: str
    successor: str
    cut_unix_s: float
    cut_ns: int
    history: History
    voices: Voices
    epochs: dict[str, Any]


def play(lab: Lab, progress: Progress) -> Story:
    """Run the demo in a lab of two sites that is up. Raises Failed when the machine does not get going."""
    guest = tiny(say=progress)
    progress("waiting for a leader")
    ready.until_ready(lab, READY_S)
    _make_network(lab)
    progress("starting a virtual machine; its standby follows at the other site")
    with listened(lab) as voices:
        machines.begin(lab, guest, WISH)
        primary, standby = machines.until_followed(lab, WISH.name, FOLLOWED_S)
        progress(f"it runs on {primary}, and {standby} follows; {CLIENTS} clients count on open connections")
        seen = _cut_power(lab, primary, voices, progress)
        progress(f"it goes on at {seen.successor}; waiting for its next standby")
        again = machines.until_followed(lab, WISH.name, FOLLOWED_S, besides=(primary,))
        progress(f"protected again: {again[1]} follows {again[0]}")
    return _tell(lab, seen)


def _make_network(lab: Lab) -> None:
    outside = [{"address": underlay.client_address(lab.plan), "macs": [CLIENT_MAC]}]
    body = {"vni": VNI, "mtu": MTU, "subnet": f"{SUBNET}.0/24", "outside": outside}
    ready.any_client(lab).put(f"/v1/networks/{NETWORK}", body)
    underlay.join(lab.plan, VNI, f"{CLIENT_ADDRESS}/24", CLIENT_MAC, MTU)


def _cut_power(lab: Lab, primary: str, voices: Voices, progress: Progress) -> _Seen:
    asking = Asking(ADDRESS, CLIENTS, think_ms=THINK_MS, after_s=5.0)
    with Clients(asking, Path(lab.plan.folder) / "clients", namespace=lab.plan.client) as clients:
        clients.until_answered(CLIENTS, TAKEOVER_S)
        time.sleep(BEFORE_S)
        epochs = machines.progress(lab, WISH.name)
        progress(f"cutting the power of {primary}")
        cut_unix_s, cut_ns = time.time(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        lab.kill(primary)
        successor = ready.until_running(lab, WISH.name, TAKEOVER_S, besides=(primary,))
        time.sleep(AFTER_S)
        progress("counting what clients were told, and what is there")
        return _Seen(primary, successor, cut_unix_s, cut_ns, clients.stop(), voices, epochs)


def _tell(lab: Lab, seen: _Seen) -> Story:
    client = ready.any_client(lab, besides=(seen.primary,))
    events = client.get(f"/v1/events?limit=500&workload={WISH.name}")["events"]
    verdicts = client.get(f"/v1/events?limit=500&host={seen.primary}")["events"]
    found = [each for each in (*events, *verdicts) if each["unix_ms"] / 1000 >= seen.cut_unix_s - 0.5]
    outcome = judge(seen.history)
    replies = [each for each in first_replies_ms(seen.history, seen.cut_ns) if each is not None]
    first_ms = min(replies, default=None)
    timeline = [
        Moment(0.0, "power cut", f"links of {seen.primary} down, then every process killed"),
        *moments(
            found,
            seen.cut_unix_s,
            {
                "primary.lost": f"{seen.successor} misses its primary",
                "workload.taken_over": f"{seen.successor} won the store",
                "workload.running": f"the machine runs on {seen.successor}, from its last whole epoch",
                "verdict.dead": f"{seen.primary} dead",
                "standby.chosen": "a new standby was chosen",
                "workload.protected": "protected again",
            },
        ),
    ]
    if first_ms is not None:
        timeline.append(Moment(first_ms / 1000, "first reply to a client", "on a connection that was open before"))
    before = judge(between(seen.history, 0, seen.cut_ns - int(IN_FLIGHT_MS * 1e6)), counts=False)
    counts = {
        "acknowledged": outcome.answered,
        "lost": outcome.lost,
        "duplicated": outcome.duplicated,
        "broken_connections": outcome.broken_connections,
        "unanswered": outcome.unanswered,
        "double_run": bool(seen.voices.both),
        "first_reply_ms": _rounded(first_ms),
        "first_reply_ms_median": _rounded(statistics.median(replies)) if replies else None,
        "longest_gap_ms": _rounded(outcome.longest_gap_ms),
        "rtt_ms_median": _rounded(before.rtt_median_ms),
        "pause_ms_median": _rounded(seen.epochs.get("pause_ms_median")),
        "epochs": seen.epochs.get("epochs"),
        "primary": seen.primary,
        "successor": seen.successor,
        "looks": seen.voices.looks,
    }
    return Story(seen.primary, seen.successor, tuple(sorted(timeline, key=lambda each: each.after_s)), counts)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)


def kept_its_word(counts: dict[str, Any]) -> bool:
    """Whether nothing acknowledged was lost or came twice, no connection broke, and two hosts never spoke at once."""
    nothing = ("lost", "duplicated", "broken_connections", "unanswered")
    return all(counts.get(name) == 0 for name in nothing) and counts.get("double_run") is False


def sentences(counts: dict[str, Any]) -> list[str]:
    """The counts, for people."""
    return [
        f"{counts['acknowledged']} increments were acknowledged over {CLIENTS} open connections; {counts['lost']} of "
        f"them lost, {counts['duplicated']} counted twice, {counts['broken_connections']} connections broken. "
        f"Two hosts spoke at once: {'yes' if counts['double_run'] else 'never'}.",
        f"First reply {counts['first_reply_ms']} ms after the power cut. Before it a request took "
        f"{counts['rtt_ms_median']} ms, and the guest stood still for {counts['pause_ms_median']} ms an epoch, "
        f"{counts['epochs']} times a second.",
    ]


def reach(counts: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures to reach, with what was measured."""
    rows: list[tuple[str, Any, str, float]] = [
        ("first reply after the power cut", counts.get("first_reply_ms"), "ms", LIMIT_FIRST_REPLY_MS)
    ]
    rows += [(name.replace("_", " "), counts.get(name), "", 0) for name in ("lost", "duplicated", "broken_connections")]
    return reached(rows)
