"""A host that lives, and does not begin or stop what it was told to: its orders do not reach it, or it heeds none.

Reports and renewals go one way, orders the other; a host whose picture of the store stands still renews its claim and
starts nothing. It may see the order any moment, so nothing is placed elsewhere until it is certain that it does not
act on it: its own word that it stopped before it began, or the end of its claim.
"""

from dataclasses import replace

from . import placing
from . import records as rec
from .commands import Act
from .freezing import frozen
from .leader_state import Turn
from .mirror import Entry, Mirror
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


def mind_deaf(turn: Turn, placed: Entry[rec.PlacementRecord], verdict: rec.Verdict) -> None:
    """A living host has not stopped in time what it was told to stop: end its claim, or tell why a person has to.

    Ending the claim of a host ends all that it runs: so not if there is anything else, nor while the cluster is frozen,
    nor if the host says that it is stopping it, since then it heeds its orders.
    """
    record = placed.record
    course, host, name = turn.course(record.workload), record.host or "", record.workload
    claim, key = turn.state.mirror.claimed(host), rec.CLAIMS + host
    if course.asked_stop_at is None:
        turn.set_course(name, asked_stop_at=turn.state.at)
        return
    limit_s = turn.state.mirror.policies.record.begin_within_s
    if _has_answered(turn, record):
        limit_s += _stops_within_s(turn, name)
    alive = verdict is rec.Verdict.ALIVE and claim is not None and claim.incarnation == record.claim
    if not alive or turn.state.at - course.asked_stop_at < limit_s:
        return
    late = f"{host} lives, and has not stopped it after {limit_s:g} s"
    if hindrance := _hindrance(turn, record):
        _tell(turn, placed, f"{late}: {hindrance}")
    elif claim is not None and not turn.is_busy(key):
        cause = turn.note("claim.revoked", host=host, workload=name, text=late, because=record.because)
        turn.write(Act.REVOKE, key, (same_incarnation(key, claim.incarnation),), (Delete(key),), cause)


def _hindrance(turn: Turn, record: rec.PlacementRecord) -> str:
    """Why the claim of the host is not ended for it; '' for nothing."""
    report = turn.state.mirror.reports.get(record.workload)
    if _has_answered(turn, record) and report is not None and report.record.stage is rec.Stage.STOPPING:
        return "it is still at it"
    if others := [each for each in _running_on(turn, record.host or "") if each != record.workload]:
        return f"it heeds no orders, but runs {named(others)}"
    return frozen(turn.state.mirror)


def _tell(turn: Turn, placed: Entry[rec.PlacementRecord], stuck: str) -> None:
    """Say so where it stands too, so that `status` knows: how long ago something was ordered is in no record."""
    record, mirror = placed.record, turn.state.mirror
    placing.wait(turn, record.workload, f"{stuck}; {way_out(mirror, record)}", "placement.stuck", record.because)
    if record.stuck != stuck:
        placing.write_placement(turn, replace(record, stuck=stuck), placed, ())


def way_out(mirror: Mirror, record: rec.PlacementRecord) -> str:
    """What a person can do about a workload that its host does not stop."""
    wanted = mirror.workloads.get(record.workload)
    if wanted is not None and wanted.record.desired is rec.Desired.RUNNING:
        return f"`outlive failover {record.workload}` ends everything on {record.host}"
    return f"look at `outlive doctor` on {record.host}; to restart it ends everything there"


def _stops_within_s(turn: Turn, name: str) -> float:
    """How long its modules may take, one after the other."""
    wanted = turn.state.mirror.workloads.get(name)
    return sum(module.stop_grace_s for module in wanted.record.workload.modules) if wanted is not None else 0.0


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
