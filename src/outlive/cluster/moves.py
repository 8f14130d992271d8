"""Planned moves of virtual machines that go on running: a hot one hands over to its standby, others migrate live.

Both are a pairing that the placement names; when it ends well the next generation goes on at the other host without a
stop. The leader begins it and sees how it ended; the two hosts do it (`pairing`, `standing_by`). If it ends badly the
machine goes on where it was, and the operation says why.
"""

from dataclasses import replace

from . import beside
from . import records as rec
from .commands import Act
from .leader_state import Turn
from .mirror import Entry
from .pairing import unpaired
from .pairs import gone_for_good, standby_for
from .placement import Choice, choose
from .placing import room_for
from .transaction import Compare, Put, same_incarnation, unchanged
from .workload import Kind, Workload


def is_live(turn: Turn, asked: rec.OperationRecord, record: rec.PlacementRecord) -> bool:
    """Whether this operation moves a machine without stopping it, rather than by a stop and a start."""
    wanted, report = turn.state.mirror.workloads.get(asked.workload), turn.state.mirror.reports.get(asked.workload)
    if wanted is None or wanted.record.workload.kind is not Kind.VM or record.order is rec.Order.STOP:
        return False
    if wanted.record.workload.is_hot and record.paired:
        return True
    runs = report is not None and report.record.generation == record.generation
    runs = runs and report is not None and report.record.stage is rec.Stage.RUNNING
    return runs and asked.kind is rec.OperationKind.MIGRATE


def target_of(turn: Turn, workload: Workload, record: rec.PlacementRecord, asked: str | None) -> Choice:
    """Where it can go: the host asked for, or its standby, or the best; and why not elsewhere."""
    if workload.is_hot:
        follows = (
            record.standby if record.standby is not None and gone_for_good(turn.state.mirror, record) is None else None
        )
        if follows is not None and asked in (None, follows):
            return Choice(follows, {})
        choice = standby_for(turn, workload, record, prefer=asked)
    else:
        hosts, company = room_for(turn, workload, (record.host,)), beside.company(turn, workload)
        avoid = {record.host or "": "it runs there now"}
        choice = hosts.choose(workload, avoid, asked, company=company)
        if choice.host is None and asked is None:
            return choose(workload, hosts.all(), avoid, company=company)
    if asked is None or choice.host == asked:
        return choice
    return Choice(None, {asked: choice.passed_over.get(asked, "there is no such host")})


def begin(turn: Turn, entry: Entry[rec.OperationRecord], placed: Entry[rec.PlacementRecord], target: str) -> None:
    """Write what starts the move."""
    asked, record = entry.record, placed.record
    workload = turn.state.mirror.workloads[asked.workload].record.workload
    about = {"workload": asked.workload, "generation": record.generation, "host": target}
    cause = turn.note(f"{asked.kind}.started", because=asked.because, **about)
    more: tuple[Compare, ...] = ()
    if record.standby == target:
        order = replace(record, hand_over=record.paired)
    else:
        claim = turn.state.mirror.claims[target].incarnation
        stands = beside.still(turn, asked.workload)
        order, more = unpaired(record), (same_incarnation(rec.CLAIMS + target, claim), *stands)
        if workload.is_hot:
            order = replace(order, standby=target, standby_claim=claim)
        else:
            order = replace(order, moving_to=target, moving_claim=claim)
        if record.disk_hosts:
            order = replace(order, disk_hosts=(record.host or "",))
        turn.means_standby(workload, target)
    order = replace(order, operation=asked.id, because=cause)
    running = replace(
        asked, state=rec.OperationState.RUNNING, target=target, generation=record.generation, because=cause
    )
    key, own = rec.PLACEMENTS + asked.workload, rec.OPERATIONS + asked.id
    turn.write(
        Act.PLACE,
        key,
        (unchanged(key, placed.mod_revision), unchanged(own, entry.mod_revision), *more),
        (Put(key, rec.encode(order)), Put(own, rec.encode(running))),
        cause,
    )


def watch(turn: Turn, asked: rec.OperationRecord, placed: Entry[rec.PlacementRecord]) -> str | None:
    """Take a move as far as it can go now; why it has failed, None while it has not."""
    record, key = placed.record, rec.PLACEMENTS + asked.workload
    if record.moving_to == asked.target or turn.is_busy(key):
        return None
    if record.standby != asked.target:
        return record.reason or f"it could not go to {asked.target}"
    if record.paired and not record.hand_over:
        order = replace(record, hand_over=True, because=asked.because)
        turn.write(
            Act.PLACE, key, (unchanged(key, placed.mod_revision),), (Put(key, rec.encode(order)),), asked.because
        )
    return None


def undo(turn: Turn, asked: rec.OperationRecord, placed: Entry[rec.PlacementRecord]) -> None:
    """An operator cancelled it: what has not happened yet shall not; the machine goes on where it is."""
    record, key = placed.record, rec.PLACEMENTS + asked.workload
    if record.operation != asked.id or record.generation != asked.generation or turn.is_busy(key):
        return
    left = record
    if record.moving_to is not None or record.hand_over:
        left = unpaired(record)
        if record.disk_hosts:
            left = replace(left, disk_hosts=(record.host or "",))
    elif record.order is rec.Order.STOP:
        return
    about = {"workload": asked.workload, "generation": record.generation, "host": record.host or ""}
    cause = turn.note(f"{asked.kind}.cancelled", because=asked.because, **about)
    left = replace(left, operation=None, because=cause)
    turn.write(Act.PLACE, key, (unchanged(key, placed.mod_revision),), (Put(key, rec.encode(left)),), cause)
