"""Gathering signs of life and turning them into verdicts, with their evidence on record.

The observer minds its own lag: when its ticks come late it starts to listen anew before it accuses anybody. A host that
falls silent is probed, directly and through peers. What a verdict leads to is decided in `courses`.
"""

import dataclasses
import math
from bisect import bisect

from msgspec.structs import replace

from . import records as rec
from .commands import Act, LearnTable, Probe
from .detector import Evidence, classify
from .events import TableLearned
from .heartbeat import Heartbeat, ModuleStatus
from .leader_state import Turn
from .mirror import Mirror
from .repeats import Repeats
from .signs import Sightings, Signs, evidence, is_fresh
from .tally import SUMMED, moved
from .transaction import Delete, Put, unchanged

PROBE_VIA = 3
WITNESS_S = 10.0
TIMELY_S = 10.0
"""After so long without a late tick a host counts as timely again."""
TOLD_AT_ONCE = 256
PROBED_AT_ONCE = 256
PROBED_LESS = 20.0
"""A dead host is probed each time its silence has grown by this part, and at least each PROBED_AT_LEAST_S seconds."""
PROBED_AT_LEAST_S = 30.0
STIRRING = (rec.HOSTS, rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS, rec.MAINTENANCE, rec.POLICIES)
"""Where a change in the store may have given a host more to offer."""

_GRAVITY = (
    rec.Verdict.ALIVE, rec.Verdict.SUSPECT, rec.Verdict.ISOLATED, rec.Verdict.PARTITIONED, rec.Verdict.DEAD
)  # fmt: skip


def _signs(turn: Turn, host: str) -> Signs:
    return turn.state.signs.get(host)


def _set(turn: Turn, host: str, signs: Signs) -> None:
    turn.set(signs=turn.state.signs.set(host, signs))


def heartbeat(turn: Turn, beat: Heartbeat) -> None:
    """A heartbeat came by network."""
    old = _signs(turn, beat.host)
    _set(turn, beat.host, replace(old, heartbeat=beat, heartbeat_at=turn.state.at))
    _after_sign(turn, beat, old)


def repeated(turn: Turn, repeats: Repeats) -> None:
    """Hosts said again by network what they had said before: it tells nothing but that they are alive."""
    before = turn.state.signs.repeats.places
    turn.set(signs=Sightings(turn.state.signs.kept, repeats))
    if before is not repeats.places and turn.state.wary is not None and (gone := before.keys() - repeats.places.keys()):
        turn.set(wary=turn.state.wary | gone)


def slot(turn: Turn, beat: Heartbeat) -> None:
    """A host's datastore slot changed."""
    old = _signs(turn, beat.host)
    _set(turn, beat.host, replace(old, slot=beat, slot_at=turn.state.at))
    _after_sign(turn, beat, old)


def _after_sign(turn: Turn, beat: Heartbeat, old: Signs) -> None:
    before = old.newest()
    if before is None or (before.flags, before.claim) != (beat.flags, beat.claim):
        turn.set(stirred=True)
    known = before is not None and before.statuses == beat.statuses and before.table == beat.table
    if known and old.table_digest == beat.table:
        return
    if turn.state.wary is not None and beat.host not in turn.state.wary and _lacks_table(turn, beat.host):
        # Its answer may be lost, and the host may say nothing new for long: it has to be asked again.
        turn.set(wary=turn.state.wary | {beat.host})
    _learn_table(turn, beat)
    _see_restoring(turn, beat.host)
    _wake(turn, beat.host)


def _see_restoring(turn: Turn, host: str) -> None:
    """Remember at once that an ordered restoration has begun: by the next look the module may have failed again."""
    signs = _signs(turn, host)
    newest = signs.newest()
    if newest is None or signs.table is None or newest.table != signs.table_digest:
        return
    for key, status in zip(signs.table.modules, newest.statuses, strict=False):
        course = turn.state.courses.get(key.workload)
        if status is not ModuleStatus.RESTORING or course is None or course.generation != key.generation:
            continue
        attempts = course.modules.get(key.module)
        if attempts is not None and attempts.ordered_at is not None and not attempts.seen_working:
            seen = dataclasses.replace(attempts, seen_working=True)
            turn.set_course(key.workload, modules=course.modules.set(key.module, seen))


def _wake(turn: Turn, host: str) -> None:
    """Have the workloads of a host looked at on the next tick."""
    if turn.state.office_since is None:
        return
    there = {*turn.state.mirror.placed_on(host)}
    if not there <= turn.state.restless:
        turn.set(restless=turn.state.restless | there)


