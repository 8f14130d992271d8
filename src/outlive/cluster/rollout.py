"""How a workload comes to another version of its package, and back again when that one is no good.

One workload after the other: a package's record names the one that is on trial, and whoever begins compares that very
record, so that no two are down at once because of it, whoever leads. A trial always ends: by success, by the new
version's failure or by its time; then the workload is as it was before, and nothing else is brought to that version.
A host gets the version before anything is stopped. How a changed workload is stopped and started is in `courses`.
"""

from dataclasses import replace

from . import records as rec
from . import retrying
from .commands import Act
from .failover import Proof, Wait
from .freezing import frozen
from .heartbeat import ModuleStatus
from .leader_state import Turn
from .mirror import Entry, Mirror
from .pushed import PackageRecord
from .signs import Signs, statuses
from .transaction import Compare, Delete, Put, unchanged
from .workload import Workload

PREPARING_S = 900.0
"""How long a trial may take before its modules are started: the old version stops, the new one is installed."""
MOST_GENERATIONS = 6
"""How often a workload may be placed anew in a trial, whatever for, before the trial counts as failed."""


def applied(stands: rec.WorkloadRecord | None, wanted: Workload, because: str = "") -> rec.WorkloadRecord | None:
    """The record once a user has applied a workload; None when it says that already.

    Another version of the same package waits for its turn, and one that is on trial meanwhile is given up for the one
    before; everything else holds at once.
    """
    if stands is None:
        return rec.WorkloadRecord(wanted, because=because)
    rollout, running = stands.rollout, stands.desired is rec.Desired.RUNNING
    if running and newest(stands) == wanted:
        return None
    record = replace(stands, desired=rec.Desired.RUNNING, because=because)
    if stands.workload == wanted:
        waited = rollout is not None and rollout.state is rec.RolloutState.WAITING
        return replace(record, rollout=None if waited else rollout)
    if rollout is not None and _on_trial(stands):
        record = replace(record, workload=rollout.other, version=stands.version + 1, rollout=None)
    if running and is_another_version(record.workload, wanted):
        return replace(record, rollout=rec.Rollout(rec.RolloutState.WAITING, wanted, because=because))
    if record.workload == wanted:
        return record
    return replace(record, workload=wanted, version=stands.version + 1, rollout=None)


def newest(record: rec.WorkloadRecord | None) -> Workload | None:
    """The workload as it was asked for last: what waits for its turn, else what holds."""
    if record is None:
        return None
    waiting = record.rollout is not None and record.rollout.state is rec.RolloutState.WAITING
    return record.rollout.other if waiting and record.rollout is not None else record.workload


def as_asked(record: rec.WorkloadRecord) -> rec.WorkloadRecord:
    """The record as it will be once its change is done: what is checked before that is begun."""
    return replace(record, workload=newest(record) or record.workload, rollout=None)


def caused(record: rec.WorkloadRecord, because: str) -> rec.WorkloadRecord:
    """The record with the event of the wish that led to it."""
    rollout = record.rollout
    waiting = rollout is not None and rollout.state is rec.RolloutState.WAITING
    if rollout is not None and waiting:
        rollout = replace(rollout, because=because)
    return replace(record, because=because, rollout=rollout)


def _on_trial(record: rec.WorkloadRecord) -> bool:
    return record.rollout is not None and record.rollout.state is rec.RolloutState.TRIAL


def is_another_version(one: Workload, other: Workload) -> bool:
    """Whether both are from packages of the same name, and not from the same content."""
    if one.package is None or other.package is None or one.package.name != other.package.name:
        return False
    return one.package.all() != other.package.all()


def target(record: rec.WorkloadRecord) -> str:
    """NAME@VERSION of what it is being brought to; '' when it is not."""
    rollout = record.rollout
    if rollout is None:
        return ""
    state = rec.RolloutState
    workload = rollout.other if rollout.state in (state.WAITING, state.HALTED, state.BACK) else record.workload
    return workload.package.key if workload.package is not None else ""


def runs_from(record: rec.WorkloadRecord, placed: rec.PlacementRecord | None) -> str:
    """NAME@VERSION of the package that a workload runs from now, or is to where it runs nowhere; '' for none."""
    rollout, workload = record.rollout, record.workload
    moved = rollout is not None and rollout.state in (rec.RolloutState.TRIAL, rec.RolloutState.BACK)
    older = placed is not None and placed.host is not None and placed.version != record.version
    if rollout is not None and moved and older:
        workload = rollout.other
    return workload.package.key if workload.package is not None else ""


