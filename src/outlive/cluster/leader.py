"""The leader machine: every host runs it, and the one that holds the leader's key decides for the cluster.

`step` is the only way in. Out of office it gathers signs of life and campaigns when there is no leader; in office it
judges the hosts and then looks at every workload that may need something. All that it decides is written by
transactions that hold only while it leads; who was replaced unaware can do no harm.
"""

from immutables import Map

from . import copies, courses, draining, fencing, judging, operations, retrying, waiting
from . import records as rec
from .commands import Act, Command, WriteProtected
from .events import (
    AgentStarted,
    Event,
    Fenced,
    GuardLost,
    GuardReady,
    HeartbeatReceived,
    HeartbeatsRepeated,
    Outcome,
    ProbeAnswered,
    SelfIsolated,
    SlotChanged,
    StoreMoved,
    TableLearned,
    Tick,
    Transacted,
)
from .heartbeat import Flags
from .leader_state import LeaderState, Turn
from .lease import silent_for_s
from .tally import EMPTY
from .timing import Timing
from .transaction import Delete, Put, Transaction, absent, same_incarnation, unchanged

_DRAINED_BY = (rec.MAINTENANCE, rec.OPERATIONS, rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS, rec.STANDBYS)
LOOK_AT_ALL_S = 1.0
PROTECTED_S = 2.0
LATE_TICKS = 5
"""So many late ticks, one soon after the other, are no passing load."""
EXCUSED_S = 30.0
"""So long a late host leads that nobody took the office from; then it is offered again."""


def start(host: str, timing: Timing) -> LeaderState:
    """The state before the first event, which must be AgentStarted."""
    return LeaderState(me=host, timing=timing)


def step(state: LeaderState, event: Event) -> tuple[LeaderState, tuple[Command, ...]]:
    """Deal with one event: the next state, and what is to be done, in order.

    Raises nothing for any sequence of well-formed events; events of machines that are not the leader's change nothing.
    """
    turn = Turn(state)
    turn.set(at=max(state.at, event.at))
    match event:
        case Tick():
            _tick(turn)
        case StoreMoved():
            _store_moved(turn, event)
        case HeartbeatReceived():
            judging.heartbeat(turn, event.heartbeat)
        case HeartbeatsRepeated(repeats=repeats):
            judging.repeated(turn, repeats)
        case SlotChanged():
            judging.slot(turn, event.heartbeat)
        case ProbeAnswered(target=target):
            judging.answered(turn, target)
        case TableLearned():
            judging.table(turn, event)
        case SelfIsolated(isolated=isolated):
            _fit(turn, isolated="this host is cut off from every other" if isolated else "")
        case GuardLost(reason=reason):
            _fit(turn, unguarded=reason)
        case GuardReady():
            _fit(turn, unguarded="")
        case Transacted():
            _transacted(turn, event)
        case Fenced():
            fencing.ended(turn, event)
        case AgentStarted():
            turn.set(run=event.run, listening_since=event.at, methods=event.fencing)
            judging.see(turn, event.mirror, None)
            _notice_office(turn)
        case _:
            pass
    return turn.state, tuple(turn.commands)


def in_office(state: LeaderState) -> bool:
    """Whether this host leads, as far as it knows."""
    return state.office_since is not None


def _fit(turn: Turn, **unfit: str) -> None:
    """Whether this host may lead has changed: one that is cut off, or must not act itself, leaves the office.

    If it is fit again before the store has heard of that, it stays, and looks at what it has passed over meanwhile.
    """
    before = _unfitness(turn)
    turn.set(**unfit)
    reason = _unfitness(turn)
    if reason and in_office(turn.state):
        turn.note("leader.resigned", host=turn.state.me, text=reason)
    elif before and in_office(turn.state):
        turn.set(drains_due=True, copies_due=True)
        courses.wake_all(turn)
    _resign(turn)


def _unfitness(turn: Turn) -> str:
    state = turn.state
    return state.isolated or state.unguarded or state.deaf or ("" if state.excused else state.late)


