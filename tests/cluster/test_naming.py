"""What is told of many is as short as what is told of a few, and says how many it left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.naming import MOST_REASONS, by_reason, named
from outlive.cluster.placement import Choice

FULL = "it has too little capacity left"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a and b"),
        (("a", "b", "c", "d"), "a, b, c and d"),
        (("a", "b", "c", "d", "e"), "a, b, c and 2 others"),
    ],
)
def test_a_few_are_named_and_the_others_counted(names: tuple[str, ...], told: str) -> None:
    assert named(names) == told


def test_hosts_with_the_same_reason_are_told_together() -> None:
    reasons = {"c": FULL, "a": FULL, "b": "it is dead"}
    assert by_reason(reasons) == f"a and c: {FULL}; b: it is dead"
    assert Choice(None, reasons).told() == by_reason(reasons)
    assert Choice(None, {}).told() == "no hosts"


def test_a_thousand_hosts_are_told_in_one_line() -> None:
    reasons = {f"h{number:04}": FULL for number in range(997)} | {"z1": "it is dead", "z2": "it is dead"}
    assert by_reason(reasons) == f"h0000, h0001, h0002 and 994 others: {FULL}; z1 and z2: it is dead"


@given(st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(0, 40).map(str), max_size=200))
def test_however_many_reasons_there_are_none_is_left_unmentioned(reasons: dict[str, str]) -> None:
    told = by_reason(reasons)
    assert len(told) < MOST_REASONS * 60
    parts = told.split("; ") if told else []
    assert len(parts) == min(len(set(reasons.values())), MOST_REASONS + 1)
    assert ("for other reasons" in told) == (len(set(reasons.values())) > MOST_REASONS)