def told(record: rec.WorkloadRecord) -> str:
    """How a change of its package stands, for people; '' when there is nothing to tell."""
    rollout, key = record.rollout, target(record)
    if rollout is None:
        return ""
    match rollout.state:
        case rec.RolloutState.WAITING:
            stopped = record.desired is rec.Desired.STOPPED
            return f"it is brought to {key} once it is started" if stopped else f"it waits to be brought to {key}"
        case rec.RolloutState.TRIAL:
            return f"it is being brought to {key}"
        case rec.RolloutState.BACK:
            return f"{key} was given up: {rollout.reason}"
        case rec.RolloutState.HALTED:
            return f"it was not brought to {key}: {rollout.reason}"
        case _:
            return ""


def was_given_up(wanted: rec.WorkloadRecord, placed: rec.PlacementRecord) -> bool:
    """Whether what was placed is a version that was given up since: how it ended says nothing about its host."""
    rollout = wanted.rollout
    return rollout is not None and rollout.state is rec.RolloutState.BACK and placed.version == rollout.version


def why_changed(wanted: rec.WorkloadRecord) -> str:
    """Why a workload whose record is newer than its placement is stopped."""
    rollout, package = wanted.rollout, wanted.workload.package
    if rollout is not None and package is not None and rollout.version in (wanted.version, wanted.version - 1):
        if rollout.state is rec.RolloutState.TRIAL:
            return f"it is brought to {package.key}"
        if rollout.state is rec.RolloutState.BACK:
            return f"it goes back to {package.key}"
    return "its file changed"


def tend(
    turn: Turn,
    wanted: Entry[rec.WorkloadRecord] | None,
    placed: Entry[rec.PlacementRecord] | None,
    end: Proof | Wait | None = None,
    signs: Signs | None = None,
) -> bool:
    """See to a workload's change of version; True when nothing else may be decided on it now.

    end: whether its host has stopped acting, where one was placed.  signs: what that host says.
    """
    if wanted is None or wanted.record.rollout is None:
        return False
    record, name = wanted.record, wanted.record.workload.name
    state = wanted.record.rollout.state
    if state not in (rec.RolloutState.WAITING, rec.RolloutState.TRIAL):
        return False
    if turn.is_busy(rec.WORKLOADS + name):
        return True
    if record.desired is rec.Desired.STOPPED and state is rec.RolloutState.TRIAL:
        return _put_off(turn, wanted)
    if record.desired is not rec.Desired.RUNNING:
        return False
    if state is rec.RolloutState.WAITING:
        return _begin_when_due(turn, wanted, placed)
    return _judge(turn, wanted, placed, end, signs)


# Before the trial.


def _begin_when_due(turn: Turn, wanted: Entry[rec.WorkloadRecord], placed: Entry[rec.PlacementRecord] | None) -> bool:
    record, name, mirror = wanted.record, wanted.record.workload.name, turn.state.mirror
    rollout, key = record.rollout, target(record)
    assert rollout is not None
    package = mirror.packages.get(key)
    if turn.is_busy(rec.PACKAGES + key):
        return False  # who is on trial with it the picture shows in a moment
    if package is not None and package.record.failed:
        where, why = min(package.record.failed.items())
        reason = f"{key} was given up with {where}: {why}"
        halted = replace(rollout, state=rec.RolloutState.HALTED, reason=reason)
        cause = turn.note("rollout.halted", workload=name, text=reason, because=rollout.because)
        _write(turn, wanted, replace(record, rollout=halted), cause, None, None)
        return True
    if reason := _must_wait(turn, name, key, rollout.other, package, placed):
        _tell_waiting(turn, name, reason, rollout.because)
        return False
    assert package is not None
    version, generation = record.version + 1, placed.record.generation if placed is not None else 0
    trial = rec.Rollout(
        rec.RolloutState.TRIAL, record.workload, version=version, generation=generation, because=rollout.because
    )
    text = f"{record.workload.package.key if record.workload.package else ''} → {key}"
    cause = turn.note("rollout.started", workload=name, text=text, because=rollout.because)
    began = replace(record, workload=rollout.other, version=version, rollout=trial, because=cause)
    turn.set_course(name, trial_since=None, starting_since=None, rollout_waits="")
    _write(turn, wanted, began, cause, package, replace(package.record, trial=name))
    return True