def _is_unfit(turn: Turn) -> bool:
    return bool(_unfitness(turn))


def _mind_lateness(turn: Turn) -> None:
    """A leader that is late again and again begins to listen again and again, and can accuse nobody: let another lead.

    If no other does, for as long as a claim lasts, a late one is better than none, until another may be
    timely again.
    """
    state = turn.state
    since = None if state.mirror.leader is not None else state.leaderless_since or state.at
    turn.set(leaderless_since=since)
    if not state.late:
        if state.late_ticks >= LATE_TICKS:
            alone = in_office(state) and not turn.first_alive(1, state.me)
            turn.set(excused=alone, excused_until=state.at)
            _fit(turn, late=f"{state.late_ticks} ticks came late in short order, so that it cannot tell who is silent")
    elif state.at - state.late_at >= judging.TIMELY_S:
        turn.set(excused=False)
        _fit(turn, late="")
    elif state.excused:
        if _is_excuse_over(turn):
            turn.set(excused=False)
            _fit(turn, late=state.late)
    elif since is not None and state.at - since >= state.timing.claim_ttl_s:
        turn.set(excused=True, excused_until=state.at + EXCUSED_S)


def _is_excuse_over(turn: Turn) -> bool:
    """Whether another leads, or could: who was excused for being alone gives way to the first that is there."""
    state = turn.state
    if not in_office(state):
        return state.mirror.leader is not None
    return state.at >= state.excused_until and bool(turn.first_alive(1, state.me))


def _mind_deafness(turn: Turn) -> None:
    """A host whose renewals succeed, and whose picture does not move, would hold the office and decide nothing."""
    state = turn.state
    newest = state.signs.get(state.me).newest()
    if newest is None or not newest.claim or Flags.STORE_REACHABLE not in newest.flags:
        turn.set(deaf_since=None)
        return
    own = state.mirror.claimed(state.me)
    if own is not None and own.incarnation == newest.claim and _sees_the_store(turn):
        turn.set(deaf_since=None)
        if state.deaf:
            _fit(turn, deaf="")
        return
    if state.deaf_since is None:
        turn.set(deaf_since=state.at)
    elif not state.deaf and state.at - state.deaf_since >= state.timing.renew_s * 2:
        _fit(turn, deaf="the store answers this host, but tells it of no change")


def _tick(turn: Turn) -> None:
    judging.mind_own_lag(turn)
    _mind_lateness(turn)
    _mind_deafness(turn)
    _campaign(turn)
    _resign(turn)
    if not in_office(turn.state) or not _sees_the_store(turn) or _is_unfit(turn):
        fencing.pause(turn)
        return
    _heal_own_key(turn)
    _heal_policies(turn)
    changed = judging.judge(turn)
    look_at_all = changed or turn.state.at - turn.state.looked_at >= LOOK_AT_ALL_S
    waiting.notice(turn, look=look_at_all or turn.state.stirred)
    state = turn.state
    if look_at_all:
        settling = {key: revision for key, revision in state.settling.items() if revision > state.mirror.revision}
        meant = {name: host for name, host in state.meant.items() if turn.is_busy(rec.PLACEMENTS + name)}
        followed = {name: host for name, host in state.followed.items() if turn.is_busy(rec.PLACEMENTS + name)}
        in_flight = {key: until for key, until in state.in_flight.items() if until > state.at}
        beside = {key: keys for key, keys in state.beside.items() if key in in_flight}
        turn.set(looked_at=state.at, in_flight=Map(in_flight), settling=Map(settling), meant=Map(meant))
        turn.set(followed=Map(followed), beside=Map(beside))
        judging.end_silent_claims(turn)
        fencing.tend(turn)
        retrying.hasten(turn)
        draining.advance_all(turn)
        operations.advance_all(turn)
        copies.tend_all(turn)
        courses.advance(turn, courses.looked_at_by_turns(turn))
    else:
        if state.drains_due:
            draining.advance_all(turn)
        if state.copies_due:
            copies.tend_all(turn)
        courses.advance(turn, state.restless)
    _keep_protected_list(turn)


