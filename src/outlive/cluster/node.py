"""The node machine: what every host does for its own workloads, claim and signs of life.

`step` is the only way in. It owns no policy about other hosts (that is `leader`); it follows the placements in the
store, within its claim, and makes known how its modules are. Each event is one turn: the rule for the event, then the
store's orders are followed, then whatever changed is reported and sent.
"""

from bisect import bisect
from dataclasses import replace
from itertools import product

from . import checkpointing, isolation, keeping, pairing, reigns, session, standing_by
from .commands import Act, Command, Role, SendHeartbeat, SetDeadline, WriteSlot
from .events import (
    AgentStarted,
    CheckpointEnded,
    DatastoreChanged,
    Event,
    GuardFired,
    GuardLost,
    GuardReady,
    HeartbeatReceived,
    HeartbeatsRepeated,
    LeaseGranted,
    LeaseRefused,
    Migrated,
    MigrationFailed,
    ModuleChanged,
    PackageDamaged,
    PackagesHeld,
    PackageStep,
    Paired,
    PeerHeard,
    PeerLost,
    Prepared,
    PrepareFailed,
    ProbeAnswered,
    StandbyDiscarded,
    StandbyFailed,
    StandbyListening,
    StandbySeeding,
    StandbyWhole,
    StoreMoved,
    TakeOverFailed,
    Tick,
    TookOver,
    TornDown,
    Transacted,
)
from .heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from .host import Host
from .mirror import Mirror
from .node_state import Link, NodeState, Phase, Reign, Session, Turn
from .records import OPERATIONS, PLACEMENTS, REPORTS, STANDBYS, WORKLOADS, Stage
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
        _follow(turn)
    if _moves_operations(turn, event):
        checkpointing.follow(turn)
    if isinstance(event, Tick | AgentStarted):
        keeping.follow(turn)
    if turn.state.depot is not None:
        keeping.report(turn, session.in_force(turn))
    _signs_of_life(turn, due=isinstance(event, Tick))
    return turn.state, tuple(turn.commands)


def _follow(turn: Turn) -> None:
    """Do what the store's orders, and what has happened since, make due; then say how far it is."""
    may_act = session.in_force(turn)
    reigns.follow(turn)
    standing_by.follow(turn, may_act)
    if may_act:
        reigns.begin(turn)
    pairing.follow(turn, may_act)
    reigns.report(turn)
    standing_by.report(turn)


_IDLE = (
    LeaseGranted | LeaseRefused | HeartbeatReceived | HeartbeatsRepeated | PeerHeard | ProbeAnswered | DatastoreChanged
    | GuardReady | GuardLost | GuardFired | AgentStarted | CheckpointEnded | PackageStep | PackagesHeld
    | PackageDamaged
)  # fmt: skip
"""After these neither orders nor reports are due that were not before."""

_FOLLOWED = (PLACEMENTS, WORKLOADS, REPORTS, STANDBYS)


def _moves_reigns(event: Event) -> bool:
    """Whether orders or reports may be due after it; in a large cluster the store moves mostly with others' claims."""
    if isinstance(event, StoreMoved) and event.changed is not None:
        return any(key.startswith(_FOLLOWED) for key in event.changed)
    return not isinstance(event, _IDLE)


def _moves_operations(turn: Turn, event: Event) -> bool:
    """Whether an operation may have come, or have to be closed."""
    if isinstance(event, StoreMoved):
        return event.changed is None or any(key.startswith(OPERATIONS) for key in event.changed)
    return isinstance(event, AgentStarted) or (isinstance(event, Tick) and bool(turn.state.checkpoints))


def _dispatch(turn: Turn, event: Event) -> None:
    match event:
        case Tick():
            turn.set(load=event.load, sequence=max(event.sequence, turn.state.sequence))
            session.advance(turn)
            isolation.watch(turn)
        case StoreMoved(mirror=mirror):
            before = turn.state.mirror
            _see(turn, mirror)
            keeping.notice(turn, before, event.changed)
            if before.policies is not mirror.policies:
                isolation.on_policies(turn)
        case HeartbeatReceived(heartbeat=heartbeat):
            isolation.heard(turn, heartbeat.host)
        case HeartbeatsRepeated(repeats=repeats):
            isolation.heard_again(turn, repeats)
        case PeerHeard(host=host) | ProbeAnswered(target=host):
            isolation.heard(turn, host)
        case Transacted(purpose=purpose) if purpose.act is Act.REPORT:
            reigns.on_reported(turn, event)
        case Transacted(purpose=purpose) if purpose.act in (Act.PAIRED, Act.ALONE, Act.MOVED):
            pairing.on_transacted(turn, event)
        case Transacted(purpose=purpose) if purpose.act is Act.TAKE_OVER:
            standing_by.on_transacted(turn, event, session.in_force(turn))
        case Transacted(purpose=purpose) if purpose.act is Act.STANDBY:
            standing_by.on_reported(turn, event)
        case Transacted(purpose=purpose) if purpose.act is Act.DEPOT:
            keeping.on_reported(turn, event)
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
        case PackageStep():
            keeping.on_step(turn, event)
        case PackagesHeld():
            keeping.on_held(turn, event)
        case PackageDamaged(package=package, reason=reason):
            turn.note("package.damaged", host=turn.state.me, text=f"{package}: {reason}")
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
        case _:
            _dispatch_of_pairs(turn, event)


def _dispatch_of_pairs(turn: Turn, event: Event) -> None:
    match event:
        case Paired():
            pairing.on_paired(turn, event)
        case PeerLost(role=Role.PRIMARY) | MigrationFailed():
            pairing.on_peer_lost(turn, event)
        case Migrated():
            pairing.on_migrated(turn, event)
        case TookOver():
            standing_by.on_took_over(turn, event)
        case TakeOverFailed():
            standing_by.on_take_over_failed(turn, event)
        case CheckpointEnded():
            checkpointing.on_ended(turn, event)
        case StandbyListening() | StandbySeeding() | StandbyWhole() | StandbyFailed() | StandbyDiscarded() | PeerLost():
            standing_by.on_told(turn, event)
        case _:
            pass


def _see(turn: Turn, mirror: Mirror) -> None:
    """Take in a newer picture of the store."""
    if mirror.hosts is not turn.state.mirror.hosts:
        turn.set(peers=tuple(sorted(name for name in mirror.hosts if name != turn.state.me)))
    turn.set(mirror=mirror)


def _adopt(turn: Turn, event: AgentStarted) -> None:
    turn.set(
        run=event.run,
        predecessor=event.journal.run if event.journal is not None else "",
        listening_since=event.at,
        session=Session(guarded=True),
    )
    _see(turn, event.mirror)
    keeping.notice(turn, event.mirror, None)
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
        if held.role is not Role.PRIMARY:
            standing_by.adopt(turn, held, held.ended is None and held.workload.name in event.alive)
            continue
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
            link=Link(pairing=held.pairing, told=held.told, adopted=True),
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
        state.me in state.mirror.maintenance and state.mirror.in_maintenance(state.me),
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
    me, others, witnesses = turn.state.me, turn.state.peers, turn.state.timing.witnesses
    after = bisect(others, me)
    ring = others[after : after + witnesses] + others[: min(after, witnesses)]
    chosen = [me, *ring[:witnesses]]
    leader = turn.state.mirror.leader
    if leader is not None and leader.record.host not in chosen:
        chosen.append(leader.record.host)
    return tuple(chosen)


def holds_nothing(state: NodeState) -> bool:
    """Whether nothing is held here any more: what an orderly shutdown of the host waits for."""
    return session.holds_nothing(state)
