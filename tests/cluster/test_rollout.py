"""A workload comes to another version of its package in its turn, and goes back when that one is no good."""

from dataclasses import replace
from typing import Any

from immutables import Map
from msgspec.structs import replace as structs_replace

from outlive.cluster import leader, retrying, rollout
from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Purpose, RecordEvent, Transact
from outlive.cluster.events import Outcome, Transacted
from outlive.cluster.leader_state import Course, LeaderState, Turn
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.pushed import PackageRecord, PackageUse, Pinned
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put
from outlive.cluster.workload import Module, Workload

LIB = Pinned("lib", "1.0.0", "c" * 64)
OLD = Workload("web", (Module("main", ("x",)),), package=PackageUse("app", "^1", "1.0.0", "a" * 64, (LIB,)))
NEW = replace(OLD, package=PackageUse("app", "*", "2.0.0", "b" * 64, (LIB,)))
NEWER = replace(OLD, package=PackageUse("app", "*", "3.0.0", "d" * 64, (LIB,)))
STANDS = rec.WorkloadRecord(OLD, version=4)
WAITING = rec.WorkloadRecord(OLD, version=4, rollout=rec.Rollout(rec.RolloutState.WAITING, NEW))
TRIED = rec.WorkloadRecord(NEW, version=5, rollout=rec.Rollout(rec.RolloutState.TRIAL, OLD, version=5, generation=9))


def test_a_workload_that_is_new_or_the_same_has_nothing_to_come_to() -> None:
    assert rollout.applied(None, OLD) == rec.WorkloadRecord(OLD)
    assert rollout.applied(STANDS, OLD) is None
    assert rollout.applied(WAITING, NEW) is None


def test_another_version_waits_for_its_turn_and_all_else_holds_at_once() -> None:
    assert rollout.applied(STANDS, NEW) == WAITING
    edited = replace(OLD, priority=7)
    assert rollout.applied(STANDS, edited) == rec.WorkloadRecord(edited, version=5)


def test_what_waits_is_replaced_and_called_off_by_what_is_applied_then() -> None:
    replaced = rollout.applied(WAITING, NEWER)
    assert replaced is not None
    assert replaced.rollout == rec.Rollout(rec.RolloutState.WAITING, NEWER)
    assert rollout.applied(WAITING, OLD) == STANDS


def test_what_is_applied_during_a_trial_waits_for_its_turn_with_the_version_before() -> None:
    waits = rec.Rollout(rec.RolloutState.WAITING, NEWER)
    assert rollout.applied(TRIED, NEWER) == rec.WorkloadRecord(OLD, version=6, rollout=waits)
    assert rollout.applied(TRIED, OLD) == rec.WorkloadRecord(OLD, version=6)
    edited = replace(OLD, priority=7)
    assert rollout.applied(TRIED, edited) == rec.WorkloadRecord(edited, version=6)


def test_a_stopped_workload_begins_with_the_version_that_was_applied_last() -> None:
    stopped = replace(STANDS, desired=rec.Desired.STOPPED)
    assert rollout.applied(stopped, NEW) == rec.WorkloadRecord(NEW, version=5)


def test_it_is_told_which_version_runs_while_the_record_is_ahead_of_the_host() -> None:
    placed = rec.PlacementRecord("web", 9, "a", version=4)
    assert rollout.runs_from(TRIED, placed) == "app@1.0.0"
    assert rollout.runs_from(TRIED, replace(placed, version=5)) == "app@2.0.0"
    assert rollout.runs_from(WAITING, placed) == "app@1.0.0"
    assert rollout.runs_from(rec.WorkloadRecord(replace(OLD, package=None)), placed) == ""


def test_how_a_version_that_was_given_up_ended_says_nothing_about_its_host() -> None:
    back = rec.WorkloadRecord(OLD, version=6, rollout=rec.Rollout(rec.RolloutState.BACK, NEW, version=5))
    assert rollout.was_given_up(back, rec.PlacementRecord("web", 9, "a", version=5))
    assert not rollout.was_given_up(back, rec.PlacementRecord("web", 9, "a", version=4))


def test_records_of_a_change_are_read_back_as_they_were_written() -> None:
    for record in (WAITING, TRIED):
        assert rec.decode("workloads/web", rec.encode(record)) == record


# What the leader does.

APP2 = PackageRecord("app", "2.0.0", "b" * 64, hosts=("a",), trial="web")
KEY = rec.PACKAGES + APP2.key
REPORT = rec.ReportRecord("web", 10, "a", 7, rec.Stage.RUNNING)


def turn_for(
    workload: rec.WorkloadRecord, placed: rec.PlacementRecord, *, package: PackageRecord = APP2, **course: Any
) -> Turn:
    leads = Entry(rec.LeaderRecord("a"), 5, 5)
    picture = Mirror(
        revision=9,
        leader=leads,
        workloads=Map({"web": Entry(workload, 1, 8)}),
        placements=Map({"web": Entry(placed, 1, 9)}),
        packages=Map({package.key: Entry(package, 1, 6)}),
        reports=Map({"web": Entry(REPORT, 1, 7)}),
    )
    return Turn(LeaderState("a", Timing(), at=1000.0, mirror=picture, courses=Map({"web": Course(**course)})))


