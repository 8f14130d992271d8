"""When a workload that failed is tried again: at once elsewhere, and where it failed after growing waits.

A failure is a workload's own: it could not be started, or restoring it did not help. The end of its host is none, and
delays nothing, unless several hosts in a row died soon after they had begun it: then it may be what kills them, and
waits like one that failed. Waits end early when the cluster has come to offer more than when it failed, when the
workload's file changes, and when an operator stops it (vSphere's waits: 2, 6, 14, 30 min).

How often it failed stands in its placement, so that a new leader's waits go on growing. Where it failed and how long it
has still to wait only this leader knows: its clock is its own. The next one tries once at once, and waits the longer.
"""

from dataclasses import replace

from . import records as rec
from . import waiting
from .failover import Proof
from .heartbeat import Flags
from .leader_state import Turn
from .mirror import Entry
from .naming import named

GAVE_UP = "restoring did not help"
NEVER_BEGAN = "it was not begun"
BY_ITS_FAULT = (GAVE_UP, NEVER_BEGAN)
"""How the reasons of stops begin that the leader ordered because a workload failed where it was."""
LOCKED = "lock: "
"""How a host begins the reason why it could not prepare a workload whose run lock somebody holds."""


def count_end(turn: Turn, record: rec.PlacementRecord, proof: Proof, verdict: rec.Verdict) -> None:
    """Count how a reign ended that nobody had asked to end; once for each generation."""
    name = record.workload
    turn.set_course(name, counted=record.generation, host_deaths=record.host_deaths)
    if proof.own_fault or record.reason.startswith(BY_ITS_FAULT):
        _count_failure(turn, record)
    elif verdict is rec.Verdict.DEAD:
        _count_death(turn, record)
    if turn.state.offered is None and turn.course(name).next_try_at > turn.state.at:
        _look_at_offers(turn)


def _count_failure(turn: Turn, record: rec.PlacementRecord) -> None:
    course, at, timing = turn.course(record.workload), turn.state.at, turn.state.timing
    failures = max(course.failures, record.failures) + 1
    wait_s = turn.state.mirror.policies.record.retry_after_s(failures)
    elsewhere_s = timing.retry_first_s * 2.0 ** min(failures - 2, 20) if failures > 1 else 0.0
    if _is_locked_out(turn, record):
        wait_s = min(wait_s, timing.retry_most_s, elsewhere_s)
    told = f"it failed {_times(failures)} in a row; the next try where it failed is {_told(wait_s)} after the last"
    turn.set_course(
        record.workload,
        failures=failures,
        failed_on=course.failed_on | ({record.host} if record.host is not None else set()),
        failed_version=record.version,
        next_try_at=at + wait_s,
        elsewhere_at=at + min(timing.retry_most_s, elsewhere_s, wait_s),
        delayed=told,
    )


def failures(turn: Turn, before: rec.PlacementRecord | None, version: int) -> int:
    """How often in a row it has failed, for its next placement to say. version: the workload's then."""
    if before is None or before.version != version:
        return 0
    course = turn.course(before.workload)
    return course.failures if course.counted == before.generation else before.failures


def _is_locked_out(turn: Turn, record: rec.PlacementRecord) -> bool:
    """Whether it only found its data locked: whoever held it has ended, and storage lets go of it in seconds."""
    report = turn.state.mirror.reports.get(record.workload)
    return (
        report is not None and report.record.generation == record.generation and report.record.reason.startswith(LOCKED)
    )


def _count_death(turn: Turn, record: rec.PlacementRecord) -> None:
    policies, name = turn.state.mirror.policies.record, record.workload
    deaths = record.host_deaths + 1
    turn.set_course(name, host_deaths=deaths)
    if not policies.host_deaths or deaths < policies.host_deaths:
        return
    wait_s = policies.retry_after_s(deaths - policies.host_deaths + 2)
    told = f"{deaths} hosts in a row died soon after they had begun it"
    because = turn.state.verdict_causes.get(record.host or "", record.because)
    text = f"{told}; it waits {_told(wait_s)}. If it is not to blame, stop and start it"
    turn.note("workload.suspected", workload=name, host=record.host or "", text=text, because=because)
    until_at = turn.state.at + wait_s
    turn.set_course(
        name,
        next_try_at=until_at,
        elsewhere_at=until_at,
        failed_version=record.version,
        suspected=True,
        delayed=f"{told}; the next try is {_told(wait_s)} after the last",
    )