def _lacks_table(turn: Turn, host: str) -> bool:
    """Whether it is not known what the newest bits of a host stand for."""
    signs = _signs(turn, host)
    newest = signs.newest()
    return newest is not None and newest.table != signs.table_digest


def _learn_table(turn: Turn, beat: Heartbeat) -> None:
    signs = _signs(turn, beat.host)
    if signs.table_digest == beat.table:
        return
    asked_at = signs.asked_table_at
    if asked_at is not None and turn.state.at - asked_at < turn.state.timing.heartbeat_s * 2:
        return
    _set(turn, beat.host, replace(signs, asked_table_at=turn.state.at))
    turn.do(LearnTable(beat.host, beat.table))


def answered(turn: Turn, target: str) -> None:
    """A host answered a probe of a peer or of this host."""
    _set(turn, target, replace(_signs(turn, target), answered_at=turn.state.at))


def table(turn: Turn, event: TableLearned) -> None:
    """A module table became known."""
    signs = _signs(turn, event.host)
    digest = event.table.digest()
    newest = signs.newest()
    if newest is not None and newest.table == digest:
        _set(turn, event.host, replace(signs, table=event.table, table_digest=digest, asked_table_at=None))
        _wake(turn, event.host)


def mind_own_lag(turn: Turn) -> None:
    """After a late tick, count every silence from now: the messages may be waiting unread.

    Late ticks count as a row until there was the time in between to find somebody dead. A time of them is told once.
    """
    state = turn.state
    if state.ticked_at is not None and state.at - state.ticked_at > state.timing.lag_s:
        if state.at - state.late_at >= TIMELY_S:
            turn.note("observer.lagged", host=state.me, text=f"ticks were {state.at - state.ticked_at:.2f} s apart")
        turn.set(listening_since=state.at, late_at=state.at, late_ticks=state.late_ticks + 1)
    elif state.late_ticks and state.at - state.late_at >= state.timing.dead_s:
        turn.set(late_ticks=0)
    turn.set(ticked_at=turn.state.at)


def see(turn: Turn, mirror: Mirror, changed: frozenset[str] | None) -> None:
    """Take in a newer picture of the store: whom it tells something new of has to be judged. changed: None: any."""
    if mirror.hosts is not turn.state.mirror.hosts:
        turn.set(roster=tuple(sorted(mirror.hosts)))
    _sum_up(turn, mirror, changed)
    before = turn.state.mirror
    turn.set(mirror=mirror)
    for key in changed or ():
        if key.startswith(STIRRING):
            turn.set(stirred=True)
        elif key.startswith(rec.FENCES) or (key.startswith(rec.CLAIMS) and _has_moved(before, mirror, key)):
            turn.set(stirred=True)
            _wake(turn, rec.name_in(key))
    if changed is None or turn.state.wary is None:
        turn.set(wary=None)
        return
    named = {rec.name_in(key) for key in changed if key.startswith((rec.HOSTS, rec.VERDICTS))}
    if named:
        turn.set(wary=turn.state.wary | named)


def _has_moved(before: Mirror, after: Mirror, key: str) -> bool:
    """Whether a claim ended or another one began; most often it was only renewed."""
    old, new = before.claims.get(rec.name_in(key)), after.claims.get(rec.name_in(key))
    if old is None or new is None or (key in before.bad) != (key in after.bad):
        return True
    return (old.present, old.incarnation) != (new.present, new.incarnation)


def _sum_up(turn: Turn, mirror: Mirror, changed: frozenset[str] | None) -> None:
    """Take the changes into the sums, if they are those of the picture before; else they are made when asked for."""
    known = turn.state.tally
    if changed is not None and turn.state.office_since is not None and known.is_of(turn.state.mirror):
        names = {rec.name_in(key) for key in changed if key.startswith(SUMMED)}
        turn.set(tally=moved(known, mirror, names))


def judge(turn: Turn) -> bool:
    """Give every host its verdict; says whether any changed.

    Whoever is alive, and known to be by the store, stays so until his silence has lasted: only then he is looked at.
    No more than TOLD_AT_ONCE verdicts are written at one tick, so that a tick of a large cluster ends in time.
    """
    state = turn.state
    wary, places = state.wary if state.wary is not None else frozenset(state.roster), state.signs.repeats.places
    changed, again = False, []
    for host in sorted(wary.union(_silent(turn))):
        if host not in state.mirror.hosts:
            continue
        silent = _is_silent(turn, host)
        if silent or _may_tell(turn, host, rec.Verdict.ALIVE):
            changed |= _judge(turn, host)
            silent = _is_silent(turn, host)
        is_minded = (host in places or host == state.me) and not _asks_again(turn, host)
        if silent or not is_minded or not _is_told(turn, host, rec.Verdict.ALIVE):
            again.append(host)
    turn.set(wary=frozenset(again))
    return changed