def looked(turn: Turn) -> bool:
    mirror = turn.state.mirror
    return rollout.tend(turn, mirror.workloads["web"], mirror.placements["web"])


def written(turn: Turn) -> dict[str, object]:
    found: dict[str, object] = {}
    for command in turn.commands:
        if isinstance(command, Transact):
            puts = [write for write in command.transaction.writes if isinstance(write, Put)]
            found |= {put.key: rec.decode(put.key, put.value) for put in puts}
    return found


def told_of(turn: Turn) -> list[str]:
    return [command.event.kind for command in turn.commands if isinstance(command, RecordEvent)]


RAN = rec.PlacementRecord("web", 10, "a", 7, version=5)


def test_an_end_waits_while_the_packages_record_is_being_written_and_is_told_once() -> None:
    turn = turn_for(TRIED, RAN, trial_since=900.0, settled_at=950.0)
    turn.write(Act.PACKAGE, KEY, (), (Put(KEY, rec.encode(APP2)),))
    assert looked(turn)
    assert told_of(turn) == []
    turn = turn_for(TRIED, RAN, trial_since=900.0, settled_at=950.0)
    assert looked(turn)
    assert told_of(turn) == ["rollout.done"]
    assert written(turn)[KEY] == replace(APP2, trial="")


def test_all_that_was_written_together_is_free_again_together() -> None:
    turn = turn_for(TRIED, RAN, trial_since=900.0, settled_at=950.0)
    looked(turn)
    both = (rec.WORKLOADS + "web", KEY)
    assert [turn.is_busy(key) for key in both] == [True, True]
    purpose = Purpose(Act.ROLLOUT, both[0])
    state, _ = leader.step(turn.state, Transacted(1000.1, purpose, 1000.0, Outcome.DONE, 12))
    assert [Turn(state).is_busy(key) for key in both] == [True, True], "the picture does not show it yet"
    seen = replace(state.mirror, revision=12)
    assert [Turn(structs_replace(state, mirror=seen)).is_busy(key) for key in both] == [False, False]
    refused, _ = leader.step(turn.state, Transacted(1000.1, purpose, 1000.0, Outcome.REFUSED, 12))
    later = structs_replace(refused, at=1000.1 + Timing().renew_s)
    assert [Turn(later).is_busy(key) for key in both] == [False, False]


def test_a_version_that_is_given_up_leaves_nothing_that_delays_the_one_before() -> None:
    ill: dict[str, Any] = {
        "failures": 2,
        "failed_on": frozenset("b"),
        "next_try_at": 2000.0,
        "elsewhere_at": 2000.0,
        "suspected": True,
    }
    turn = turn_for(TRIED, RAN, trial_since=0.0, starting_since=0.0, failed_version=5, **ill)
    hung = Entry(replace(REPORT, stage=rec.Stage.STARTING), 1, 7)
    turn.set(mirror=replace(turn.state.mirror, reports=Map({"web": hung})))
    assert looked(turn)
    back = written(turn)[rec.WORKLOADS + "web"]
    assert isinstance(back, rec.WorkloadRecord)
    assert back.rollout is not None
    assert (back.workload, back.rollout.state) == (OLD, rec.RolloutState.BACK)
    assert retrying.too_early(turn, back) == ""
    assert retrying.worn(turn, "web") == {}
    assert turn.course("web").elsewhere_at == 0.0


def test_who_is_stopped_on_trial_waits_for_its_turn_again_and_keeps_nobody_waiting() -> None:
    stopped = replace(TRIED, desired=rec.Desired.STOPPED)
    turn = turn_for(stopped, replace(RAN, host=None), trial_since=1.0, starting_since=2.0)
    assert looked(turn)
    put_off = written(turn)[rec.WORKLOADS + "web"]
    assert isinstance(put_off, rec.WorkloadRecord)
    assert put_off.rollout is not None
    assert (put_off.workload, put_off.desired, put_off.version) == (OLD, rec.Desired.STOPPED, 6)
    assert (put_off.rollout.state, put_off.rollout.other) == (rec.RolloutState.WAITING, NEW)
    assert written(turn)[KEY] == replace(APP2, trial="")
    assert told_of(turn) == ["rollout.waiting"]
    assert rollout.told(put_off) == "it is brought to app@2.0.0 once it is started"
    turn = turn_for(put_off, replace(RAN, host=None), package=replace(APP2, trial=""))
    assert not looked(turn), "nothing is begun for what is stopped"
    assert turn.commands == []
    turn = turn_for(
        replace(put_off, desired=rec.Desired.RUNNING), replace(RAN, host=None), package=replace(APP2, trial="")
    )
    assert looked(turn)
    assert told_of(turn) == ["rollout.started"]
    assert turn.course("web").trial_since is None