def too_early(turn: Turn, wanted: rec.WorkloadRecord) -> str:
    """Why it is too early for another try, wherever; '' when it is not."""
    course = turn.course(wanted.workload.name)
    if course.next_try_at and wanted.version != course.failed_version:
        forgive(turn, wanted.workload.name)
        return ""
    return course.delayed if turn.state.at < course.elsewhere_at else ""


def worn(turn: Turn, name: str) -> dict[str, str]:
    """The hosts where it failed lately → why they come last."""
    return dict.fromkeys(turn.course(name).failed_on, "it failed there")


def may_try_anywhere(turn: Turn, name: str) -> bool:
    """Whether it may be tried again where it failed."""
    return turn.state.at >= turn.course(name).next_try_at


def forgive(turn: Turn, name: str) -> None:
    """Past failures no longer count."""
    course = turn.course(name)
    if course.failures or course.next_try_at or course.failed_on:
        turn.set_course(
            name, failures=0, failed_on=frozenset(), next_try_at=0.0, elsewhere_at=0.0, suspected=False, delayed=""
        )


def forgiven(turn: Turn, placed: Entry[rec.PlacementRecord]) -> rec.PlacementRecord | None:
    """The placement as it is once what befell it before is no sign against it any more; None: nothing changes."""
    record, since, timing = placed.record, turn.course(placed.record.workload).settled_at, turn.state.timing
    if since is None or not (record.host_deaths or record.failures):
        return None
    ran_s, enough_s = turn.state.at - since, turn.state.mirror.policies.record.host_deaths_minutes * 60.0
    deaths = 0 if ran_s >= enough_s else record.host_deaths
    failed = 0 if ran_s >= timing.stable_s else record.failures
    if (deaths, failed) == (record.host_deaths, record.failures):
        return None
    return replace(record, host_deaths=deaths, failures=failed)


def hasten(turn: Turn) -> None:
    """Let all that waits after a failure be tried at once when there is more to try it on than there was."""
    before_offered, before_taken = turn.state.offered, turn.state.taken
    if not _is_waited_for_more(turn):
        turn.set(offered=None, taken=frozenset())
        return
    _look_at_offers(turn)
    offered, taken = turn.state.offered, turn.state.taken
    if before_offered is None or offered is None:
        return
    if not (offered - before_offered or before_taken - taken):
        return
    turn.set(roomier_at=turn.state.at)
    gained = named(sorted(host for host, _ in offered - before_offered)) or "what others left"
    for name, course in sorted(turn.state.courses.items()):
        placed = turn.state.mirror.placements.get(name)
        is_placed = placed is not None and placed.record.host is not None
        if course.next_try_at > turn.state.at and not course.suspected and not is_placed:
            cause = turn.note("placement.hastened", workload=name, text=f"there is more room: {gained}")
            turn.set_course(name, next_try_at=0.0, elsewhere_at=0.0, waiting="", cause=cause)
            waiting.wake(turn, (name,))


def _is_waited_for_more(turn: Turn) -> bool:
    """Whether anything would be tried sooner if there were more; else nobody need look at all hosts each second."""
    at = turn.state.at
    return bool(turn.state.mirror.maintenance) or any(each.next_try_at > at for each in turn.state.courses.values())


def _look_at_offers(turn: Turn) -> None:
    turn.set(offered=_offered(turn), taken=_taken(turn))


def _offered(turn: Turn) -> frozenset[tuple[str, int]]:
    """The hosts that can be given work, each with the revision of what it says of itself."""
    mirror = turn.state.mirror
    found = set()
    for name, entry in mirror.hosts.items():
        newest = turn.state.signs.get(name).newest()
        flags = newest.flags if newest is not None else Flags.NONE
        lives = turn.state.verdicts.get(name) in (rec.Verdict.ALIVE, rec.Verdict.SUSPECT)
        able = lives and mirror.claimed(name) is not None and not mirror.in_maintenance(name)
        if able and Flags.ISOLATED not in flags:
            found.add((name, entry.mod_revision))
            if Flags.DATASTORE_REACHABLE in flags:
                found.add((f"the datastore of {name}", 0))
    return frozenset(found)


def _taken(turn: Turn) -> frozenset[str]:
    """The workloads that have, or want, a place."""
    mirror = turn.state.mirror
    wanted = {name for name, each in mirror.workloads.items() if each.record.desired is rec.Desired.RUNNING}
    return frozenset(wanted | {name for name, each in mirror.placements.items() if each.record.host is not None})


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _told(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
