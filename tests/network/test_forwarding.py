"""Forwarding tables: what comes late takes nothing back, and only differences are changed."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.overlay import Entry, Here, Network, Segment
from outlive.network.fdb import ALL_MACS
from outlive.network.forwarding import Ages, Row, steps

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
A, B, C = "10.1.0.1", "10.1.0.2", "10.1.0.3"


def segment(*entries: Entry, flood: tuple[str, ...] = (), here: tuple[Here, ...] = ()) -> Segment:
    return Segment(Network("blue", 42), flood, entries, here, shadowed=False)


def test_an_entry_is_replaced_only_by_one_that_is_not_older() -> None:
    ages = Ages()
    assert ages.settle(segment(Entry(MAC, A, (3, 1)))) == {Row(False, MAC, A)}
    assert ages.settle(segment(Entry(MAC, B, (4, 1)))) == {Row(False, MAC, B)}
    assert ages.settle(segment(Entry(MAC, A, (3, 9)))) == {Row(False, MAC, B)}
    assert ages.settle(segment(Entry(MAC, C, (4, 1)))) == {Row(False, MAC, C)}


def test_a_card_that_was_taken_stays_here_whatever_an_older_view_says() -> None:
    ages = Ages()
    ages.settle(segment(Entry(MAC, A, (3, 1))))
    assert ages.take(MAC, (4, 1))
    assert ages.settle(segment(Entry(MAC, A, (3, 1)))) == frozenset()
    assert ages.settle(segment(here=(Here("web", "lan", MAC, True, (4, 1)),))) == frozenset()
    assert not ages.take(MAC, (3, 9))
    assert ages.settle(segment(Entry(MAC, B, (5, 1)))) == {Row(False, MAC, B)}


def test_a_card_that_is_no_more_is_forgotten() -> None:
    ages = Ages()
    ages.settle(segment(Entry(MAC, A, (9, 0))))
    assert ages.settle(segment()) == frozenset()
    assert ages.settle(segment(Entry(MAC, B, (1, 0)))) == {Row(False, MAC, B)}, "another workload of that name"


def test_a_takeover_ends_the_shadow_before_it_moves_the_entry() -> None:
    before = {Row(False, MAC, A), Row(True, MAC, B), Row(False, ALL_MACS, A), Row(False, ALL_MACS, B)}
    after = {Row(False, MAC, B), Row(False, ALL_MACS, B)}
    found = steps(before, after)
    assert found.remove == (Row(True, MAC, B), Row(False, ALL_MACS, A))
    assert found.put == (Row(False, MAC, B),)


ROWS = st.builds(Row, st.booleans(), st.sampled_from([MAC, OTHER]), st.sampled_from([A, B])) | st.builds(
    Row, st.just(False), st.just(ALL_MACS), st.sampled_from([A, B, C])
)


def table(rows: frozenset[Row]) -> set[Row]:
    """As a kernel would have it: one row for each card and end."""
    kept = {(row.shadow, row.mac, row.address if row.mac == ALL_MACS else ""): row for row in rows}
    return set(kept.values())


@given(st.frozensets(ROWS), st.frozensets(ROWS))
def test_steps_lead_from_any_table_to_any_other(have: frozenset[Row], want: frozenset[Row]) -> None:
    rows, wanted = table(have), table(want)
    found, different = steps(rows, wanted), len(rows ^ wanted)
    for row in found.remove:
        rows.remove(row)
    for row in found.put:
        if row.mac != ALL_MACS:
            rows = {each for each in rows if (each.shadow, each.mac) != (row.shadow, row.mac)}
        rows.add(row)
    assert rows == wanted
    assert len(found) <= different
