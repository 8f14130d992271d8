"""A workload comes to another version of its package in its turn, and goes back when that one is no good."""

from dataclasses import replace

from outlive.cluster import records as rec
from outlive.cluster import rollout
from outlive.cluster.pushed import PackageUse, Pinned
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
