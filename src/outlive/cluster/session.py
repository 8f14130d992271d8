"""A host's claim: how it is taken, renewed, lost, and given up in time.

The order is always lease → registration → renewals. Only a renewal (or registration) that surely succeeded moves the
deadline, and it counts from before it was sent. A claim that was lost is never taken up again: everything that
rested on it is stopped first, then a new one is registered (DESIGN: never two).
"""

from dataclasses import replace

from . import records as rec
from .commands import Act, GrantLease, KeepAlive, SetDeadline
from .events import LeaseGranted, Outcome, Transacted
from .lease import deadline_at
from .node_state import NodeState, Phase, Standing, Turn
from .reigns import stop_all
from .transaction import Delete, Put, Transaction, absent, same_incarnation, unchanged


def in_force(turn: Turn) -> bool:
    """Whether this host may act now."""
    session = turn.state.session
    return session.incarnation != 0 and session.guarded and turn.state.at < session.deadline_at


def store_reachable(turn: Turn) -> bool:
    """Whether the store answered this host within the length of a claim."""
    return turn.state.at - turn.state.session.reached_at < turn.state.timing.claim_ttl_s


def advance(turn: Turn) -> None:
    """On every tick: do the next thing that is due."""
    expire(turn)
    state, session = turn.state, turn.state.session
    if session.asked_at is not None:
        patience_s = state.timing.renew_s * 2 if session.incarnation else state.timing.transact_s * 2
        if state.at - session.asked_at < patience_s:
            return
        turn.set_session(asked_at=None)
    if session.incarnation:
        if state.at >= session.renew_at:
            _renew(turn)
    elif holds_nothing(state):
        _register(turn)
    else:
        # A claim that ended just before the agent's death may have left something that nobody told to stop.
        stop_all(turn, rec.Stage.STOPPED, "this host holds no claim", "")


def holds_nothing(state: NodeState) -> bool:
    """Whether nothing is held here any more, by the rules or for them to follow."""
    standbys = all(standby.standing is Standing.ENDED for standby in state.standbys.values())
    return standbys and all(reign.phase is Phase.ENDED for reign in state.reigns.values())


def expire(turn: Turn) -> None:
    """Give the claim up when it is time to, whichever event shows that it is."""
    state, session = turn.state, turn.state.session
    if session.incarnation and state.at >= session.deadline_at - state.timing.give_up_s:
        lose(turn, "the store did not answer in time to renew it")


def _register(turn: Turn) -> None:
    state, session = turn.state, turn.state.session
    if not session.guarded:
        return
    if not session.lease:
        turn.set_session(asked_at=state.at)
        turn.do(GrantLease(state.timing.claim_ttl_s))
        return
    key = rec.CLAIMS + state.host.name
    seen = state.mirror.claimed(state.host.name)
    if key in state.mirror.bad:
        # A hand wrote over it, and with that freed it of its lease: it would stand for ever.
        turn.set_session(asked_at=state.at)
        spoilt = unchanged(key, state.mirror.bad[key][0])
        turn.transact(Act.UNREGISTER, state.host.name, Transaction((spoilt,), (Delete(key),)))
    elif seen is None:
        turn.set_session(asked_at=state.at)
        known = state.mirror.hosts.get(state.host.name)
        anew = known is None or known.record != state.host
        writes = (Put(key, rec.encode(_claim(turn)), session.lease), *_own_record(turn, anew=anew))
        turn.transact(Act.REGISTER, state.host.name, Transaction((absent(key),), writes))
    elif seen.record.run == state.run and seen.record.lease == session.lease:
        # A registration of ours whose answer got lost: a first renewal takes it up, and gives it its deadline.
        turn.set_session(asked_at=state.at)
        turn.do(KeepAlive(session.lease))
        renewal = Put(key, rec.encode(_claim(turn)), session.lease)
        stands = same_incarnation(key, seen.incarnation)
        turn.transact(Act.REGISTER, state.host.name, Transaction((stands,), (renewal,)), number=seen.incarnation)
    elif seen.record.boot_id == state.boot_id and seen.record.run in (state.run, state.predecessor):
        # This host's own, from before; another agent's under the same name is left alone and waited out.
        turn.set_session(asked_at=state.at)
        turn.transact(
            Act.UNREGISTER,
            state.host.name,
            Transaction((unchanged(key, seen.mod_revision),), (Delete(key),)),
        )


