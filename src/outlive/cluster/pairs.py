"""What the leader does for pairs: who is a hot machine's standby, how long one counts, and that it takes over first.

The leader only names a standby, and replaces one that can certainly not take over any more; everything that happens
between the two hosts they settle themselves (`pairing`, `standing_by`). An unprotected machine is told, and why.
"""

from dataclasses import replace

from . import beside, holding, placing
from . import records as rec
from .freezing import frozen
from .leader_state import Turn
from .mirror import Entry, Mirror
from .pairing import unpaired
from .placement import Choice
from .transaction import same_incarnation
from .workload import Workload


def tend(turn: Turn, workload: Workload, placed: Entry[rec.PlacementRecord]) -> bool:
    """Give a machine that runs the standby it lacks, or leave one that is gone; True when something was written."""
    record = placed.record
    follower = record.standby or record.moving_to
    if follower is not None:
        gone = gone_for_good(turn.state.mirror, record)
        if gone is None:
            _count_paired(turn, record)
            return False
        leave(turn, placed, follower, gone)
        return True
    if not workload.is_hot or not _runs(turn, record) or frozen(turn.state.mirror):
        return False
    _mind_lost(turn, workload.name)
    course = turn.course(workload.name)
    if turn.state.at < course.pair_next_at or beside.is_unsettled(turn, workload.name):
        return False
    choice = standby_for(turn, workload, record)
    if choice.host is None:
        _unprotected(turn, record, f"no host can be its standby: {choice.told()}")
        return False
    cause = turn.note(
        "standby.chosen", workload=workload.name, generation=record.generation, host=choice.host, because=record.because
    )
    name_standby(turn, workload, placed, choice.host, replace(record, because=cause))
    return True


def _mind_lost(turn: Turn, name: str) -> None:
    """The primary left its standby: give that one's silence time to show, and one that never got whole comes last."""
    course, at, timing = turn.course(name), turn.state.at, turn.state.timing
    if course.standby is None:
        return
    if course.paired_since is None:
        avoid = course.avoid_standby.set(course.standby, at + timing.exclude_s)
        turn.set_course(name, avoid_standby=avoid)
    next_at = max(course.pair_next_at, at + timing.dead_s)
    turn.set_course(name, standby=None, paired_since=None, pair_next_at=next_at)


def _runs(turn: Turn, record: rec.PlacementRecord) -> bool:
    report = turn.state.mirror.reports.get(record.workload)
    if report is None or report.record.generation != record.generation or report.record.host != record.host:
        return False
    return report.record.stage is rec.Stage.RUNNING


def gone_for_good(mirror: Mirror, record: rec.PlacementRecord) -> str | None:
    """Why the one who follows, as standby or as target, can certainly not go on with it any more; None: it may."""
    host = record.standby or record.moving_to or ""
    incarnation = record.standby_claim if record.standby is not None else record.moving_claim
    claim = mirror.claimed(host)
    if claim is None or claim.incarnation != incarnation:
        return f"{host} lost its claim"
    said = mirror.standbys.get(record.workload)
    if said is None or (said.record.generation, said.record.pairing) != (record.generation, record.pairing):
        return None
    return f"{host}: {said.record.reason}" if said.record.stage is rec.StandbyStage.FAILED else None


def _count_paired(turn: Turn, record: rec.PlacementRecord) -> None:
    """Remember who follows; a pair that has held for a while has its failures forgiven."""
    course, at = turn.course(record.workload), turn.state.at
    if course.standby != record.standby:
        turn.set_course(record.workload, standby=record.standby, paired_since=None)
        course = turn.course(record.workload)
    if not record.paired:
        return
    if course.paired_since is None:
        turn.set_course(record.workload, paired_since=at, unprotected="")
    elif course.pairings and at - course.paired_since >= turn.state.timing.stable_s:
        turn.set_course(record.workload, pairings=0)


def leave(turn: Turn, placed: Entry[rec.PlacementRecord], follower: str, reason: str) -> None:
    """Write that nobody follows a machine any more, and why."""
    record, name, at = placed.record, placed.record.workload, turn.state.at
    kind = "workload.unprotected" if record.standby is not None else "migrate.undone"
    because = turn.state.verdict_causes.get(follower, record.because)
    about = {"workload": name, "generation": record.generation, "host": follower}
    cause = turn.note(kind, text=reason, because=because, **about)
    avoid = turn.course(name).avoid_standby.set(follower, at + turn.state.timing.exclude_s)
    if turn.state.mirror.claimed(follower) is not None and record.standby is not None:
        turn.set_course(name, avoid_standby=avoid)
    turn.set_course(name, unprotected=reason, standby=None, paired_since=None)
    left = replace(unpaired(record), disk_hosts=(record.host or "",) if record.disk_hosts else ())
    placing.write_placement(turn, replace(left, reason=reason, because=cause), placed, ())


def _unprotected(turn: Turn, record: rec.PlacementRecord, reason: str) -> None:
    if turn.course(record.workload).unprotected == reason:
        return
    about = {"workload": record.workload, "generation": record.generation}
    turn.note("workload.unprotected", text=reason, because=record.because, **about)
    turn.set_course(record.workload, unprotected=reason)


def standby_for(turn: Turn, workload: Workload, record: rec.PlacementRecord, prefer: str | None = None) -> Choice:
    """The best host to follow it from, and why the others cannot."""
    at = turn.state.at
    course = turn.course(workload.name)
    last = {host for host, until in course.avoid_standby.items() if at < until}
    last |= {host for host, (until, _) in course.avoid.items() if at < until}
    if record.took_over and record.operation is None:
        # Whom it was just taken over from has hardly died unnoticed by chance; its verdict takes seconds.
        last |= set(record.copies[:1])
    # What has no place at all goes before a standby of what is no more important.
    held = holding.held_before(turn, workload, standby=True)
    hosts = placing.room_for(turn, workload, (record.standby, record.moving_to), held)
    company = beside.company(turn, workload, standby=True)
    return hosts.choose_standby(workload, record, frozenset(last), prefer, company)


def name_standby(
    turn: Turn, workload: Workload, placed: Entry[rec.PlacementRecord], host: str, record: rec.PlacementRecord
) -> None:
    """Write who follows from now on, in a new pairing; `record` as it shall be otherwise."""
    name, timing = workload.name, turn.state.timing
    course = turn.course(name)
    wait_s = min(timing.retry_most_s, timing.retry_first_s * 2.0 ** min(course.pairings, 20))
    turn.set_course(
        name,
        pairings=course.pairings + 1,
        pair_next_at=turn.state.at + wait_s,
        unprotected="",
    )
    claim = turn.state.mirror.claims[host].incarnation
    turn.means_standby(workload, host)
    chosen = replace(unpaired(record), standby=host, standby_claim=claim)
    if record.disk_hosts:
        chosen = replace(chosen, disk_hosts=(record.host or "",))
    stands = (same_incarnation(rec.CLAIMS + host, claim), *beside.still(turn, name))
    placing.write_placement(turn, chosen, placed, stands)


def is_taking_over(turn: Turn, record: rec.PlacementRecord) -> bool:
    """Whether a standby that can is still given time to take over, though its primary has ended."""
    if not record.paired or record.order is rec.Order.STOP or gone_for_good(turn.state.mirror, record) is not None:
        return False
    course, at = turn.course(record.workload), turn.state.at
    if course.take_over_since is None:
        turn.set_course(record.workload, take_over_since=at)
        return True
    return at - course.take_over_since < turn.state.timing.take_over_s
