"""The standby's side of a pair: it makes ready, follows, and takes over when it wins the store; or is discarded.

A standby is of one pairing of one generation and rests on this host's claim, like a reign. It takes over only when it
holds a whole epoch of exactly that pairing and the placement, compared by its very revision, still names it; then it
becomes a reign at the next generation, within the time of one transaction and without asking the leader. The target
of a live migration is the same, but that its source moves the placement.
"""

from dataclasses import replace

from . import records as rec
from .commands import Act, DiscardStandby, Held, PrepareStandby, Role, TakeOver, TearDown
from .events import (
    Outcome,
    PeerLost,
    StandbyDiscarded,
    StandbyFailed,
    StandbyListening,
    StandbySeeding,
    StandbyWhole,
    TakeOverFailed,
    TookOver,
    Transacted,
)
from .heartbeat import ModuleStatus
from .mirror import Entry
from .node_state import Link, Phase, Reign, Standby, Standing, Turn
from .pairing import succeeded
from .transaction import Put, Transaction, same_incarnation, unchanged

Told = StandbyListening | StandbySeeding | StandbyWhole | StandbyFailed | StandbyDiscarded | PeerLost

_STAGES: dict[type, rec.StandbyStage] = {
    StandbySeeding: rec.StandbyStage.SEEDING,
    StandbyWhole: rec.StandbyStage.WHOLE,
}


def follow(turn: Turn, may_act: bool) -> None:
    """Make the standbys follow the placements in the store."""
    for name, standby in sorted(turn.state.standbys.items()):
        entry = turn.state.mirror.placements.get(name)
        if standby.standing is Standing.ENDED and (entry is None or not _names(entry.record, standby, turn.state.me)):
            turn.set(standbys=turn.state.standbys.delete(name))
        elif entry is None and turn.state.mirror.revision and name not in turn.state.mirror.workloads:
            discard(turn, standby, "there is no such workload any more", standby.because)
        elif entry is not None and standby.standing is Standing.HELD:
            _follow_held(turn, standby, entry, may_act)
    if may_act:
        _begin_new(turn)


def _names(placed: rec.PlacementRecord, standby: Standby, me: str) -> bool:
    """Whether the placement still has this host follow, in this very pairing."""
    if (placed.generation, placed.pairing) != (standby.generation, standby.pairing) or placed.host is None:
        return False
    named = (placed.standby, placed.standby_claim)
    if standby.role is Role.INCOMING:
        named = (placed.moving_to, placed.moving_claim)
    return named == (me, standby.claim) and placed.order is rec.Order.RUN


def has_won(placed: rec.PlacementRecord, standby: Standby, me: str) -> bool:
    """Whether the placement has this standby go on as the primary."""
    here = (placed.host, placed.claim, placed.took_over) == (me, standby.claim, True)
    return here and (placed.generation, placed.pairing) == (standby.generation + 1, standby.pairing)


def _follow_held(turn: Turn, standby: Standby, entry: Entry[rec.PlacementRecord], may_act: bool) -> None:
    placed, me = entry.record, turn.state.me
    if placed.generation < standby.generation:
        return
    if has_won(placed, standby, me):
        if may_act and placed.order is rec.Order.RUN:
            _win(turn, standby, placed.because)
        elif placed.order is rec.Order.STOP:
            discard(turn, standby, "it was stopped before it took over", placed.because)
    elif not _names(placed, standby, me):
        discard(turn, standby, "it follows no more", placed.because)
    elif may_act and standby.lost and not turn.state.isolated:
        _ask_to_take_over(turn, standby, entry)


def _begin_new(turn: Turn) -> None:
    me, incarnation = turn.state.me, turn.state.session.incarnation
    mirror = turn.state.mirror
    placements = (mirror.placements[name].record for name in mirror.there.get(me, ()))
    named = {each.workload: each for each in placements if me in (each.standby, each.moving_to)}
    for name, placed in sorted(named.items()):
        role = Role.STANDBY if placed.standby == me else Role.INCOMING
        if name in turn.state.standbys or placed.host is None:
            continue
        claim = placed.standby_claim if role is Role.STANDBY else placed.moving_claim
        wanted, reign = turn.state.mirror.workloads.get(name), turn.state.reigns.get(name)
        busy = reign is not None and (reign.phase is not Phase.ENDED or reign.generation >= placed.generation)
        if claim != incarnation or placed.order is rec.Order.STOP or busy or turn.state.isolated:
            continue
        if wanted is None or wanted.record.version != placed.version:
            continue
        workload = wanted.record.workload
        turn.set_standby(Standby(workload, placed.generation, placed.pairing, claim, role, placed.because))
        turn.save()
        turn.do(PrepareStandby(workload, placed.generation, placed.pairing, role, placed.because))


