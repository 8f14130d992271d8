"""The workloads that a host acts for: begun, started in order, restored, stopped, reported.

A reign follows the placement that stands in the store: the same generation, the same claim. Modules start in
layers by `after`. A failed module is only reported; the leader orders its restoration (US 9,201,744, claim 1).
Whatever ends a reign, it is torn down completely before heartbeats call it stopped, and it never starts again.
"""

from dataclasses import replace

from . import records as rec
from . import standing_by
from .commands import Act, Announce, Prepare, StartModule, TearDown
from .events import (
    GuardFired,
    ModuleChanged,
    Outcome,
    Prepared,
    PrepareFailed,
    TornDown,
    Transacted,
)
from .heartbeat import ModuleStatus
from .mirror import Entry
from .node_state import Link, Phase, Reign, Standing, Turn
from .transaction import Put, Transaction, unchanged
from .workload import start_order

CUT_OFF = "this host is cut off from every other"
BY_GUARD = "the guard stopped it at the claim's deadline"


def follow(turn: Turn) -> None:
    """Make the reigns follow the placements in the store."""
    state = turn.state
    for name, reign in sorted(state.reigns.items()):
        _follow_known(turn, reign, state.mirror.placements.get(name))


def begin(turn: Turn) -> None:
    """Begin what the store places here; only while the claim is in force."""
    state = turn.state
    me, incarnation = state.host.name, state.session.incarnation
    placements = (state.mirror.placements[name].record for name in state.mirror.there.get(me, ()))
    mine = {each.workload: each for each in placements if each.host == me and each.claim == incarnation}
    for name, placed in sorted(mine.items()):
        known = turn.state.reigns.get(name)
        if name in turn.state.standbys:
            continue  # it takes over, or is discarded first
        if known is None or (known.phase is Phase.ENDED and known.generation < placed.generation):
            _begin(turn, placed)


def _follow_known(turn: Turn, reign: Reign, entry: Entry[rec.PlacementRecord] | None) -> None:
    if entry is None:
        # A picture that was never read says nothing.
        read = turn.state.mirror.revision > 0
        name = reign.workload.name
        if read and reign.phase is Phase.ENDED and name not in turn.state.mirror.workloads:
            acted = turn.state.acted
            turn.set(reigns=turn.state.reigns.delete(name), acted=acted.delete(name) if name in acted else acted)
        return
    placed = entry.record
    mine = placed.host == turn.state.host.name and placed.claim == reign.claim
    if placed.generation > reign.generation or (placed.generation == reign.generation and not mine):
        if reign.phase is Phase.ENDED and placed.host != turn.state.host.name:
            turn.set(reigns=turn.state.reigns.delete(reign.workload.name))
        else:
            reason = placed.reason if placed.took_over else "the leader placed it anew"
            stop(turn, reign, rec.Stage.STOPPED, reason, placed.because)
    elif placed.generation == reign.generation:
        if placed.order is rec.Order.STOP:
            stop(turn, reign, rec.Stage.STOPPED, placed.reason, placed.because)
        elif reign.phase is Phase.ACTIVE and placed.standby is None and placed.moving_to is None:
            # What a standby may go on with at this very moment must not begin anew here.
            _restore(turn, reign, placed)


def _begin(turn: Turn, placed: rec.PlacementRecord) -> None:
    name = placed.workload
    acted = turn.state.acted.get(name, 0)
    entry = turn.state.mirror.workloads.get(name)
    if entry is None:
        return
    workload = entry.record.workload
    turn.set(acted=turn.state.acted.set(name, max(acted, placed.generation)))
    reign = Reign(
        workload=workload,
        generation=placed.generation,
        claim=placed.claim,
        phase=Phase.PREPARING,
        statuses={module.name: ModuleStatus.RESTORING for module in workload.modules},
        restored=dict(placed.restores),
        because=placed.because,
        link=Link(pairing=placed.pairing),
    )
    if placed.generation <= acted:
        # A hand removed the placement, and generations began anew: said, so that the leader goes on to the next.
        turn.set_reign(replace(reign, phase=Phase.ENDED, reason=f"generation {acted} was here already"))
        turn.save()
        return
    if placed.order is rec.Order.STOP:
        turn.set_reign(replace(reign, phase=Phase.ENDED, reason="it was stopped before it began"))
        turn.save()
        return
    if turn.state.isolated and turn.state.mirror.policies.record.stops_when_isolated(workload):
        turn.set_reign(replace(reign, phase=Phase.ENDED, reason=CUT_OFF))
        turn.save()
        return
    if placed.took_over:
        # Begun anew it would not be what was taken over: the leader decides that, knowing it.
        gone = replace(reign, phase=Phase.ENDED, final=rec.Stage.FAILED, reason="what it was to take over is gone")
        turn.set_reign(gone)
        turn.save()
        return
    turn.set_reign(reign)
    turn.save()
    turn.do(Prepare(workload, placed.generation, placed.because, placed.resume_at))


