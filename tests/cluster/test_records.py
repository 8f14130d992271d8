"""Records are read with suspicion: what cannot be is refused, naming the key and what is wrong."""

from dataclasses import replace

import pytest

from outlive.cluster import records as rec
from outlive.cluster.workload import OnIsolation

from .small_world import service

PLACED = rec.PlacementRecord(
    "vm", 7, "a", 3, standby="b", standby_claim=5, pairing=2, paired=True, disk_hosts=("a", "b")
)
FOLLOWS = rec.StandbyRecord("vm", 7, 2, "b", 5, rec.StandbyStage.WHOLE, "10.0.0.2", 4000)


def test_a_pair_is_read_back_as_it_was_written() -> None:
    assert rec.decode("placements/vm", rec.encode(PLACED)) == PLACED
    assert rec.decode("standbys/vm", rec.encode(FOLLOWS)) == FOLLOWS


def test_a_placement_says_which_machine_held_its_claim() -> None:
    held = replace(PLACED, boot_id="0123456789abcdef" * 2, heartbeats=77)
    assert rec.decode("placements/vm", rec.encode(held)) == held


def test_a_placement_of_before_there_were_pairs_is_read() -> None:
    old = b'{"workload":"web","generation":3,"host":"a","claim":2}'
    assert rec.decode("placements/web", old) == rec.PlacementRecord("web", 3, "a", 2)


def test_a_workload_that_says_nothing_about_isolation_is_written_as_versions_before_read_it() -> None:
    """A null there is refused by them, and their leader would take the record back."""
    for silent in (service("web"), service("web", on_isolation=None)):
        written = rec.encode(rec.WorkloadRecord(silent))
        assert b"on_isolation" not in written
        assert rec.decode("workloads/web", written) == rec.WorkloadRecord(service("web"))
    told = rec.encode(rec.WorkloadRecord(service("web", on_isolation=OnIsolation.LEAVE)))
    assert b'"on_isolation":"leave"' in told


def test_a_workload_that_was_written_with_a_null_there_is_the_same_workload() -> None:
    written = rec.encode(rec.WorkloadRecord(service("web"))).replace(b'"kind":', b'"on_isolation":null,"kind":')
    record = rec.decode("workloads/web", written)
    assert record == rec.WorkloadRecord(service("web"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"generation": 0}, "a generation of 0 cannot be"),
        ({"pairing": -1}, "a pairing of -1 cannot be"),
        ({"heartbeats": -1}, "-1 heartbeats cannot be"),
        ({"standby": "a"}, "a cannot follow itself"),
        ({"moving_to": "a"}, "a cannot follow itself"),
        ({"standby": None}, "it is paired with nobody"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    value = rec.encode(replace(PLACED, **changes))  # type: ignore[arg-type]
    with pytest.raises(rec.BadRecord) as caught:
        rec.decode("placements/vm", value)
    assert caught.value.cause == problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"generation": 0}, "a pairing of 2 at generation 0 cannot be"),
        ({"pairing": 0}, "a pairing of 0 at generation 7 cannot be"),
        ({"port": 0}, "it is whole, and does not say where"),
        ({"port": 70000}, "it is whole, and does not say where"),
        ({"address": ""}, "it is whole, and does not say where"),
        ({"workload": "other"}, "it holds the record of 'other'"),
    ],
)
def test_a_standbys_statement_that_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    value = rec.encode(replace(FOLLOWS, **changes))  # type: ignore[arg-type]
    with pytest.raises(rec.BadRecord) as caught:
        rec.decode("standbys/vm", value)
    assert caught.value.cause == problem


def test_the_answer_to_a_request_and_how_far_events_are_pruned_are_read_back() -> None:
    answered = rec.RequestRecord("k", "f", "a", 17, 202, {"operation": {"id": "x"}, "revision": 0})
    assert rec.decode("requests/k", rec.encode(answered)) == answered
    assert rec.decode("pruned", rec.encode(rec.PrunedRecord(7, "events/1-a"))) == rec.PrunedRecord(7, "events/1-a")
    with pytest.raises(rec.BadRecord):
        rec.decode("requests/other", rec.encode(answered))