def on_told(turn: Turn, event: Told) -> None:
    """The standby here says how it is."""
    standby = turn.state.standbys.get(event.workload)
    if standby is None or (standby.generation, standby.pairing) != (event.generation, event.pairing):
        return
    if isinstance(event, StandbyDiscarded):
        if standby.standing is Standing.ENDING:
            _ended(turn, standby)
        return
    if standby.standing is not Standing.HELD:
        return
    if isinstance(event, StandbyFailed):
        about = {"workload": event.workload, "generation": event.generation, "host": turn.state.me}
        cause = turn.note("standby.failed", because=standby.because, text=event.reason, **about)
        _end(turn, replace(standby, stage=rec.StandbyStage.FAILED), event.reason, cause)
    elif isinstance(event, StandbyListening):
        if standby.stage is rec.StandbyStage.PREPARING or standby.address != event.address:
            turn.set_standby(replace(standby, stage=rec.StandbyStage.LISTENING, address=event.address, port=event.port))
    elif isinstance(event, PeerLost):
        if event.whole and standby.role is Role.STANDBY and not standby.lost:
            _lose(turn, standby, event.reason)
    elif standby.address:
        turn.set_standby(replace(standby, stage=_STAGES[type(event)]))


def _lose(turn: Turn, standby: Standby, reason: str) -> None:
    about = {"workload": standby.workload.name, "generation": standby.generation, "host": turn.state.me}
    cause = turn.note("primary.lost", text=reason, because=standby.because, **about)
    turn.set_standby(replace(standby, lost=reason or "it is silent", because=cause, asked_at=None))


def _ask_to_take_over(turn: Turn, standby: Standby, entry: Entry[rec.PlacementRecord]) -> None:
    """Ask once for each picture of the placement, and again when no answer came."""
    state, placed = turn.state, entry.record
    fresh = standby.asked_at is None or standby.asked_revision != entry.mod_revision
    if not fresh and state.at - (standby.asked_at or 0.0) < state.timing.renew_s * 2:
        return
    key = rec.PLACEMENTS + placed.workload
    reason = f"its standby took over from {placed.host}: {standby.lost}"
    record = succeeded(placed, state.mirror, state.me, standby.claim, reason, standby.because)
    asked = Transaction(
        (unchanged(key, entry.mod_revision), same_incarnation(rec.CLAIMS + state.me, standby.claim)),
        (Put(key, rec.encode(record)),),
    )
    turn.set_standby(replace(standby, asked_at=state.at, asked_revision=entry.mod_revision))
    turn.transact(Act.TAKE_OVER, placed.workload, asked, number=standby.pairing, because=standby.because)


def on_transacted(turn: Turn, event: Transacted, may_act: bool) -> None:
    """The store let this standby take over; what it refused is looked at again with the newest picture."""
    standby = turn.state.standbys.get(event.purpose.subject)
    if standby is None or standby.standing is not Standing.HELD or standby.pairing != event.purpose.number:
        return
    if event.outcome is Outcome.DONE and may_act:
        _win(turn, standby, standby.because)


def _win(turn: Turn, standby: Standby, because: str) -> None:
    """Go on as the primary of the next generation."""
    name, generation = standby.workload.name, standby.generation + 1
    cause = turn.note(
        "workload.taken_over", because=because, workload=name, generation=generation, host=turn.state.me,
        text=standby.lost,
    )  # fmt: skip
    turn.set_standby(replace(standby, standing=Standing.TAKING))
    turn.set(acted=turn.state.acted.set(name, generation))
    turn.set_reign(
        Reign(
            workload=standby.workload,
            generation=generation,
            claim=standby.claim,
            phase=Phase.PREPARING,
            statuses={module.name: ModuleStatus.RESTORING for module in standby.workload.modules},
            because=cause,
            adopting=True,
            link=Link(pairing=standby.pairing),
        )
    )
    turn.do(TakeOver(name, standby.generation, standby.pairing, generation, cause))


def forget(turn: Turn, workload: str) -> None:
    """It took over, or what came of that has ended: the reign is all that is left."""
    standby = turn.state.standbys.get(workload)
    if standby is not None and standby.standing is Standing.TAKING:
        turn.set(standbys=turn.state.standbys.delete(workload))


def discard(turn: Turn, standby: Standby, reason: str, because: str) -> None:
    """End it, for good in this pairing; does nothing when that is under way or done, or it has become a reign."""
    if standby.standing is Standing.HELD:
        _end(turn, standby, reason, because)


def discard_all(turn: Turn, reason: str, because: str) -> None:
    """End every standby here."""
    for _, standby in sorted(turn.state.standbys.items()):
        discard(turn, standby, reason, because)


def _end(turn: Turn, standby: Standby, reason: str, because: str) -> None:
    ending = replace(standby, standing=Standing.ENDING, reason=reason, because=because)
    turn.set_standby(ending)
    turn.do(DiscardStandby(standby.workload.name, standby.generation, standby.pairing, because))