def _current(turn: Turn, name: str, generation: int, *phases: Phase) -> Reign | None:
    reign = turn.state.reigns.get(name)
    if reign is None or reign.generation != generation or reign.phase not in phases:
        return None
    return reign


def on_prepared(turn: Turn, event: Prepared) -> None:
    """Ready to act: start the first modules."""
    reign = _current(turn, event.workload, event.generation, Phase.PREPARING)
    if reign is None:
        return
    cause = turn.note("workload.prepared", because=reign.because, workload=event.workload, generation=event.generation)
    reign = replace(reign, phase=Phase.ACTIVE, because=cause)
    turn.set_reign(reign)
    _start_ready(turn, reign)


def on_prepare_failed(turn: Turn, event: PrepareFailed) -> None:
    """It cannot act here: final for this generation, the leader tries elsewhere."""
    reign = _current(turn, event.workload, event.generation, Phase.PREPARING)
    if reign is None:
        return
    reason = f"{event.step}: {event.reason}"
    cause = turn.note(
        "workload.refused",
        because=reign.because,
        workload=event.workload,
        generation=event.generation,
        text=reason,
    )
    reign = replace(reign, phase=Phase.STOPPING, final=rec.Stage.FAILED, reason=reason, because=cause)
    turn.set_reign(reign)
    turn.do(TearDown(event.workload, event.generation, cause))


def _start_ready(turn: Turn, reign: Reign) -> None:
    running = {name for name, status in reign.statuses.items() if status is ModuleStatus.RUNNING}
    for layer in start_order(reign.workload.modules):
        for name in layer:
            if name not in reign.started and set(reign.workload.module(name).after) <= running:
                reign = replace(reign, started=reign.started | {name})
                turn.do(StartModule(reign.workload.name, reign.generation, name, reign.because))
    turn.set_reign(reign)


def on_module(turn: Turn, event: ModuleChanged) -> None:
    """A module runs, or failed."""
    reign = _current(turn, event.workload, event.generation, Phase.ACTIVE)
    if reign is None or event.module not in reign.statuses or reign.statuses[event.module] is event.status:
        return
    kind = {ModuleStatus.RUNNING: "module.running", ModuleStatus.FAILED: "module.failed"}.get(event.status)
    if kind is None:
        return
    cause = turn.note(
        kind,
        because=reign.because,
        workload=event.workload,
        generation=event.generation,
        module=event.module,
        text=event.reason,
    )
    reign = replace(reign, statuses={**reign.statuses, event.module: event.status}, because=cause)
    if event.status is ModuleStatus.FAILED:
        reign = replace(reign, reason=f"module {event.module} failed: {event.reason}")
    if reign.stage() is rec.Stage.RUNNING:
        reign = replace(reign, reason="")
    if reign.stage() is rec.Stage.RUNNING and not reign.was_running:
        cause = turn.note("workload.running", because=cause, workload=event.workload, generation=event.generation)
        reign = replace(reign, was_running=True, because=cause)
        turn.do(Announce(event.workload, event.generation, cause))
    turn.set_reign(reign)
    _start_ready(turn, reign)


def _restore(turn: Turn, reign: Reign, placed: rec.PlacementRecord) -> None:
    due = sorted(name for name, count in placed.restores.items() if count > reign.restored.get(name, 0))
    for name in due:
        if name not in reign.statuses:
            continue
        reign = replace(
            reign,
            restored={**reign.restored, name: placed.restores[name]},
            statuses={**reign.statuses, name: ModuleStatus.RESTORING},
            started=reign.started | {name},
            because=placed.because,
        )
        turn.set_reign(reign)
        turn.do(StartModule(reign.workload.name, reign.generation, name, placed.because))
    if due:
        turn.save()


def stop(turn: Turn, reign: Reign, final: rec.Stage, reason: str, because: str) -> None:
    """Tear it down, for good at this generation; does nothing when that is under way or done."""
    if reign.phase in (Phase.STOPPING, Phase.ENDED):
        return
    name = reign.workload.name
    cause = turn.note("workload.stopping", because=because, workload=name, generation=reign.generation, text=reason)
    turn.set_reign(replace(reign, phase=Phase.STOPPING, final=final, reason=reason, because=cause))
    turn.do(TearDown(name, reign.generation, cause))


