"""Errors keep their meaning on the way from one process to another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import (
    ClusterUnreachable,
    Degraded,
    Failed,
    OutliveError,
    RefusedForSafety,
    UsageInvalid,
    from_problem,
)

KINDS = [Failed, UsageInvalid, RefusedForSafety, ClusterUnreachable, Degraded]


@pytest.mark.parametrize(("kind", "exit_code"), list(zip(KINDS, range(1, 6), strict=True)))
def test_each_kind_has_its_exit_code(kind: type[OutliveError], exit_code: int) -> None:
    assert kind("It did.").exit_code == exit_code


@given(st.sampled_from(KINDS), st.text(min_size=1), st.text(), st.text(), st.text(min_size=1))
def test_an_error_told_as_a_problem_is_rebuilt_whole(
    kind: type[OutliveError], sentence: str, cause: str, remedy: str, id: str
) -> None:
    error = kind(sentence, cause=cause, remedy=remedy, id=id)
    rebuilt = from_problem(error.problem())
    assert type(rebuilt) is kind
    assert rebuilt.problem() == error.problem()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
members = st.sampled_from(["type", "id", "title", "detail", "remedy", "exit_code", "status"])


@given(st.dictionaries(members | st.text(), json_values))
def test_any_object_becomes_some_error(problem: dict[str, object]) -> None:
    error = from_problem(problem)
    assert error.sentence
    assert error.exit_code in range(1, 6)


def test_an_id_may_be_given_where_one_class_stands_for_several() -> None:
    assert Failed("It broke.", id="disk.full").problem()["type"] == "urn:outlive:problem:disk.full"
    assert Failed.id == "failed"


def test_the_cause_is_part_of_what_a_log_shows() -> None:
    assert str(Failed("It broke.", cause="it was old")) == "It broke. (it was old)"