def _must_wait(
    turn: Turn,
    name: str,
    key: str,
    other: Workload,
    package: Entry[PackageRecord] | None,
    placed: Entry[rec.PlacementRecord] | None,
) -> str:
    """Why its turn has not come; '' when it has."""
    if reason := frozen(turn.state.mirror):
        return reason
    if package is None or package.record.removing:
        return f"{key} is not among the packages any more"
    if package.record.trial not in ("", name):
        return f"{package.record.trial} is brought to {key} first"
    host = placed.record.host if placed is not None else None
    if host is None:
        return ""
    depot = turn.state.mirror.depots.get(host)
    holds = depot.record.holds if depot is not None else {}
    missing = [each for each in (other.package.all() if other.package else ()) if each.id not in holds]
    if not missing:
        return ""
    trouble = depot.record.troubles.get(missing[0].key, "") if depot is not None else ""
    return f"{host} does not have {missing[0].key} yet{': ' if trouble else ''}{trouble}"


def _tell_waiting(turn: Turn, name: str, reason: str, because: str) -> None:
    if turn.course(name).rollout_waits != reason:
        turn.note("rollout.waiting", workload=name, text=reason, because=because)
        turn.set_course(name, rollout_waits=reason)


# The trial.


def _judge(
    turn: Turn,
    wanted: Entry[rec.WorkloadRecord],
    placed: Entry[rec.PlacementRecord] | None,
    end: Proof | Wait | None,
    signs: Signs | None,
) -> bool:
    record, name = wanted.record, wanted.record.workload.name
    if turn.course(name).trial_since is None:
        turn.set_course(name, trial_since=turn.state.at)
    reason = _failure(turn, record, placed.record if placed is not None else None, end, signs)
    failed = bool(reason) and not frozen(turn.state.mirror)
    ran = placed is not None and placed.record.version == record.version and _proved(turn, record, placed.record)
    if not failed and not ran:
        return False
    if turn.is_busy(rec.PACKAGES + target(record)):
        return True  # both records change together, and the picture does not show yet what the package's says
    if failed:
        _give_up(turn, wanted, placed, reason)
    else:
        _succeed(turn, wanted)
    return True


def _put_off(turn: Turn, wanted: Entry[rec.WorkloadRecord]) -> bool:
    """It was stopped on trial: nobody can judge it, and nobody shall wait for it. It waits for its turn as before."""
    record, rollout, key = wanted.record, wanted.record.rollout, target(wanted.record)
    assert rollout is not None
    if turn.is_busy(rec.PACKAGES + key):
        return True
    name, package = record.workload.name, turn.state.mirror.packages.get(key)
    reason = f"it was stopped before {key} had proven itself; that is tried anew once it is started"
    cause = turn.note("rollout.waiting", workload=name, text=reason, because=record.because)
    waits = rec.Rollout(rec.RolloutState.WAITING, record.workload, because=cause)
    before = replace(record, workload=rollout.other, version=record.version + 1, rollout=waits)
    on_trial = package is not None and package.record.trial == name
    turn.set_course(name, trial_since=None, starting_since=None)
    _write(turn, wanted, before, cause, package, replace(package.record, trial="") if package and on_trial else None)
    return True


def _failure(
    turn: Turn,
    record: rec.WorkloadRecord,
    placed: rec.PlacementRecord | None,
    end: Proof | Wait | None,
    signs: Signs | None,
) -> str:
    """Why the trial has failed; '' while it has not."""
    rollout, policy, name = record.rollout, record.workload.upgrade, record.workload.name
    assert rollout is not None
    tried = placed is not None and placed.version == record.version
    report = turn.state.mirror.reports.get(name)
    mine = tried and placed is not None and report is not None and report.record.generation == placed.generation
    stage = report.record.stage if mine and report is not None else rec.Stage.PREPARING
    if tried and isinstance(end, Proof) and end.own_fault:
        return end.reason
    if tried and placed is not None and signs is not None:
        said = statuses(signs, name, placed.generation) or {}
        failed = sorted(module for module, status in said.items() if status is ModuleStatus.FAILED)
        if failed:
            why = report.record.reason if mine and report is not None else ""
            return why or f"module {failed[0]} failed"
    if placed is not None and rollout.generation and placed.generation - rollout.generation > MOST_GENERATIONS:
        return f"it was placed {placed.generation - rollout.generation} times and did not stay"
    course = turn.course(name)
    if stage is not rec.Stage.PREPARING and course.starting_since is None:
        turn.set_course(name, starting_since=turn.state.at)
        return ""
    since = course.starting_since if course.starting_since is not None else course.trial_since
    limit_s = policy.healthy_within_s if course.starting_since is not None else PREPARING_S
    if since is None or stage is rec.Stage.RUNNING or turn.state.at - since <= limit_s:
        return ""
    return f"it did not run within {limit_s:g} s"


