"""The node machine: what every host does for its own workloads, claim and signs of life.

`step` is the only way in. It owns no policy about other hosts (that is `leader`); it follows the placements in the
store, within its claim, and makes known how its modules are. Each event is one turn: the rule for the event, then the
store's orders are followed, then whatever changed is reported and sent.
"""

from dataclasses import replace
from itertools import product

from . import isolation, reigns, session
from .commands import Act, Command, SendHeartbeat, SetDeadline, WriteSlot
from .events import (
    AgentStarted,
    DatastoreChanged,
    Event,
    GuardFired,
    GuardLost,
    GuardReady,
    HeartbeatReceived,
    LeaseGranted,
    LeaseRefused,
    ModuleChanged,
    PeerHeard,
    Prepared,
    PrepareFailed,
    ProbeAnswered,
    StoreMoved,
    Tick,
    TornDown,
    Transacted,
)
from .heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from .host import Host
from .node_state import NodeState, Phase, Reign, Session, Turn
from .records import PLACEMENTS, REPORTS, WORKLOADS, Stage
from .timing import Timing


def start(host: Host, boot_id: str, cluster_id: str, timing: Timing) -> NodeState:
    """The state before the first event, which must be AgentStarted."""
    return NodeState(me=host.name, host=host, boot_id=boot_id, cluster_id=cluster_id, timing=timing)


def step(state: NodeState, event: Event) -> tuple[NodeState, tuple[Command, ...]]:
    """Deal with one event: the next state, and what is to be done, in order.

    Raises nothing for any sequence of well-formed events; events of machines that are not the node's change nothing.
    """
    turn = Turn(state)
    turn.set(at=max(state.at, event.at))
    if isinstance(event, Transacted):
        _dispatch(turn, event)
        session.expire(turn)
    else:
        # After a pause any event may come first, and nothing may be begun on a claim that is over.
        session.expire(turn)
        _dispatch(turn, event)
    if _moves_reigns(event):
        reigns.follow(turn, session.in_force(turn))
        reigns.report(turn)
    _signs_of_life(turn, due=isinstance(event, Tick))
    return turn.state, tuple(turn.commands)


def _moves_reigns(event: Event) -> bool:
    """Whether orders or reports may be due after it; in a large cluster the store moves mostly with others' claims."""
    if isinstance(event, StoreMoved) and event.changed is not None:
        return any(key.startswith((PLACEMENTS, WORKLOADS, REPORTS)) for key in event.changed)
    return isinstance(event, Tick | StoreMoved | TornDown | Transacted | Prepared | PrepareFailed | ModuleChanged)


def _dispatch(turn: Turn, event: Event) -> None:
    match event:
        case Tick():
            turn.set(load=event.load, sequence=max(event.sequence, turn.state.sequence))
            session.advance(turn)
            isolation.watch(turn)
        case StoreMoved(mirror=mirror):
            turn.set(mirror=mirror)
        case HeartbeatReceived(heartbeat=heartbeat):
            isolation.heard(turn, heartbeat.host)
        case PeerHeard(host=host) | ProbeAnswered(target=host):
            isolation.heard(turn, host)
        case Transacted(purpose=purpose) if purpose.act is Act.REPORT:
            reigns.on_reported(turn, event)
        case Transacted():
            session.on_transacted(turn, event)
        case LeaseGranted():
            session.on_lease(turn, event)
        case LeaseRefused():
            session.on_lease_refused(turn)
        case DatastoreChanged(reachable=reachable):
            turn.set(datastore_reachable=reachable)
        case Prepared():
            reigns.on_prepared(turn, event)
        case PrepareFailed():
            reigns.on_prepare_failed(turn, event)
        case ModuleChanged():
            reigns.on_module(turn, event)
        case TornDown():
            reigns.on_torn_down(turn, event)
        case GuardFired():
            reigns.on_guard_fired(turn, event)
        case GuardReady():
            turn.set_session(guarded=True)
            turn.do(SetDeadline(turn.state.session.deadline_at))
        case GuardLost(reason=reason):
            session.lose(turn, reason)
            turn.set_session(guarded=False)
        case AgentStarted():
            _adopt(turn, event)