def _take(turn: Turn, incarnation: int) -> None:
    turn.set_session(incarnation=incarnation, registered=turn.state.session.sequence)
    turn.save()
    turn.note("claim.registered", host=turn.state.host.name, generation=incarnation)


def _claim(turn: Turn) -> rec.ClaimRecord:
    state = turn.state
    turn.set_session(sequence=state.session.sequence + 1)
    return rec.ClaimRecord(
        host=state.host.name,
        boot_id=state.boot_id,
        run=state.run,
        lease=state.session.lease,
        sequence=turn.state.session.sequence,
        heartbeats=state.sequence,
    )


def _own_record(turn: Turn, *, anew: bool = False) -> tuple[Put, ...]:
    """This host's own record, where it is missing, unreadable, or to be written anew."""
    state = turn.state
    key, known = rec.HOSTS + state.host.name, state.mirror.hosts.get(state.host.name)
    spoilt = known is None or key in state.mirror.bad
    if not anew and not (spoilt and state.mirror.revision):
        return ()
    return (Put(key, rec.encode(state.host)),)


def _renew(turn: Turn) -> None:
    state, session = turn.state, turn.state.session
    key = rec.CLAIMS + state.host.name
    claim = _claim(turn)
    turn.set_session(asked_at=state.at)
    turn.do(KeepAlive(session.lease))
    turn.transact(
        Act.RENEW,
        state.host.name,
        Transaction(
            (same_incarnation(key, session.incarnation),),
            (Put(key, rec.encode(claim), session.lease), *_own_record(turn)),
        ),
        number=claim.sequence,
    )


def on_lease(turn: Turn, event: LeaseGranted) -> None:
    """A lease was granted: register under it. One that comes after another was taken is left to end."""
    if turn.state.session.lease:
        return
    turn.set_session(lease=event.lease, asked_at=None, reached_at=event.at)
    advance(turn)


def on_lease_refused(turn: Turn) -> None:
    """No lease: the next tick asks again."""
    turn.set_session(asked_at=None)


def on_transacted(turn: Turn, event: Transacted) -> None:
    """A registration or renewal ended."""
    session = turn.state.session
    if event.outcome is not Outcome.UNKNOWN:
        turn.set_session(reached_at=event.at)
    act = event.purpose.act
    if act is Act.REGISTER:
        turn.set_session(asked_at=None)
        if event.outcome is Outcome.DONE and session.incarnation == 0:
            _take(turn, event.purpose.number or event.revision)
            _extend(turn, event.sent_at)
        elif event.outcome is Outcome.REFUSED:
            turn.set_session(lease=0)
    elif act is Act.UNREGISTER:
        turn.set_session(asked_at=None)
    elif act is Act.RENEW and session.incarnation and event.purpose.number > session.registered:
        if event.purpose.number == session.sequence:
            turn.set_session(asked_at=None)
        if event.outcome is Outcome.DONE:
            _extend(turn, event.sent_at)
        elif event.outcome is Outcome.REFUSED:
            lose(turn, "the store no longer holds it")


def _extend(turn: Turn, sent_at: float) -> None:
    session, timing = turn.state.session, turn.state.timing
    until = deadline_at(sent_at, timing)
    if until <= session.deadline_at:
        return
    turn.set_session(deadline_at=until, renew_at=sent_at + timing.renew_s)
    turn.do(SetDeadline(until))


def lose(turn: Turn, reason: str) -> None:
    """The claim is over: stop what rests on it; a new one is registered once all has stopped."""
    state = turn.state
    if not state.session.incarnation:
        return
    cause = turn.note("claim.lost", host=state.host.name, generation=state.session.incarnation, text=reason)
    turn.set(
        session=replace(state.session, incarnation=0, lease=0, asked_at=None),
    )
    stop_all(turn, rec.Stage.STOPPED, f"this host lost its claim: {reason}", cause)
    turn.save()