def _sees_the_store(turn: Turn) -> bool:
    """Whether this host's own renewals still show in its picture; what is decided by an older one is not written."""
    own = turn.state.mirror.claimed(turn.state.me)
    return own is not None and silent_for_s(own, turn.state.at) < turn.state.timing.claim_ttl_s


def _store_moved(turn: Turn, event: StoreMoved) -> None:
    judging.see(turn, event.mirror, event.changed)
    _notice_office(turn)
    _campaign(turn)
    if not in_office(turn.state):
        return
    fencing.claims_moved(turn)
    if _is_unfit(turn):
        return
    if event.changed is None:
        courses.wake_all(turn)
        return
    if any(key.startswith(rec.FENCES) for key in event.changed):
        turn.set(looked_at=0.0)
    if rec.POLICIES in event.changed:
        courses.wake_all(turn)
    watched = (rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS, rec.STANDBYS)
    names = {rec.name_in(key) for key in event.changed if key.startswith(watched)}
    waiting.touched(turn, names)
    if any(key.startswith((rec.OPERATIONS, *watched)) for key in event.changed):
        operations.advance(turn, event.changed)
    # What all hosts or packages are looked at for is done once a tick, however often the store moves.
    if event.mirror.maintenance and any(key.startswith(_DRAINED_BY) for key in event.changed):
        turn.set(drains_due=True)
    if any(key.startswith(rec.PACKAGES) for key in event.changed):
        turn.set(copies_due=True)
    courses.advance(turn, names)


def _notice_office(turn: Turn) -> None:
    state = turn.state
    leader = state.mirror.leader
    mine = leader is not None and leader.record.host == state.me
    claim = state.mirror.claimed(state.me)
    # A second agent of the same name would else take the first one's office for its own.
    if mine and state.office_since is None and claim is not None and claim.record.run == state.run:
        turn.set(office_since=state.at, verdicts=Map(), verdict_causes=Map(), looked_at=0.0, wary=None)
        turn.note("leader.elected", host=state.me)
    elif not mine and state.office_since is not None:
        turn.set(
            office_since=None,
            in_flight=Map(),
            beside=Map(),
            courses=Map(),
            meant=Map(),
            followed=Map(),
            restless=frozenset(),
            passed=frozenset(),
            offered=None,
            waiting=Map(),
            offers=None,
            tally=EMPTY,
        )
        fencing.leave_office(turn)
        turn.note("leader.deposed", host=state.me)


def _campaign(turn: Turn) -> None:
    state = turn.state
    stray = _stray_key(turn)
    if (state.mirror.leader is not None and stray is None) or _is_unfit(turn):
        return
    claim = state.mirror.claimed(state.me)
    if claim is None or claim.record.run != state.run:
        return
    if state.campaigned_at is not None and state.at - state.campaigned_at < state.timing.transact_s:
        return
    turn.set(campaigned_at=state.at)
    if stray is not None:
        # Removed, not written over: who led under it must find that its term has ended.
        turn.transact(Act.CAMPAIGN, state.me, Transaction((unchanged(rec.LEADER, stray),), (Delete(rec.LEADER),)))
        return
    turn.transact(
        Act.CAMPAIGN,
        state.me,
        Transaction(
            (absent(rec.LEADER), same_incarnation(rec.CLAIMS + state.me, claim.incarnation)),
            (Put(rec.LEADER, rec.encode(rec.LeaderRecord(state.me)), claim.record.lease),),
        ),
    )


def _stray_key(turn: Turn) -> int | None:
    """The revision of a leader's key that no claim stands behind, so that no lease will end it: a hand wrote it."""
    mirror = turn.state.mirror
    revision = mirror.bad[rec.LEADER][0] if rec.LEADER in mirror.bad else None
    if mirror.leader is None:
        return revision
    if mirror.claimed(mirror.leader.record.host) is not None:
        return None
    return mirror.leader.mod_revision if revision is None else revision


