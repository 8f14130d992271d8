"""What the leader does for each workload: place it, have it stopped, restored, or begun anew elsewhere.

One look at one workload leads to at most one write, and the next look waits until that write is in the picture. The
order of the questions matters: is the record whole, does anybody act, has that host stopped, should it stop, is
a module failed. Every new generation passes `failover.proof_of_end` first.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace

from immutables import Map

from . import beginning, beside, fencing, pairs, placing, retrying, rollout, waiting
from . import records as rec
from .affinity import Relations
from .commands import Act
from .failover import Proof, Wait, proof_of_end
from .freezing import asked_for, frozen
from .heartbeat import ModuleStatus
from .leader_state import Turn
from .mirror import Entry
from .recovery import held_generations, recovered
from .signs import Signs, statuses
from .supervision import Action, Attempts, supervise
from .transaction import Delete, Put, absent, same_incarnation, unchanged
from .workload import Workload

PLACED_AT_ONCE = 64
"""How many workloads are placed in one turn: else the loss of a site would keep a leader from its own claim."""
LOOKED_AT_ONCE = 1000
"""How many are looked at in one turn, and how many of those that nothing happened to in one second."""


def advance(turn: Turn, names: Iterable[str]) -> None:
    """Look at these workloads, the most important first, until this turn has to end; the others stay restless.

    First those for which nobody may be acting, until so many were placed; then the others. Those that were looked at
    when too many were waiting for it come last, until each of the others had its look.
    """
    asked, settled, left = set(names), set[str](), set[str]()
    urgent, known = _urgent(turn, asked), beside.relations(turn)
    for group in (urgent, asked - urgent):
        looked = 0
        for name in _in_turn(turn, group, known):
            if looked >= LOOKED_AT_ONCE or (group is urgent and turn.placed >= PLACED_AT_ONCE):
                left |= {name}
                continue
            looked += 1
            if _look(turn, name):
                settled.add(name)
    turn.set(restless=(turn.state.restless | asked) - settled)
    if turn.in_vain:
        waiting.notice(turn)
    left |= turn.put_off
    # Who was not reached because of those before has the next turn before them; what was placed is no such reason.
    held_up = turn.placed < PLACED_AT_ONCE and bool(left)
    passed = (turn.state.passed | (asked - left)) & turn.state.restless.union(turn.state.waiting) if held_up else None
    if passed is not None and turn.state.restless - passed:
        turn.set(passed=passed)
    elif turn.state.passed and turn.placed < PLACED_AT_ONCE:
        turn.set(passed=frozenset())


def _urgent(turn: Turn, names: set[str]) -> set[str]:
    """Those of them whose host is not well, or who have none."""
    placements, verdicts = turn.state.mirror.placements, turn.state.verdicts
    hosts = {name: entry.record.host or "" for name in names if (entry := placements.get(name)) is not None}
    return {name for name in names if verdicts.get(hosts.get(name, "")) is not rec.Verdict.ALIVE}


def _in_turn(turn: Turn, names: set[str], known: Relations) -> Iterator[str]:
    passed = turn.state.passed
    for group in (names - passed, names & passed) if passed else (names,):
        yield from (name for _, _, name in sorted(known.rank(name) for name in group))


def wake_all(turn: Turn) -> None:
    """What holds for all workloads has changed: look at every one of them, as many in each turn as it has time for."""
    mirror = turn.state.mirror
    turn.set(restless=frozenset({*mirror.workloads, *mirror.placements, *mirror.lost}), waiting=Map())


def looked_at_by_turns(turn: Turn) -> list[str]:
    """All workloads, or where there are very many, those that are restless and the next few of the others."""
    mirror, restless = turn.state.mirror, turn.state.restless
    names = {*mirror.workloads, *mirror.placements, *mirror.lost}
    if len(names) <= LOOKED_AT_ONCE:
        return sorted(names)
    calm = sorted(names - restless)
    begin = bisect(calm, turn.state.looked_up_to)
    chosen = (calm[begin:] + calm[:begin])[:LOOKED_AT_ONCE]
    turn.set(looked_up_to=chosen[-1] if chosen else "")
    return sorted(restless.union(chosen))


def _look(turn: Turn, name: str) -> bool:
    """Deal with one workload; True when it needs no further look until something changes."""
    mirror = turn.state.mirror
    key = rec.PLACEMENTS + name
    if turn.is_busy(key):
        return False
    if key in mirror.bad or rec.WORKLOADS + name in mirror.bad:
        _heal_garbled(turn, name)
        return False
    wanted, placed = mirror.workloads.get(name), mirror.placements.get(name)
    if placed is None:
        return not rollout.tend(turn, wanted, None) and _first(turn, name, wanted)
    if wanted is None and placed.record.host is None:
        turn.set(courses=turn.state.courses.delete(name) if name in turn.state.courses else turn.state.courses)
        return True
    if placed.record.generation != turn.course(name).generation:
        turn.set_course(
            name,
            generation=placed.record.generation,
            modules=Map(),
            settled_at=None,
            asked_stop_at=None,
            take_over_since=None,
            standby=None,
            paired_since=None,
            trial_since=None,
            starting_since=None,
            after_since=None,
            after_told=False,
            held_for="",
            begun_at=turn.state.at,
            moved_at=None,
            drain="",
            stayed=0,
            stayed_at=None,
        )
    if placed.record.host is None:
        return not rollout.tend(turn, wanted, placed) and _unplaced(turn, wanted, placed)
    verdict = turn.state.verdicts.get(placed.record.host, rec.Verdict.SUSPECT)
    if placed.record.host not in mirror.hosts:
        verdict = rec.Verdict.DEAD
    signs = turn.state.signs.get(placed.record.host)
    freed = turn.state.freed.get(name) == placed.record.generation
    end = proof_of_end(placed.record, mirror, signs, verdict, turn.state.timing, turn.state.at, freed=freed)
    if rollout.tend(turn, wanted, placed, end, signs):
        return False
    if isinstance(end, Proof):
        return _ended(turn, wanted, placed, end, verdict)
    return _standing(turn, wanted, placed, end, verdict, signs)


def _heal_garbled(turn: Turn, name: str) -> None:
    """A record that cannot be read is written again as it was last known; without that nothing is decided on it."""
    mirror = turn.state.mirror
    for key, known in (
        (rec.PLACEMENTS + name, mirror.placements.get(name)),
        (rec.WORKLOADS + name, mirror.workloads.get(name)),
    ):
        if key not in mirror.bad:
            continue
        revision, problem = mirror.bad[key]
        record: rec.Record | None = known.record if known is not None else None
        wanted = mirror.workloads.get(name)
        if record is None and key == rec.PLACEMENTS + name and wanted is not None:
            record = _recovered(turn, name, wanted)
            if record is None:
                continue
        if record is None:
            placing.wait(turn, name, f"its record {key} cannot be read: {problem}", "record.unreadable")
        elif not turn.is_busy(key):
            cause = turn.note("record.healed", workload=name, text=f"{key} could not be read: {problem}")
            turn.write(Act.HEAL, key, (unchanged(key, revision),), (Put(key, rec.encode(record)),), cause)


def _is_held(turn: Turn, name: str) -> bool:
    signs = turn.state.signs
    return any(held_generations(signs.get(host), name) for host in signs.hosts())


def _recovered(turn: Turn, name: str, wanted: Entry[rec.WorkloadRecord]) -> rec.PlacementRecord | None:
    """What a placement that nobody remembers must have been; None, and the reason told, as long as that is open."""
    state = turn.state
    found = recovered(name, wanted.record.version, state.mirror, state.signs, state.timing, state.at)
    if isinstance(found, Wait):
        placing.wait(turn, name, found.reason, "record.unreadable")
        return None
    return found


def _first(turn: Turn, name: str, wanted: Entry[rec.WorkloadRecord] | None) -> bool:
    """There is no placement: the first one, or one that was removed by hand."""
    mirror, key = turn.state.mirror, rec.PLACEMENTS + name
    if wanted is None:
        turn.set(courses=turn.state.courses.delete(name) if name in turn.state.courses else turn.state.courses)
        return True
    known = mirror.lost.get(name)
    if known is None and (name in mirror.reports or _is_held(turn, name)):
        known = _recovered(turn, name, wanted)
        if known is None:
            return False
    if known is not None:
        cause = turn.note("record.healed", workload=name, text=f"{key} had been removed")
        turn.write(Act.HEAL, key, (absent(key),), (Put(key, rec.encode(known)),), cause)
        return False
    if wanted.record.desired is rec.Desired.REMOVED:
        placing.forget(turn, name, wanted, None)
        return False
    if wanted.record.desired is rec.Desired.STOPPED:
        return True
    if turn.course(name).cause == "":
        turn.set_course(name, cause=wanted.record.because)
    return placing.place(turn, wanted.record, None, None)


def _unplaced(turn: Turn, wanted: Entry[rec.WorkloadRecord] | None, placed: Entry[rec.PlacementRecord]) -> bool:
    """Nobody acts for it."""
    if wanted is None:
        return True
    if wanted.record.desired is rec.Desired.REMOVED:
        placing.forget(turn, placed.record.workload, wanted, placed)
        return False
    name = placed.record.workload
    if wanted.record.desired is rec.Desired.STOPPED:
        retrying.forgive(turn, name)
        if placed.record.failures:
            placing.write_placement(turn, replace(placed.record, failures=0), placed, ())
        return True
    if (reason := frozen(turn.state.mirror)) and not asked_for(turn.state.mirror, placed.record):
        placing.wait(turn, name, reason, "placement.frozen")
        return True
    if turn.course(name).cause == "":
        turn.set_course(name, cause=wanted.record.because)
    return placing.place(turn, wanted.record, placed, None)


def _ended(
    turn: Turn,
    wanted: Entry[rec.WorkloadRecord] | None,
    placed: Entry[rec.PlacementRecord],
    proof: Proof,
    verdict: rec.Verdict,
) -> bool:
    """Its host has certainly stopped acting: begin anew, or leave it stopped."""
    record, name = placed.record, placed.record.workload
    if wanted is None or wanted.record.desired is not rec.Desired.RUNNING:
        report = turn.state.mirror.reports.get(name)
        cause = turn.note(
            "workload.unplaced",
            workload=name,
            generation=record.generation,
            text=proof.reason,
            because=report.record.because if report else record.because,
        )
        stopped = replace(placing.nobodys(record), order=rec.Order.STOP, failures=0, reason=proof.reason, because=cause)
        placing.write_placement(turn, stopped, placed, ())
        return False
    if pairs.is_taking_over(turn, record):
        placing.wait(turn, name, f"its standby on {record.standby} is to take over", "takeover.waiting", record.because)
        return False
    by_its_fault = proof.own_fault or record.reason.startswith(retrying.BY_ITS_FAULT)
    planned = record.order is rec.Order.STOP and not by_its_fault
    planned = planned or rollout.was_given_up(wanted.record, record)
    if not planned and (reason := frozen(turn.state.mirror)):
        cause = _cause_of_end(turn, record, verdict)
        placing.wait(turn, name, f"{proof.reason}, and {reason}", "failover.frozen", cause)
        return True
    if not planned and turn.course(name).counted != record.generation:
        retrying.count_end(turn, record, proof, verdict)
        cause = _cause_of_end(turn, record, verdict)
        about = {"workload": name, "generation": record.generation, "host": record.host or "", "text": proof.reason}
        turn.set_course(name, cause=turn.note("workload.fenced", because=cause, **about))
    if turn.course(name).cause == "":
        turn.set_course(name, cause=_cause_of_end(turn, record, verdict))
    prefer = (record.next_host or record.host) if planned else None
    kind, resume_at = ("workload.placed", record.resume_at) if planned else ("failover.started", "")
    return placing.place(turn, wanted.record, placed, proof, prefer, kind, resume_at)


def _cause_of_end(turn: Turn, record: rec.PlacementRecord, verdict: rec.Verdict) -> str:
    report = turn.state.mirror.reports.get(record.workload)
    if report is not None and report.record.generation == record.generation and report.record.stage in rec.FINAL:
        return report.record.because
    if verdict is not rec.Verdict.ALIVE and record.host is not None:
        return fencing.cause_of_wait(turn, record.host) or record.because
    return record.because


def _standing(
    turn: Turn,
    wanted: Entry[rec.WorkloadRecord] | None,
    placed: Entry[rec.PlacementRecord],
    wait: Wait,
    verdict: rec.Verdict,
    signs: Signs,
) -> bool:
    """A host acts for it, or may still."""
    record, name = placed.record, placed.record.workload
    course = turn.course(name)
    if record.order is rec.Order.STOP:
        _force(turn, record)
        if wait.unfenced:
            placing.wait(turn, name, wait.reason, "failover.waiting", fencing.cause_of_wait(turn, record.host or ""))
        else:
            beginning.mind_deaf(turn, placed, verdict)
        return False
    if wanted is None or wanted.record.desired is not rec.Desired.RUNNING:
        because = wanted.record.because if wanted else ""
        placing.order_stop(turn, placed, "it was asked to stop", because)
        return False
    if wanted.record.version != record.version:
        why = rollout.why_changed(wanted.record)
        placing.order_stop(turn, placed, why, wanted.record.because, next_host=record.host)
        return False
    if verdict is not rec.Verdict.ALIVE or not _claim_stands(turn, record):
        if wait.reason and verdict is not rec.Verdict.SUSPECT:
            placing.wait(turn, name, wait.reason, "failover.waiting", fencing.cause_of_wait(turn, record.host or ""))
        return waiting.for_claim(turn, name, wait)
    if course.waiting or course.held_for:
        turn.set_course(name, waiting="", cause="", held_for="")
    if pairs.tend(turn, wanted.record.workload, placed):
        return False
    if frozen(turn.state.mirror):
        return True
    if beginning.is_overdue(turn, placed):
        return False
    settled = _supervise(turn, wanted.record.workload, placed, signs)
    return _forgive(turn, placed) and settled


def _claim_stands(turn: Turn, record: rec.PlacementRecord) -> bool:
    claim = turn.state.mirror.claimed(record.host or "")
    return claim is not None and claim.incarnation == record.claim


def _force(turn: Turn, record: rec.PlacementRecord) -> None:
    """A forced failover whose host does not stop: end that host's claim, and with it all that it runs."""
    operation = turn.state.mirror.operations.get(record.operation or "")
    host = record.host
    if operation is None or host is None:
        return
    asked = operation.record
    if asked.kind is not rec.OperationKind.FAILOVER or asked.state is not rec.OperationState.RUNNING:
        return
    course = turn.course(record.workload)
    if course.asked_stop_at is None:
        turn.set_course(record.workload, asked_stop_at=turn.state.at)
        return
    claim, key = turn.state.mirror.claimed(host), rec.CLAIMS + host
    late = turn.state.at - course.asked_stop_at > turn.state.timing.claim_ttl_s
    if not late or claim is None or claim.incarnation != record.claim or turn.is_busy(key):
        return
    cause = turn.note(
        "claim.revoked", host=host, workload=record.workload, because=asked.because,
        text="a forced failover: the host did not stop the workload when asked",
    )  # fmt: skip
    turn.write(Act.REVOKE, key, (same_incarnation(key, claim.incarnation),), (Delete(key),), cause)


