"""Long actions that an operator asked for: migrate, failover, checkpoint and resume, from the asking to the end.

An operation is a record in the store, so that it survives the leader that began it. Here it is checked, turned into an
order to stop with a next host, and closed when the workload runs again; everything between is `courses`, the same
as after a failure. What moves without stopping is begun by `moves`; a checkpoint is its host's to make.
"""

from collections.abc import Collection
from dataclasses import replace

from . import beside, moves
from . import records as rec
from .commands import Act
from .failover import Wait
from .leader_state import Turn
from .mirror import Entry
from .placement import choose
from .recovery import recovered
from .transaction import Delete, Put, unchanged
from .workload import Protection

KEEP_ENDED = 200


def advance_all(turn: Turn) -> None:
    """Take every operation as far as it can go now, and forget those that ended long ago."""
    ended = []
    for name, entry in sorted(turn.state.mirror.operations.items()):
        _advance(turn, entry)
        if entry.record.state in rec.ENDED:
            ended.append((entry.mod_revision, name))
    for revision, name in sorted(ended)[:-KEEP_ENDED]:
        key = rec.OPERATIONS + name
        if not turn.is_busy(key):
            turn.write(Act.OPERATION, key, (unchanged(key, revision),), (Delete(key),))


def advance(turn: Turn, changed: Collection[str]) -> None:
    """Take those operations on that these keys of the store are about."""
    own = {rec.name_in(key) for key in changed if key.startswith(rec.OPERATIONS)}
    theirs = {rec.name_in(key) for key in changed if not key.startswith(rec.OPERATIONS)}
    operations = turn.state.mirror.operations
    for name in sorted(name for name, each in operations.items() if name in own or each.record.workload in theirs):
        _advance(turn, operations[name])


def _advance(turn: Turn, entry: Entry[rec.OperationRecord]) -> None:
    if entry.record.state is rec.OperationState.ASKED:
        _begin(turn, entry)
    elif entry.record.state is rec.OperationState.RUNNING:
        _watch(turn, entry)
    elif entry.record.state is rec.OperationState.CANCELLED:
        placed = turn.state.mirror.placements.get(entry.record.workload)
        if placed is not None:
            moves.undo(turn, entry.record, placed)


def _begin(turn: Turn, entry: Entry[rec.OperationRecord]) -> None:
    asked, mirror = entry.record, turn.state.mirror
    placed = mirror.placements.get(asked.workload)
    key = rec.PLACEMENTS + asked.workload
    if turn.is_busy(rec.OPERATIONS + asked.id) or turn.is_busy(key):
        return
    if _names_disks(turn, asked, placed):
        _start_from(turn, entry, placed, asked.target or "")
        return
    refused = refusal(turn, asked)
    if refused is not None or placed is None or placed.record.host is None:
        cause = turn.note(f"{asked.kind}.refused", workload=asked.workload, text=refused or "", because=asked.because)
        _close(turn, entry, rec.OperationState.REFUSED, refused or "", cause)
        return
    if asked.kind is rec.OperationKind.CHECKPOINT:
        _begin_checkpoint(turn, entry, placed)
        return
    if moves.is_live(turn, asked, placed.record):
        workload = mirror.workloads[asked.workload].record.workload
        there = moves.target_of(turn, workload, placed.record, asked.target)
        if there.host is not None:
            moves.begin(turn, entry, placed, there.host)
        return
    target = asked.target or _target(turn, asked, placed.record)
    cause = turn.note(
        f"{asked.kind}.started",
        workload=asked.workload,
        generation=placed.record.generation,
        host=target or "",
        because=asked.because,
    )
    if asked.kind is rec.OperationKind.FAILOVER:
        avoid = turn.course(asked.workload).avoid
        until = turn.state.at + turn.state.timing.exclude_s
        turn.set_course(asked.workload, avoid=avoid.set(placed.record.host, (until, "it was failed over from there")))
    order = replace(
        placed.record,
        order=rec.Order.STOP,
        next_host=target,
        operation=asked.id,
        reason=_ordered(asked, target),
        because=cause,
        resume_at=asked.checkpoint if asked.kind is rec.OperationKind.RESUME else "",
    )
    running = replace(
        asked,
        state=rec.OperationState.RUNNING,
        target=target,
        generation=placed.record.generation,
        because=cause,
    )
    own = rec.OPERATIONS + asked.id
    if target is not None and target != placed.record.host:
        turn.means_standby(mirror.workloads[asked.workload].record.workload, target)
    turn.write(
        Act.PLACE,
        key,
        (unchanged(key, placed.mod_revision), unchanged(own, entry.mod_revision)),
        (Put(key, rec.encode(order)), Put(own, rec.encode(running))),
        cause,
    )