def _asks_again(turn: Turn, host: str) -> bool:
    """Ask a host for its table while that is not known; False once it is."""
    newest = _signs(turn, host).newest()
    if newest is None or not _lacks_table(turn, host):
        return False
    _learn_table(turn, newest)
    return True


def _silent(turn: Turn) -> list[str]:
    """The hosts that have repeated nothing for so long that they may be silent.

    This alone looks at every host at every tick; so it reads two arrays, and only one while nobody is silent.
    """
    repeats, at, suspect_s = turn.state.signs.repeats, turn.state.at, turn.state.timing.suspect_s
    heard_at = repeats.heard_at
    if at - min(heard_at, default=at) < suspect_s:
        return []
    return [host for host, place in repeats.places.items() if at - heard_at[place] >= suspect_s]


def _is_silent(turn: Turn, host: str) -> bool:
    """Whether a host has to be judged now: it was not alive, or has been silent for long enough to be none."""
    state = turn.state
    if state.verdicts.get(host) is not rec.Verdict.ALIVE:
        return True
    if host == state.me:
        return False
    heard_at = state.signs.heard_at(host)
    since = _listening_since(turn, host, heard_at)
    return state.at - (since if heard_at is None else max(heard_at, since)) >= state.timing.suspect_s


def _judge(turn: Turn, host: str) -> bool:
    if host == turn.state.me:
        return _set_verdict(turn, host, rec.Verdict.ALIVE, None)
    signs = _signs(turn, host)
    found = evidence(host, signs, turn.state.mirror, _listening_since(turn, host, signs.heartbeat_at), turn.state.at)
    verdict = rec.Verdict.DEAD if _is_still_dead(turn, host, signs, found) else _found(turn, host, signs, found)
    if verdict is not rec.Verdict.ALIVE:
        _probe(turn, host, found.network_s if verdict is rec.Verdict.DEAD else 0.0)
        if (newest := signs.newest()) is not None:
            _learn_table(turn, newest)
    return _set_verdict(turn, host, verdict, found)


def _found(turn: Turn, host: str, signs: Signs, found: Evidence) -> rec.Verdict:
    """What the evidence says; that this observer listens anew accuses nobody, and clears nobody either.

    Whoever it had accused stays so, as far as what was really heard bears it out: else an observer that is late again
    and again would forget every silence, and never see a death.
    """
    timing, at = turn.state.timing, turn.state.at
    verdict, stands = classify(found, timing), turn.state.verdicts.get(host, rec.Verdict.ALIVE)
    heard_s = at - signs.heartbeat_at if signs.heartbeat_at is not None else math.inf
    borne_out = classify(dataclasses.replace(found, network_s=heard_s), timing)
    return max(verdict, min(stands, borne_out, key=_GRAVITY.index), key=_GRAVITY.index)


def _is_still_dead(turn: Turn, host: str, signs: Signs, found: Evidence) -> bool:
    """Whether nothing speaks against what an earlier leader found; that this one begins to listen is no sign of life.

    A host that is there says so within moments, and one without a claim loses nothing by waiting for that.
    """
    stands = turn.state.mirror.verdicts.get(host)
    if stands is None or stands.record.verdict is not rec.Verdict.DEAD or found.lease_held:
        return False
    timing, at = turn.state.timing, turn.state.at
    answered_s = at - signs.answered_at if signs.answered_at is not None else timing.probe_fresh_s
    return answered_s >= timing.probe_fresh_s and not is_fresh(signs, timing, at)


def end_silent_claims(turn: Turn) -> None:
    """End claims that nobody renews and no lease ends (a hand wrote over them), or they would stand for ever.

    Whoever renewed one unseen loses nothing: then the comparison does not hold.
    """
    mirror, at = turn.state.mirror, turn.state.at
    patience_s = 2 * turn.state.timing.claim_surely_over_s()
    for host in sorted(host for host, seen in mirror.claims.items() if at - seen.observed_at >= patience_s):
        key, seen = rec.CLAIMS + host, mirror.claims[host]
        if not seen.present or turn.is_busy(key):
            continue
        revision = mirror.bad[key][0] if key in mirror.bad else seen.mod_revision
        text = "nobody renewed it, and the store did not end it"
        cause = turn.note("claim.revoked", host=host, text=text, because=turn.state.verdict_causes.get(host, ""))
        turn.write(Act.REVOKE, key, (unchanged(key, revision),), (Delete(key),), cause)


