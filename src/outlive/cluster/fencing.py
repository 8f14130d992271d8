"""Having silent hosts fenced: whom, by which method next, and what is on record of it.

Only a host that is judged dead, whose claim has certainly ended, and for which a workload waits is accused; what it
is accused as is one incarnation of its claim. It is called off at once when the host is heard again or holds a newer
claim. The first try waits until it is in the store, by a transaction that holds only while the host has no claim;
so a new leader knows what was under way, and begins it anew: to fence a host twice does no harm.
"""

from dataclasses import replace

from immutables import Map

from . import records as rec
from .commands import Act, CallOffFence, Fence
from .events import Fenced
from .failover import Wait, proof_of_end
from .fence import FenceMethod, FenceState, Pursuit, Unfinished
from .freezing import frozen
from .leader_state import Turn
from .lease import surely_over
from .machine_rules import datastores_of
from .mirror import Mirror
from .naming import named
from .proofs import confirm, is_proven, needs_fence
from .recovery import NEVER_SEEN, lost_placements
from .transaction import Delete, Put, absent, unchanged

NO_METHOD = "no method is configured that can fence it"


def tend(turn: Turn) -> None:
    """Take up whom to fence, and take every pursuit one step further, or call it off."""
    placements = turn.state.mirror.placements
    still = {name: at for name, at in turn.state.freed.items() if name in placements}
    if len(still) < len(turn.state.freed):
        turn.set(freed=Map(still))
    mirror = turn.state.mirror
    # In a frozen cluster nobody is switched off whom nobody asked to be.
    wanted = _accused(turn) if needs_fence(mirror) and not frozen(mirror) else {}
    for host in sorted(turn.state.pursuits):
        if host not in wanted:
            _call_off(turn, host)
    for host, (claim, waiting) in sorted(wanted.items()):
        _pursue(turn, host, claim, waiting)
    _forget(turn)


def claims_moved(turn: Turn) -> None:
    """A claim changed: a host that holds one now is left alone at once."""
    for host, pursuit in sorted(turn.state.pursuits.items()):
        claim = turn.state.mirror.claimed(host)
        if claim is not None and claim.incarnation > pursuit.claim:
            _call_off(turn, host)


def leave_office(turn: Turn) -> None:
    """Whoever leads next begins anew."""
    pause(turn)
    turn.set(freed=Map())


def pause(turn: Turn) -> None:
    """End all tries: this host cannot see any more whether those it accuses came back, or whether it still leads."""
    for host, pursuit in sorted(turn.state.pursuits.items()):
        if pursuit.number:
            turn.do(CallOffFence(host, pursuit.number))
    if turn.state.pursuits:
        turn.set(pursuits=Map())


def ended(turn: Turn, event: Fenced) -> None:
    """A try has ended: its proof is written down, or the next one has its turn."""
    pursuit = turn.state.pursuits.get(event.host)
    if pursuit is None or not event.number or pursuit.number != event.number:
        return
    mine = _methods(turn, event.host)
    method = mine[min(pursuit.method, len(mine) - 1)]
    because, text = pursuit.cause, f"{method.name}: {event.said}"
    taken = {each.workload: each.generation for each in pursuit.sought if each.workload in event.freed}
    pursuit = replace(pursuit, number=0, sought=())
    turn.set(looked_at=0.0, freed=turn.state.freed.update(taken))
    if event.freed:
        text = f"{method.name}: {named(event.freed)}"
        because = turn.note("fence.freed", host=event.host, text=text, because=because)
        turn.set(restless=turn.state.restless | set(event.freed))
    if event.proven:
        cause = turn.note("fence.proven", host=event.host, text=text, because=because)
        _set(turn, event.host, replace(pursuit, cause=cause))
        _write(turn, event.host, pursuit.claim, FenceState.PROVEN, method.name, text, cause)
        return
    cause = because
    if not event.freed:
        cause = turn.note("fence.failed", host=event.host, text=text, because=because)
    _set(turn, event.host, _next(turn, event.host, replace(pursuit, cause=cause), method, mine, text))