def _names_disks(turn: Turn, asked: rec.OperationRecord, placed: Entry[rec.PlacementRecord] | None) -> bool:
    """Whether an operator forces a machine that waits for its disks to be started from those of another host."""
    wanted = turn.state.mirror.workloads.get(asked.workload)
    if asked.kind is not rec.OperationKind.FAILOVER or asked.target is None or wanted is None:
        return False
    if asked.target not in turn.state.mirror.hosts or wanted.record.desired is not rec.Desired.RUNNING:
        return False
    if placed is None and asked.workload not in turn.state.mirror.reports:
        return False
    return wanted.record.workload.keeps_disks and (placed is None or placed.record.host is None)


def _start_from(
    turn: Turn, entry: Entry[rec.OperationRecord], placed: Entry[rec.PlacementRecord] | None, target: str
) -> None:
    """Nobody acts for it; from now on its disks are those of this host. What only others have of it is given up."""
    asked, state = entry.record, turn.state
    record: rec.PlacementRecord | Wait
    if placed is not None:
        record = replace(placed.record, disk_hosts=(target,), copies=())
    else:
        version = state.mirror.workloads[asked.workload].record.version
        record = recovered(asked.workload, version, state.mirror, state.signs, state.timing, state.at, target)
    if isinstance(record, Wait) or record.host is not None:
        return
    about = {"workload": asked.workload, "generation": record.generation, "host": target}
    cause = turn.note(
        "disks.chosen", because=asked.because, text=f"its disks are those of {target} from now on", **about
    )
    key, own = rec.PLACEMENTS + asked.workload, rec.OPERATIONS + asked.id
    running = replace(asked, state=rec.OperationState.RUNNING, generation=record.generation, because=cause)
    record = replace(record, operation=asked.id, because=cause)
    stood = unchanged(key, placed.mod_revision if placed is not None else 0)
    turn.set_course(asked.workload, cause=cause, next_try_at=0.0)
    writes = (Put(key, rec.encode(record)), Put(own, rec.encode(running)))
    turn.write(Act.PLACE, key, (stood, unchanged(own, entry.mod_revision)), writes, cause)


def _ordered(asked: rec.OperationRecord, target: str | None) -> str:
    if asked.kind is rec.OperationKind.RESUME:
        return f"it is resumed from {asked.checkpoint or 'its newest checkpoint'}"
    return f"{asked.kind} to {target or 'another host'}"


def _begin_checkpoint(turn: Turn, entry: Entry[rec.OperationRecord], placed: Entry[rec.PlacementRecord]) -> None:
    asked, own = entry.record, rec.OPERATIONS + entry.record.id
    about = {"workload": asked.workload, "generation": placed.record.generation, "host": placed.record.host or ""}
    cause = turn.note(f"{asked.kind}.started", because=asked.because, **about)
    running = replace(asked, state=rec.OperationState.RUNNING, generation=placed.record.generation, because=cause)
    turn.write(Act.OPERATION, own, (unchanged(own, entry.mod_revision),), (Put(own, rec.encode(running)),), cause)


KEEPING = (rec.OperationKind.CHECKPOINT, rec.OperationKind.RESUME)
"""The operations that only a machine with checkpoints has."""


def refusal(turn: Turn, asked: rec.OperationRecord) -> str | None:
    """Why it cannot be begun; nothing has been changed yet."""
    mirror = turn.state.mirror
    wanted, placed = mirror.workloads.get(asked.workload), mirror.placements.get(asked.workload)
    if wanted is None:
        return f"there is no workload {asked.workload}"
    if wanted.record.desired is not rec.Desired.RUNNING:
        return f"{asked.workload} is not meant to run"
    if placed is None or placed.record.host is None:
        return f"{asked.workload} runs nowhere now; it is placed as soon as a host can have it"
    record = placed.record
    if asked.kind in KEEPING and wanted.record.workload.protection is not Protection.WARM:
        return f"{asked.workload} keeps no checkpoints: its file does not say protection = warm"
    if record.order is rec.Order.STOP and (asked.kind is not rec.OperationKind.FAILOVER or _forced(turn, placed)):
        return f"{asked.workload} is being stopped already: {placed.record.reason}"
    if asked.kind in KEEPING:
        return None
    if asked.target == record.host:
        return f"{asked.workload} is on {asked.target} already"
    before = mirror.operations.get(record.operation or "")
    if before is not None and _moves(before.record, record):
        return f"{asked.workload} is being moved already, to {before.record.target}"
    if moves.is_live(turn, asked, record):
        there = moves.target_of(turn, wanted.record.workload, record, asked.target)
        return None if there.host is not None else f"no host can have it: {there.told()}"
    if asked.target is None and asked.kind is rec.OperationKind.FAILOVER:
        return None
    avoid = {record.host or "": "it runs there now"}
    workload, disk_hosts = wanted.record.workload, record.disk_hosts
    hosts, company = turn.ranking(), beside.company(turn, workload)
    if asked.target is None:
        all_hosts = hosts.seen({})
        if all_hosts.choose(workload, avoid, None, disk_hosts, company).host is not None:
            return None
        return f"no host can have it: {all_hosts.why_none(workload, avoid, disk_hosts, company)}"
    if asked.target not in hosts.hosts:
        return f"there is no host {asked.target}"
    choice = choose(workload, [hosts.hosts[asked.target]], avoid, disk_hosts=disk_hosts, company=company)
    return None if choice.host is not None else f"no host can have it: {choice.told()}"