def _ended(turn: Turn, standby: Standby) -> None:
    turn.set_standby(replace(standby, standing=Standing.ENDED, stage=rec.StandbyStage.FAILED))
    turn.save()


def report(turn: Turn) -> None:
    """Tell the store how far each standby has come, where its newest picture says otherwise."""
    state = turn.state
    for name, standby in sorted(state.standbys.items()):
        entry = state.mirror.placements.get(name)
        if entry is None or standby.standing is Standing.TAKING or not _names(entry.record, standby, state.me):
            continue
        since = standby.reporting_since
        if since is not None and state.at - since < state.timing.transact_s * 2:
            continue
        if state.mirror.revision < standby.reported_revision:
            continue
        stands = state.mirror.standbys.get(name)
        spoilt = rec.STANDBYS + name in state.mirror.bad
        if stands is not None and not spoilt and stands.record == _statement(state.me, standby, stands.record.because):
            continue
        _report(turn, standby, entry.mod_revision)


def _statement(me: str, standby: Standby, because: str) -> rec.StandbyRecord:
    return rec.StandbyRecord(
        workload=standby.workload.name,
        generation=standby.generation,
        pairing=standby.pairing,
        host=me,
        claim=standby.claim,
        stage=standby.stage,
        address=standby.address,
        port=standby.port,
        reason=standby.reason,
        because=because,
    )


def _report(turn: Turn, standby: Standby, placed_revision: int) -> None:
    name, me = standby.workload.name, turn.state.me
    statement = Put(rec.STANDBYS + name, rec.encode(_statement(me, standby, standby.because)))
    turn.set_standby(replace(standby, reporting_since=turn.state.at))
    asked = Transaction((unchanged(rec.PLACEMENTS + name, placed_revision),), (statement,))
    turn.transact(Act.STANDBY, name, asked, number=standby.pairing, because=standby.because)


def on_reported(turn: Turn, event: Transacted) -> None:
    """A statement was written, or is tried again from the newest picture."""
    standby = turn.state.standbys.get(event.purpose.subject)
    if standby is None or standby.pairing != event.purpose.number:
        return
    revision = event.revision if event.outcome is Outcome.DONE else 0
    reported_revision = max(revision, standby.reported_revision)
    turn.set_standby(replace(standby, reporting_since=None, reported_revision=reported_revision))


def adopt(turn: Turn, held: Held, alive: bool) -> None:
    """What an earlier agent's journal says of a standby: it goes on if it lives, else it has ended."""
    standby = Standby(
        held.workload, held.generation, held.pairing, held.claim, held.role, held.because, reason=held.reason
    )
    known = turn.state.mirror.standbys.get(held.workload.name)
    if not alive:
        reason = held.reason or "it had ended when its agent started again"
        standby = replace(standby, standing=Standing.ENDED, stage=rec.StandbyStage.FAILED, reason=reason)
    elif known is not None and known.record.stage in rec.REACHABLE:
        said = known.record
        mine = (said.generation, said.pairing, said.host, said.claim)
        if mine == (standby.generation, standby.pairing, turn.state.me, standby.claim):
            standby = replace(standby, stage=said.stage, address=said.address, port=said.port)
    turn.set_standby(standby)


def _adopting(turn: Turn, workload: str, generation: int) -> Reign | None:
    """The reign that is just taking over at that generation, if there is one."""
    reign = turn.state.reigns.get(workload)
    if reign is None or not reign.adopting or reign.phase is not Phase.PREPARING or reign.generation != generation:
        return None
    return reign


def on_took_over(turn: Turn, event: TookOver) -> None:
    """The machine runs here now."""
    reign = _adopting(turn, event.workload, event.generation)
    if reign is None:
        return
    about = {"workload": event.workload, "generation": event.generation}
    cause = turn.note("workload.running", because=reign.because, **about)
    turn.set_reign(
        replace(
            reign,
            phase=Phase.ACTIVE,
            statuses=dict.fromkeys(reign.statuses, ModuleStatus.RUNNING),
            started=frozenset(reign.statuses),
            was_running=True,
            because=cause,
        )
    )
    forget(turn, event.workload)
    turn.save()


def on_take_over_failed(turn: Turn, event: TakeOverFailed) -> None:
    """It won the store for nothing: its disk is what is left, and the leader starts it from there."""
    reign = _adopting(turn, event.workload, event.generation)
    if reign is None:
        return
    about = {"workload": event.workload, "generation": event.generation}
    cause = turn.note("takeover.failed", because=reign.because, text=event.reason, **about)
    reason = f"taking over failed: {event.reason}"
    turn.set_reign(replace(reign, phase=Phase.STOPPING, final=rec.Stage.FAILED, reason=reason, because=cause))
    turn.do(TearDown(event.workload, event.generation, cause))