def cause_of_wait(turn: Turn, host: str) -> str:
    """The event that what waits for a host goes back to: the latest of its fencing, or its verdict."""
    pursuit = turn.state.pursuits.get(host)
    if pursuit is not None and pursuit.cause:
        return pursuit.cause
    fence = turn.state.mirror.fences.get(host)
    if fence is not None and needs_fence(turn.state.mirror) and turn.state.mirror.claimed(host) is None:
        return fence.record.because
    return turn.state.verdict_causes.get(host, "")


def _accused(turn: Turn) -> dict[str, tuple[int, list[Unfinished]]]:
    """Who is to be fenced: the newest incarnation that is accused, and the workloads that wait for it."""
    state, mirror, found = turn.state, turn.state.mirror, dict[str, tuple[int, list[Unfinished]]]()
    dead = {host for host, verdict in state.verdicts.items() if verdict is rec.Verdict.DEAD}
    # Nobody judges who has no record any more, and nothing has been heard of them since.
    dead |= {*mirror.there, *mirror.claims} - {*mirror.hosts}
    if not dead:
        return found
    for host in sorted(dead & {*mirror.there}):
        signs = state.signs.get(host)
        for name in mirror.placed_on(host):
            record = mirror.placements[name].record
            if rec.PLACEMENTS + name in mirror.bad:
                continue
            freed = state.freed.get(name) == record.generation
            end = proof_of_end(record, mirror, signs, rec.Verdict.DEAD, state.timing, state.at, freed=freed)
            if isinstance(end, Wait) and end.unfenced and not end.by_hand:
                claim, waiting = found.get(host, (0, []))
                waiting.append(Unfinished(name, record.generation, _datastore(turn, name)))
                found[host] = (max(claim, record.claim), waiting)
    # For a placement that nobody remembers every host must have said that it is not its, or be proven ended.
    for host in sorted(dead & {*mirror.hosts, *mirror.claims}) if lost_placements(mirror) else ():
        seen = mirror.claims.get(host)
        incarnation = seen.incarnation if seen is not None else NEVER_SEEN
        over = surely_over(mirror, host, incarnation, state.timing, state.at)
        if over and not is_proven(mirror, host, incarnation):
            claim, waiting = found.get(host, (0, []))
            found[host] = (max(claim, incarnation), waiting)
    return found


def _datastore(turn: Turn, workload: str) -> str | None:
    """Where its run lock is."""
    wanted = turn.state.mirror.workloads.get(workload)
    if wanted is None:
        return None
    return wanted.record.workload.data_on or next(iter(datastores_of(wanted.record.workload)), None)


def _methods(turn: Turn, host: str) -> list[FenceMethod]:
    return [method for method in turn.state.methods if method.can_fence(host)]


def _pursue(turn: Turn, host: str, claim: int, waiting: list[Unfinished]) -> None:
    state, key = turn.state, rec.FENCES + host
    pursuit = state.pursuits.get(host)
    if pursuit is None or pursuit.claim != claim:
        if pursuit is not None:
            _call_off(turn, host)
        pursuit = Pursuit(claim, cause=state.verdict_causes.get(host, ""))
        _set(turn, host, pursuit)
    if pursuit.number or state.at < pursuit.next_at or turn.is_busy(key):
        return
    mine, stands = _methods(turn, host), state.mirror.fences.get(host)
    if not mine:
        if stands is None or stands.record.claim != claim or stands.record.reason != NO_METHOD:
            cause = turn.note("fence.exhausted", host=host, text=_told(NO_METHOD, host), because=pursuit.cause)
            _set(turn, host, replace(pursuit, cause=cause))
            _write(turn, host, claim, FenceState.FAILED, "", NO_METHOD, cause)
        return
    if stands is None or stands.record.claim != claim or stands.record.by != state.me or key in state.mirror.bad:
        kind = "fence.resumed" if stands is not None and stands.record.claim == claim else "fence.begun"
        cause = turn.note(kind, host=host, text=", then ".join(each.name for each in mine), because=pursuit.cause)
        _set(turn, host, replace(pursuit, cause=cause))
        _write(turn, host, claim, FenceState.TRYING, mine[0].name, "", cause)
        return
    method, number = mine[min(pursuit.method, len(mine) - 1)], state.tries + 1
    turn.set(tries=number)
    _set(turn, host, replace(pursuit, number=number, sought=tuple(waiting)))
    turn.do(Fence(host, claim, method.name, number, tuple(waiting), pursuit.cause))