def _is_witness(turn: Turn, host: str) -> bool:
    """Whether a host speaks to this one whoever leads, as `node` chooses its witnesses."""
    roster, me = turn.state.roster, turn.state.me
    behind = (bisect(roster, me) - bisect(roster, host)) % max(1, len(roster))
    return behind <= turn.state.timing.witnesses


def _listening_since(turn: Turn, host: str, heard_at: float | None) -> float:
    """A witness goes by what it heard; who was none begins to listen when it takes office.

    Who led a moment ago has heard all hosts until then, but only those that it is a witness of spoke to it since.
    """
    state = turn.state
    office_since = state.office_since or state.at
    witnessed = heard_at is not None and office_since - heard_at < WITNESS_S and _is_witness(turn, host)
    return state.listening_since if witnessed else max(state.listening_since, office_since)


def _probe(turn: Turn, host: str, dead_for_s: float) -> None:
    """Ask it, and have others ask. dead_for_s: how long a dead host has been silent; 0: it is not dead."""
    signs, timing = _signs(turn, host), turn.state.timing
    # When very many are silent each is probed less often, or the probes would keep this host from listening.
    every_s = max(timing.probe_s, timing.tick_s * len(turn.state.wary or ()) / PROBED_AT_ONCE)
    every_s = max(every_s, min(PROBED_AT_LEAST_S, dead_for_s / PROBED_LESS))
    asked_at = signs.asked_probe_at
    if turn.probed >= PROBED_AT_ONCE or (asked_at is not None and turn.state.at - asked_at < every_s):
        return
    turn.probed += 1
    _set(turn, host, replace(signs, asked_probe_at=turn.state.at))
    turn.do(Probe(host))
    for peer in turn.first_alive(PROBE_VIA, host):
        turn.do(Probe(host, via=peer))


def _set_verdict(turn: Turn, host: str, verdict: rec.Verdict, found: Evidence | None) -> bool:
    state = turn.state
    before = state.verdicts.get(host)
    if before is not verdict:
        told = found.told() if found is not None else {}
        text = ", ".join(f"{sign} {word}" for sign, word in told.items())
        stands = state.mirror.verdicts.get(host)
        if before is not None or stands is None or stands.record.verdict is not verdict:
            because = _verdict_before(turn, host)
            cause = turn.note(f"verdict.{verdict}", host=host, text=text, because=because)
            turn.set(verdict_causes=turn.state.verdict_causes.set(host, cause))
        else:
            turn.set(verdict_causes=turn.state.verdict_causes.set(host, stands.record.because))
        turn.set(verdicts=state.verdicts.set(host, verdict))
        _wake(turn, host)
    _write_verdict(turn, host, verdict, found)
    return before is not verdict


def _verdict_before(turn: Turn, host: str) -> str:
    """The event of the verdict that this one follows, by this leader or the one before.

    A chain of verdicts begins anew with each trouble, or it would lead back to the host's first day.
    """
    before, stands = turn.state.verdicts.get(host), turn.state.mirror.verdicts.get(host)
    if before is None and stands is not None and stands.record.verdict is not rec.Verdict.ALIVE:
        return stands.record.because
    return "" if before in (None, rec.Verdict.ALIVE) else turn.state.verdict_causes.get(host, "")


def _is_told(turn: Turn, host: str, verdict: rec.Verdict) -> bool:
    """Whether the store says so already."""
    mirror = turn.state.mirror
    stands = mirror.verdicts.get(host)
    return stands is not None and stands.record.verdict is verdict and rec.VERDICTS + host not in mirror.bad


def _may_tell(turn: Turn, host: str, verdict: rec.Verdict) -> bool:
    """Whether the store is to be told, and can be at this tick."""
    if _is_told(turn, host, verdict) or turn.is_busy(rec.VERDICTS + host):
        return False
    return turn.told < TOLD_AT_ONCE


def _write_verdict(turn: Turn, host: str, verdict: rec.Verdict, found: Evidence | None) -> None:
    key = rec.VERDICTS + host
    if not _may_tell(turn, host, verdict):
        return
    turn.told += 1
    record = rec.VerdictRecord(
        host=host,
        verdict=verdict,
        evidence=found.told() if found is not None else {},
        by=turn.state.me,
        because=turn.state.verdict_causes.get(host, ""),
    )
    turn.write(Act.VERDICT, key, (), (Put(key, rec.encode(record)),), record.because)
