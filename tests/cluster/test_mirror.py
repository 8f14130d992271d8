"""A host's picture of the store never goes backwards and survives what people write by hand."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.mirror import Mirror, changed, snapshot
from outlive.cluster.transaction import Delete, KeyValue

PREFIXES = (
    rec.HOSTS,
    rec.CLAIMS,
    rec.WORKLOADS,
    rec.PLACEMENTS,
    rec.REPORTS,
    rec.VERDICTS,
    rec.OPERATIONS,
    rec.MAINTENANCE,
)


def placement(generation: int, revision: int) -> KeyValue:
    record = rec.PlacementRecord("web", generation, "a", claim=3)
    return KeyValue(rec.PLACEMENTS + "web", rec.encode(record), 1, revision)


def test_changes_already_in_the_picture_change_nothing() -> None:
    mirror = changed(Mirror(), 5, [placement(2, 5)], 1.0)
    assert changed(mirror, 5, [placement(1, 4)], 2.0) is mirror


def test_a_garbled_record_leaves_the_last_good_one_and_is_named() -> None:
    mirror = changed(Mirror(), 5, [placement(2, 5)], 1.0)
    mirror = changed(mirror, 6, [KeyValue(rec.PLACEMENTS + "web", b"{nonsense", 1, 6)], 1.0)
    assert mirror.placements["web"].record.generation == 2
    assert mirror.bad[rec.PLACEMENTS + "web"][0] == 6
    mirror = changed(mirror, 7, [placement(3, 7)], 1.0)
    assert not mirror.bad


def test_a_record_under_another_name_is_refused() -> None:
    mirror = changed(Mirror(), 5, [KeyValue(rec.PLACEMENTS + "db", placement(2, 5).value, 5, 5)], 1.0)
    assert rec.PLACEMENTS + "db" in mirror.bad
    assert not mirror.placements


def test_a_placement_removed_while_its_workload_stands_is_remembered() -> None:
    workload = KeyValue(rec.WORKLOADS + "web", b'{"workload":{"name":"web","modules":[]}}', 4, 4)
    mirror = changed(Mirror(), 5, [workload, placement(2, 5)], 1.0)
    mirror = changed(mirror, 6, [Delete(rec.PLACEMENTS + "web")], 1.0)
    assert mirror.lost["web"].generation == 2


def test_a_reading_older_than_the_picture_changes_nothing() -> None:
    mirror = changed(Mirror(), 5, [placement(2, 5)], 1.0)
    assert snapshot(mirror, 4, [placement(1, 4)], 2.0) is mirror


def test_a_snapshot_drops_what_is_gone() -> None:
    mirror = changed(Mirror(), 5, [placement(2, 5)], 1.0)
    mirror = snapshot(mirror, 9, [], 2.0)
    assert mirror.revision == 9
    assert "web" not in mirror.placements


@given(st.sampled_from(PREFIXES), st.text(min_size=1, max_size=20), st.binary(max_size=300))
def test_any_bytes_under_any_key_are_taken_in_or_named_but_never_hurt(prefix: str, name: str, value: bytes) -> None:
    mirror = changed(Mirror(), 2, [KeyValue(prefix + name, value, 2, 2)], 1.0)
    mirror = snapshot(mirror, 3, [KeyValue(prefix + name, value, 2, 2)], 2.0)
    assert mirror.revision == 3