def _supervise(turn: Turn, workload: Workload, placed: Entry[rec.PlacementRecord], signs: Signs) -> bool:
    """Have failed modules restored; True when all run.

    While somebody follows, nothing is restored: that one goes on with it, or the host itself says that it does not.
    """
    record, name, at = placed.record, workload.name, turn.state.at
    said = statuses(signs, name, record.generation)
    if not said:
        return False
    if record.standby is not None or record.moving_to is not None:
        return all(status is ModuleStatus.RUNNING for status in said.values())
    for module in workload.modules:
        status = said.get(module.name)
        if status is None:
            continue
        before = turn.course(name).modules.get(module.name, Attempts())
        after, action = supervise(before, status, module.restore, turn.state.timing.verify_s, at)
        if after is not before:
            turn.set_course(name, modules=turn.course(name).modules.set(module.name, after))
        about = {
            "workload": name,
            "generation": record.generation,
            "module": module.name,
            "host": record.host or "",
        }
        if action is Action.RESTORED:
            turn.note("module.restored", because=record.because, **about)
        elif action is Action.RESTORE:
            made = len(after.made_at)
            text = f"attempt {made} of {module.restore.attempts}"
            cause = turn.note("restore.ordered", because=_report_cause(turn, record), text=text, **about)
            restores = {**record.restores, module.name: record.restores.get(module.name, 0) + 1}
            placing.write_placement(turn, replace(record, restores=restores, because=cause), placed, ())
            return False
        elif action is Action.GIVE_UP:
            reason = f"{retrying.GAVE_UP}: module {module.name} failed again after {len(after.made_at)} attempts"
            cause = turn.note("restore.given_up", because=_report_cause(turn, record), text=reason, **about)
            placing.order_stop(turn, placed, reason, cause)
            return False
    return all(status is ModuleStatus.RUNNING for status in said.values())


def _report_cause(turn: Turn, record: rec.PlacementRecord) -> str:
    report = turn.state.mirror.reports.get(record.workload)
    if report is not None and report.record.generation == record.generation and report.record.because:
        return report.record.because
    return record.because


def _forgive(turn: Turn, placed: Entry[rec.PlacementRecord]) -> bool:
    """After a while of running whole, past failures no longer count; True when nothing is left to forgive."""
    record, name = placed.record, placed.record.workload
    report = turn.state.mirror.reports.get(name)
    running = (
        report is not None
        and report.record.generation == record.generation
        and report.record.stage is rec.Stage.RUNNING
    )
    course = turn.course(name)
    if not running:
        if course.settled_at is not None:
            turn.set_course(name, settled_at=None)
        return False
    if course.settled_at is None:
        turn.set_course(name, settled_at=turn.state.at, waiting="", cause="")
        return False
    if course.failures and turn.state.at - course.settled_at >= turn.state.timing.stable_s:
        retrying.forgive(turn, name)
    if (forgiven := retrying.forgiven(turn, placed)) is not None:
        placing.write_placement(turn, forgiven, placed, ())
    return course.failures == record.failures == 0
