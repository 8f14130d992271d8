"""A host that lives, and does not begin what it was told to: its orders do not reach it, or it cannot heed them.

Reports and renewals go one way, orders the other; a host whose picture of the store stands still renews its claim and
starts nothing. It may see the order any moment, so nothing is placed elsewhere until it is certain that it does not
act on it: its own word that it stopped before it began, or the end of its claim.
"""

from . import placing
from . import records as rec
from .commands import Act
from .leader_state import Turn
from .mirror import Entry
from .naming import named
from .retrying import NEVER_BEGAN
from .transaction import Delete, same_incarnation


def is_overdue(turn: Turn, placed: Entry[rec.PlacementRecord]) -> bool:
    """Order a workload to stop that its host has not begun in time; True when that was written."""
    record, course = placed.record, turn.course(placed.record.workload)
    limit_s = turn.state.mirror.policies.record.begin_within_s
    if record.took_over or _has_answered(turn, record) or turn.state.at - course.begun_at < limit_s:
        return False
    reason = f"{NEVER_BEGAN}: {record.host} lives, and has said nothing of it for {limit_s:g} s"
    about = {"workload": record.workload, "generation": record.generation, "host": record.host or ""}
    cause = turn.note("placement.ignored", text=reason, because=record.because, **about)
    turn.set_course(record.workload, asked_stop_at=turn.state.at)
    placing.order_stop(turn, placed, reason, cause)
    return True


def mind_deaf(turn: Turn, record: rec.PlacementRecord, verdict: rec.Verdict) -> None:
    """A host that did not begin it does not say either that it stopped: end its claim, if nothing else runs there.

    With anything else there it waits for a person: ending the claim of a host ends all that it runs.
    """
    course, host, name = turn.course(record.workload), record.host or "", record.workload
    limit_s = turn.state.mirror.policies.record.begin_within_s
    if not record.reason.startswith(NEVER_BEGAN) or _has_answered(turn, record) or verdict is not rec.Verdict.ALIVE:
        return
    if course.asked_stop_at is None:
        turn.set_course(name, asked_stop_at=turn.state.at)
        return
    if turn.state.at - course.asked_stop_at < limit_s:
        return
    if others := _running_on(turn, host):
        told = f"{host} heeds no orders, but runs {named(others)}"
        reason = f"{told}; `outlive failover {name}` ends everything there"
        placing.wait(turn, name, reason, "placement.stuck", record.because)
        return
    claim, key = turn.state.mirror.claimed(host), rec.CLAIMS + host
    if claim is None or claim.incarnation != record.claim or turn.is_busy(key):
        return
    cause = turn.note("claim.revoked", host=host, workload=name, text=record.reason, because=record.because)
    turn.write(Act.REVOKE, key, (same_incarnation(key, claim.incarnation),), (Delete(key),), cause)


def _has_answered(turn: Turn, record: rec.PlacementRecord) -> bool:
    report = turn.state.mirror.reports.get(record.workload)
    return report is not None and (report.record.generation, report.record.host) == (record.generation, record.host)


def _running_on(turn: Turn, host: str) -> list[str]:
    """What the host runs by its own reports, or follows as a standby."""
    mirror, found = turn.state.mirror, []
    for name in sorted(mirror.there.get(host, ())):
        placed, report = mirror.placements[name].record, mirror.reports.get(name)
        began = placed.host == host and report is not None and report.record.generation == placed.generation
        if placed.standby == host or (began and report is not None and report.record.stage not in rec.FINAL):
            found.append(name)
    return found