def stop_all(turn: Turn, final: rec.Stage, reason: str, because: str) -> None:
    """Tear down everything here."""
    standing_by.discard_all(turn, reason, because)
    for _, reign in sorted(turn.state.reigns.items()):
        stop(turn, reign, final, reason, because)


def stop_isolated(turn: Turn, because: str) -> None:
    """Tear down what is to stop when this host is cut off; whether a pair's host goes on is the store's to say."""
    policies = turn.state.mirror.policies.record
    for _, reign in sorted(turn.state.reigns.items()):
        if policies.stops_when_isolated(reign.workload) and not reign.workload.is_hot:
            stop(turn, reign, rec.Stage.STOPPED, CUT_OFF, because)


def on_guard_fired(turn: Turn, event: GuardFired) -> None:
    """The guard was faster: clear up behind it."""
    reign = _current(turn, event.workload, event.generation, Phase.PREPARING, Phase.ACTIVE, Phase.STOPPING)
    standby = turn.state.standbys.get(event.workload)
    if standby is not None and standby.generation == event.generation:
        standing_by.discard(turn, standby, BY_GUARD, standby.because)
        if standby.standing is Standing.TAKING:
            reign = turn.state.reigns.get(event.workload)
    if reign is None:
        return
    cause = turn.note("guard.fired", workload=event.workload, generation=event.generation, host=turn.state.host.name)
    stop(turn, reign, rec.Stage.STOPPED, BY_GUARD, cause)


def on_torn_down(turn: Turn, event: TornDown) -> None:
    """Nothing of it runs here any more: now it may be called stopped."""
    reign = _current(turn, event.workload, event.generation, Phase.STOPPING)
    if reign is None:
        return
    cause = turn.note(
        f"workload.{reign.final}",
        because=reign.because,
        workload=event.workload,
        generation=event.generation,
        text=reign.reason,
    )
    turn.set_reign(replace(reign, phase=Phase.ENDED, because=cause))
    standing_by.forget(turn, event.workload)
    turn.save()


def report(turn: Turn) -> None:
    """Tell the store how far each reign has come, where its newest picture says otherwise."""
    for _, reign in sorted(turn.state.reigns.items()):
        if _report_due(turn, reign):
            _report(turn, reign)


def _report_due(turn: Turn, reign: Reign) -> bool:
    state, name = turn.state, reign.workload.name
    since, placed = reign.reporting_since, state.mirror.placements.get(name)
    is_anew = reign.refused_on and placed is not None and placed.mod_revision != reign.refused_on
    if since is not None and not is_anew and state.at - since < state.timing.transact_s * 2:
        return False
    if state.mirror.revision < reign.reported_revision:
        return False
    if placed is None or placed.record.generation != reign.generation or placed.record.host != state.host.name:
        return False
    stands = state.mirror.reports.get(name)
    if rec.REPORTS + name in state.mirror.bad:
        return True
    return stands is None or stands.record != _statement(turn, reign, stands.record.because)


def _statement(turn: Turn, reign: Reign, because: str) -> rec.ReportRecord:
    return rec.ReportRecord(
        workload=reign.workload.name,
        generation=reign.generation,
        host=turn.state.host.name,
        claim=reign.claim,
        stage=reign.stage(),
        reason=reign.reason,
        because=because,
    )


def _report(turn: Turn, reign: Reign) -> None:
    name = reign.workload.name
    stands = turn.state.mirror.placements[name].mod_revision
    placement = unchanged(rec.PLACEMENTS + name, stands)
    statement = Put(rec.REPORTS + name, rec.encode(_statement(turn, reign, reign.because)))
    turn.set_reign(replace(reign, reporting_since=turn.state.at, reporting_on=stands, refused_on=0))
    turn.transact(
        Act.REPORT,
        name,
        Transaction((placement,), (statement,)),
        number=reign.generation,
        because=reign.because,
    )


def on_reported(turn: Turn, event: Transacted) -> None:
    """A report ended; one that was not written is tried again, and one that was refused from a newer picture."""
    reign = turn.state.reigns.get(event.purpose.subject)
    if reign is None or reign.generation != event.purpose.number:
        return
    if event.outcome is Outcome.REFUSED:
        # From the same picture it would be refused again, as fast as the store answers.
        turn.set_reign(replace(reign, refused_on=reign.reporting_on))
        return
    revision = event.revision if event.outcome is Outcome.DONE else 0
    turn.set_reign(replace(reign, reporting_since=None, reported_revision=max(revision, reign.reported_revision)))