def _proved(turn: Turn, record: rec.WorkloadRecord, placed: rec.PlacementRecord) -> bool:
    """Whether it has run whole for long enough."""
    settled_at = turn.course(placed.workload).settled_at
    if placed.order is rec.Order.STOP or settled_at is None or not runs(turn.state.mirror, placed):
        return False
    return turn.state.at - settled_at >= record.workload.upgrade.watch_s


def runs(mirror: Mirror, placed: rec.PlacementRecord) -> bool:
    """Whether its host says that all of it runs."""
    report = mirror.reports.get(placed.workload)
    if report is None or report.record.generation != placed.generation or report.record.host != placed.host:
        return False
    return report.record.stage is rec.Stage.RUNNING


def _give_up(
    turn: Turn, wanted: Entry[rec.WorkloadRecord], placed: Entry[rec.PlacementRecord] | None, reason: str
) -> None:
    record, rollout, name = wanted.record, wanted.record.rollout, wanted.record.workload.name
    assert rollout is not None
    report = turn.state.mirror.reports.get(name)
    mine = placed is not None and report is not None and report.record.generation == placed.record.generation
    because = report.record.because if mine and report is not None else record.because
    former = rollout.other.package.key if rollout.other.package is not None else "what it was"
    text = f"{target(record)}: {reason}; back to {former}"
    about = {"generation": placed.record.generation, "host": placed.record.host or ""} if placed is not None else {}
    cause = turn.note("rollout.failed", workload=name, text=text, because=because, **about)
    back = replace(
        record,
        workload=rollout.other,
        version=record.version + 1,
        rollout=replace(
            rollout, state=rec.RolloutState.BACK, other=record.workload, version=record.version, reason=reason
        ),
        because=cause,
    )
    package = turn.state.mirror.packages.get(target(record))
    failed = replace(package.record, failed={**package.record.failed, name: reason}) if package is not None else None
    # How another version fared says nothing of this one: neither how often it failed, nor where, nor until when.
    retrying.forgive(turn, name)
    turn.set_course(name, trial_since=None, starting_since=None, cause=cause)
    _write(turn, wanted, back, cause, package, failed)


def _succeed(turn: Turn, wanted: Entry[rec.WorkloadRecord]) -> None:
    record, rollout, name = wanted.record, wanted.record.rollout, wanted.record.workload.name
    assert rollout is not None
    placed = turn.state.mirror.placements[name].record
    report = turn.state.mirror.reports[name].record
    cause = turn.note(
        "rollout.done", workload=name, generation=placed.generation, host=placed.host or "",
        text=target(record), because=report.because,
    )  # fmt: skip
    done = replace(record, rollout=replace(rollout, state=rec.RolloutState.DONE))
    package = turn.state.mirror.packages.get(target(record))
    free = replace(package.record, trial="") if package is not None and package.record.trial == name else None
    _write(turn, wanted, done, cause, package, free)


# Writing.


def _write(
    turn: Turn,
    wanted: Entry[rec.WorkloadRecord],
    record: rec.WorkloadRecord,
    because: str,
    package: Entry[PackageRecord] | None,
    changed: PackageRecord | None,
) -> None:
    """Write a workload's record, and its package's where that changes, both or neither."""
    key = rec.WORKLOADS + record.workload.name
    compares: list[Compare] = [unchanged(key, wanted.mod_revision)]
    writes: list[Put | Delete] = [Put(key, rec.encode(record))]
    if package is not None and changed is not None:
        room = rec.PACKAGES + changed.key
        compares.append(unchanged(room, package.mod_revision))
        writes.append(Put(room, rec.encode(changed)))
    turn.write(Act.ROLLOUT, key, tuple(compares), tuple(writes), because)