def _moves(asked: rec.OperationRecord, record: rec.PlacementRecord) -> bool:
    """Whether this operation still moves the workload, without a stop."""
    running = asked.state is rec.OperationState.RUNNING and asked.kind is not rec.OperationKind.CHECKPOINT
    return running and record.order is rec.Order.RUN and asked.generation == record.generation


def _forced(turn: Turn, placed: Entry[rec.PlacementRecord]) -> bool:
    """Whether a failover is forcing its host to stop; a mere migration may hang, and a failover is the way out."""
    operation = turn.state.mirror.operations.get(placed.record.operation or "")
    if operation is None or operation.record.state is not rec.OperationState.RUNNING:
        return False
    return operation.record.kind is rec.OperationKind.FAILOVER


def _target(turn: Turn, asked: rec.OperationRecord, record: rec.PlacementRecord) -> str | None:
    """Where it goes when nobody said; back to its own host when it is only resumed from another checkpoint."""
    if asked.kind is rec.OperationKind.RESUME:
        return record.host
    workload = turn.state.mirror.workloads[asked.workload].record.workload
    company, hosts = beside.company(turn, workload), turn.ranking().seen({})
    return hosts.choose(workload, {record.host or "": "it runs there now"}, None, record.disk_hosts, company).host


def _watch(turn: Turn, entry: Entry[rec.OperationRecord]) -> None:
    asked, mirror = entry.record, turn.state.mirror
    placed = mirror.placements.get(asked.workload)
    if turn.is_busy(rec.OPERATIONS + asked.id):
        return
    if asked.kind is rec.OperationKind.CHECKPOINT:
        if placed is None or placed.record.host is None or placed.record.generation != asked.generation:
            why = "the machine did not stay where it was begun"
            _close(turn, entry, rec.OperationState.FAILED, why, asked.because)
        return
    if placed is None or asked.workload not in mirror.workloads or placed.record.operation != asked.id:
        why = "something else was asked of the workload since"
        _close(turn, entry, rec.OperationState.FAILED, why, asked.because)
        return
    record = placed.record
    if record.host is not None and record.order is rec.Order.RUN and record.generation == asked.generation:
        why_not = moves.watch(turn, asked, placed)
        if why_not is not None:
            cause = turn.note(f"{asked.kind}.failed", workload=asked.workload, text=why_not, because=record.because)
            _close(turn, entry, rec.OperationState.FAILED, why_not, cause)
        return
    report = mirror.reports.get(asked.workload)
    if record.host is None:
        if record.generation > asked.generation or record.disk_hosts != (asked.target,):
            _close(turn, entry, rec.OperationState.FAILED, record.reason, record.because)
        return
    if record.order is rec.Order.STOP or report is None or report.record.generation != record.generation:
        return
    if report.record.stage is rec.Stage.RUNNING:
        there = asked.target in (None, record.host)
        reason = f"it runs on {record.host}" if there else f"it runs on {record.host}, not on {asked.target}"
        state = rec.OperationState.DONE if there else rec.OperationState.FAILED
        cause = turn.note(
            f"{asked.kind}.{state}",
            workload=asked.workload,
            generation=record.generation,
            host=record.host,
            text=reason,
            because=report.record.because,
        )
        _close(turn, entry, state, reason, cause)


def _close(turn: Turn, entry: Entry[rec.OperationRecord], state: rec.OperationState, reason: str, because: str) -> None:
    key = rec.OPERATIONS + entry.record.id
    ended = replace(entry.record, state=state, reason=reason, because=because)
    turn.write(Act.OPERATION, key, (unchanged(key, entry.mod_revision),), (Put(key, rec.encode(ended)),), because)