def _adopt(turn: Turn, event: AgentStarted) -> None:
    turn.set(
        run=event.run,
        predecessor=event.journal.run if event.journal is not None else "",
        mirror=event.mirror,
        listening_since=event.at,
        session=Session(guarded=True),
    )
    turn.note("agent.started", host=turn.state.host.name)
    journal = event.journal
    if journal is None:
        turn.save()
        return
    turn.set_session(
        lease=journal.lease,
        incarnation=journal.incarnation,
        deadline_at=event.guard_deadline_at,
        renew_at=event.at,
    )
    seen = event.mirror.claimed(turn.state.host.name)
    if seen is not None and seen.incarnation == journal.incarnation:
        turn.set_session(sequence=seen.record.sequence)
    for held in journal.held:
        alive = event.alive.get(held.workload.name) if held.ended is None else None
        statuses = {
            module.name: (alive or {}).get(module.name, ModuleStatus.FAILED) for module in held.workload.modules
        }
        cause, reason = held.because, held.reason
        if held.ended is None:
            kind = "workload.adopted" if alive else "workload.lost"
            about = {"workload": held.workload.name, "generation": held.generation}
            cause = turn.note(kind, because=cause, **about)
            reason = "" if alive else "it had ended when its agent started again"
        reign = Reign(
            workload=held.workload,
            generation=held.generation,
            claim=held.claim,
            phase=Phase.ACTIVE if alive else Phase.ENDED,
            statuses=statuses,
            started=frozenset(name for name in statuses if name in (alive or {})),
            restored=held.restored,
            was_running=bool(alive),
            final=held.ended or Stage.STOPPED,
            reason=reason,
            because=cause,
        )
        turn.set_reign(reign)
        turn.set(acted=turn.state.acted.set(held.workload.name, held.generation))
    turn.save()
    session.advance(turn)


def _signs_of_life(turn: Turn, *, due: bool) -> None:
    state = turn.state
    last, flags = state.beat, _flags(turn)
    news = state.run != "" and (
        last is None
        or state.reigns is not state.shown
        or last.flags != flags
        or last.claim != state.session.incarnation
    )
    beat_due = due and state.at - state.beat_at >= state.timing.heartbeat_s - 0.01
    slot_due = due and state.at - state.slot_at >= state.timing.slot_s - 0.01
    if not (news or beat_due or slot_due):
        return
    heartbeat = _heartbeat(turn, flags)
    if news:
        news = last is None or replace(last, load=heartbeat.load) != heartbeat
        turn.set(beat=heartbeat, shown=state.reigns)
    if news or beat_due:
        turn.set(beat_at=state.at)
        turn.do(SendHeartbeat(heartbeat, _recipients(turn)))
    if news or slot_due:
        turn.set(slot_at=state.at)
        turn.do(WriteSlot(heartbeat, table(turn.state)))


def table(state: NodeState) -> ModuleTable:
    """What the bits of this host's heartbeats stand for."""
    return ModuleTable(
        tuple(
            ModuleKey(name, reign.generation, module.name)
            for name, reign in sorted(state.reigns.items())
            for module in reign.workload.modules
        )
    )


def _flags(turn: Turn) -> Flags:
    state = turn.state
    said = (
        state.isolated,
        state.host.maintenance,
        session.store_reachable(turn),
        state.datastore_reachable,
    )
    return _FLAGS[said]


# Looked up and not added up: this runs at every event, and the operators of enums are slow.
_TELLING = (Flags.ISOLATED, Flags.MAINTENANCE, Flags.STORE_REACHABLE, Flags.DATASTORE_REACHABLE)
_FLAGS = {
    said: Flags(sum(flag.value for flag, holds in zip(_TELLING, said, strict=True) if holds))
    for said in product((False, True), repeat=len(_TELLING))
}


def _heartbeat(turn: Turn, flags: Flags) -> Heartbeat:
    state, last = turn.state, turn.state.beat
    if last is not None and state.reigns is state.shown:
        digest, statuses = last.table, last.statuses
    else:
        digest = table(state).digest()
        statuses = tuple(
            reign.shown(module.name) for _, reign in sorted(state.reigns.items()) for module in reign.workload.modules
        )
    return Heartbeat(
        cluster=state.cluster_id,
        host=state.me,
        boot_id=state.boot_id,
        sequence=0,
        flags=flags,
        load=state.load,
        claim=state.session.incarnation,
        table=digest,
        statuses=statuses,
    )


def _recipients(turn: Turn) -> tuple[str, ...]:
    """This host's own leader machine, the leader, and the next few hosts in the ring of names.

    Those are witnesses: whoever of them leads next knows what the leader before it knew.
    """
    others = isolation.peers(turn)
    me = turn.state.me
    ring = [name for name in others if name > me] + [name for name in others if name < me]
    chosen = [me, *ring[: turn.state.timing.witnesses]]
    leader = turn.state.mirror.leader
    if leader is not None and leader.record.host not in chosen:
        chosen.append(leader.record.host)
    return tuple(chosen)


def holds_nothing(state: NodeState) -> bool:
    """Whether nothing is held here any more: what an orderly shutdown of the host waits for."""
    return all(reign.phase is Phase.ENDED for reign in state.reigns.values())