def _next(
    turn: Turn, host: str, pursuit: Pursuit, method: FenceMethod, mine: list[FenceMethod], reason: str
) -> Pursuit:
    """Again after a while, or by the next method; after the last a person is told, and all begins anew, later."""
    timing, at = turn.state.timing, turn.state.at
    if pursuit.attempt + 1 < method.tries:
        wait_s = min(timing.retry_most_s, timing.retry_first_s * 2.0**pursuit.attempt)
        return replace(pursuit, attempt=pursuit.attempt + 1, next_at=at + wait_s)
    if pursuit.method + 1 < len(mine):
        return replace(pursuit, method=pursuit.method + 1, attempt=0, next_at=at)
    cause = pursuit.cause
    if pursuit.rounds == 0:
        cause = turn.note("fence.exhausted", host=host, text=_told(reason, host), because=cause)
    _write(turn, host, pursuit.claim, FenceState.FAILED, method.name, reason, cause)
    wait_s = min(timing.retry_most_s, timing.retry_first_s * 2.0 ** min(pursuit.rounds, 20))
    return replace(pursuit, method=0, attempt=0, rounds=pursuit.rounds + 1, next_at=at + wait_s, cause=cause)


def _told(reason: str, host: str) -> str:
    return f"{reason}; what was on {host} waits. Once you know that it is off: {confirm(host)}"


def _call_off(turn: Turn, host: str) -> None:
    """It was heard, proven to have ended, or nothing waits for it any more."""
    pursuit = turn.state.pursuits[host]
    if pursuit.number:
        turn.do(CallOffFence(host, pursuit.number))
        if not is_proven(turn.state.mirror, host, pursuit.claim):
            turn.note("fence.called_off", host=host, because=turn.state.verdict_causes.get(host, pursuit.cause))
    turn.set(pursuits=turn.state.pursuits.delete(host))


def _set(turn: Turn, host: str, pursuit: Pursuit) -> None:
    turn.set(pursuits=turn.state.pursuits.set(host, pursuit))


def _write(turn: Turn, host: str, claim: int, state: FenceState, method: str, reason: str, because: str) -> None:
    """Put it on record, over what was seen there; while the host holds no claim, unless the proof is there."""
    mirror, key = turn.state.mirror, rec.FENCES + host
    stands = mirror.fences.get(host)
    revision = mirror.bad[key][0] if key in mirror.bad else stands.mod_revision if stands is not None else 0
    alone = () if state is FenceState.PROVEN else (absent(rec.CLAIMS + host),)
    record = rec.FenceRecord(host, claim, state, method, turn.state.me, reason, because, _machine(mirror, host, claim))
    turn.write(Act.FENCE, key, (unchanged(key, revision), *alone), (Put(key, rec.encode(record)),), because)


def _machine(mirror: Mirror, host: str, claim: int) -> str:
    """The boot id of whoever held that claim: by the claim, or, if it came and went unseen, by what rests on it."""
    holder, stands = mirror.holder(host, claim), mirror.fences.get(host)
    if holder is not None:
        return holder.boot_id
    known = [stands.record.boot_id] if stands is not None and stands.record.claim == claim else []
    on_it = (mirror.placements[name].record for name in mirror.placed_on(host))
    known.extend(record.boot_id for record in on_it if record.claim == claim)
    return next((each for each in known if each), "")


def _forget(turn: Turn) -> None:
    """What is on record of a host goes once it lives under a newer claim and nothing rests on the old one."""
    mirror = turn.state.mirror
    for host, entry in sorted(mirror.fences.items()):
        key, claim = rec.FENCES + host, mirror.claimed(host)
        if claim is None or claim.incarnation <= entry.record.claim or turn.is_busy(key):
            continue
        resting = (mirror.placements[name].record.claim for name in mirror.placed_on(host))
        if all(claim > entry.record.claim for claim in resting):
            turn.write(Act.FENCE, key, (unchanged(key, entry.mod_revision),), (Delete(key),), entry.record.because)