def _heal_own_key(turn: Turn) -> None:
    """A hand spoilt the key under which this host leads: write it again, bound to the lease as before."""
    mirror = turn.state.mirror
    claim = mirror.claimed(turn.state.me)
    if rec.LEADER not in mirror.bad or mirror.leader is None or claim is None or turn.is_busy(rec.LEADER):
        return
    revision, problem = mirror.bad[rec.LEADER]
    cause = turn.note("record.healed", text=f"{rec.LEADER} could not be read: {problem}")
    record = rec.encode(mirror.leader.record)
    turn.write(
        Act.HEAL,
        rec.LEADER,
        (unchanged(rec.LEADER, revision), same_incarnation(rec.CLAIMS + turn.state.me, claim.incarnation)),
        (Put(rec.LEADER, record, claim.record.lease),),
        cause,
    )


def _heal_policies(turn: Turn) -> None:
    """A hand spoilt the policies: write them again as they last were, if that is known."""
    mirror, key = turn.state.mirror, rec.POLICIES
    if key not in mirror.bad or not mirror.policies.mod_revision or turn.is_busy(key):
        return
    revision, problem = mirror.bad[key]
    cause = turn.note("record.healed", text=f"{key} could not be read: {problem}")
    put = Put(key, rec.encode(mirror.policies.record))
    turn.write(Act.HEAL, key, (unchanged(key, revision),), (put,), cause)


def _resign(turn: Turn) -> None:
    """Who is cut off from every other leaves the office, and asks again until the store has heard it."""
    state, leader = turn.state, turn.state.mirror.leader
    mine = leader.create_revision if leader is not None and leader.record.host == state.me else 0
    if state.deaf:
        # It may have won unseen.
        mine = max(mine, state.won)
    if not _is_unfit(turn) or not mine:
        return
    if state.campaigned_at is not None and state.at - state.campaigned_at < state.timing.transact_s:
        return
    turn.set(campaigned_at=state.at)
    turn.transact(
        Act.RESIGN,
        turn.state.me,
        Transaction((same_incarnation(rec.LEADER, mine),), (Delete(rec.LEADER),)),
    )


def _transacted(turn: Turn, event: Transacted) -> None:
    if event.purpose.act is Act.CAMPAIGN:
        turn.set(campaigned_at=None)
        if event.outcome is Outcome.DONE:
            turn.set(won=event.revision)
    if event.purpose.act is Act.RESIGN and event.outcome is not Outcome.UNKNOWN:
        turn.set(won=0)
    if event.purpose.act in (Act.CAMPAIGN, Act.RESIGN):
        return
    _settle(turn, event)


def _settle(turn: Turn, event: Transacted) -> None:
    """A write has ended: what it was about may be decided on again once the picture shows it."""
    key = event.purpose.subject
    if key not in turn.state.in_flight:
        return
    keys = turn.state.beside.get(key, frozenset({key}))
    in_flight, settling = turn.state.in_flight.mutate(), turn.state.settling.mutate()
    for each in keys:
        in_flight.pop(each, None)
        settling.pop(each, None)
        if event.outcome is not Outcome.DONE:
            turn.set(stirred=True)
            # The picture is old or the store is away: another try in the same breath would end, and be told, the same.
            in_flight[each] = turn.state.at + turn.state.timing.renew_s
        elif event.revision > turn.state.mirror.revision:
            settling[each] = event.revision
    beside = turn.state.beside.delete(key) if key in turn.state.beside else turn.state.beside
    turn.set(in_flight=in_flight.finish(), settling=settling.finish(), beside=beside)


def _keep_protected_list(turn: Turn) -> None:
    state = turn.state
    if state.at - state.protected_at < PROTECTED_S:
        return
    listed = tuple(
        (name, entry.record.generation, entry.record.host)
        for name, entry in sorted(state.mirror.placements.items())
        if entry.record.host is not None
    )
    turn.set(protected_at=state.at)
    if listed != state.protected:
        turn.set(protected=listed)
        turn.do(WriteProtected(listed))
