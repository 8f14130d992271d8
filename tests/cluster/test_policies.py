"""Policies: sane without a record, read with suspicion, and named by people in plain words."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.mirror import Mirror, changed, snapshot
from outlive.cluster.policies import KEYS, Admission, AdmissionMode, Freeze, Policies, problem_with, told
from outlive.cluster.policies import changed as set_to
from outlive.cluster.transaction import Delete, KeyValue
from outlive.errors import UsageInvalid

SOME = Policies(Admission(2, AdmissionMode.REFUSE), 3, retry_minutes=(0, 1.5), frozen=Freeze("root on a", "new switch"))


def standing(value: bytes, revision: int, before: Mirror | None = None) -> Mirror:
    return changed(before or Mirror(), revision, [KeyValue(rec.POLICIES, value, 2, revision)], 1.0)


def test_without_a_record_the_defaults_hold() -> None:
    assert Mirror().policies.record == Policies()
    assert problem_with(Policies()) == ""
    assert [Policies().retry_after_s(failures) for failures in (1, 2, 3, 5, 99)] == [0, 120, 360, 1800, 1800]


def test_what_stands_is_read_back_and_a_removed_record_means_the_defaults() -> None:
    mirror = standing(rec.encode(SOME), 5)
    assert (mirror.policies.record, mirror.policies.mod_revision) == (SOME, 5)
    assert changed(mirror, 6, [Delete(rec.POLICIES)], 1.0).policies.record == Policies()
    assert snapshot(mirror, 9, [], 2.0).policies.record == Policies()


@pytest.mark.parametrize(
    "value",
    [
        b"{nonsense",
        b"[]",
        b'{"restarts_per_host": 0}',
        b'{"restarts_per_host": "many"}',
        b'{"retry_minutes": []}',
        b'{"retry_minutes": [-1]}',
        b'{"retry_minutes": [1e300]}',
        b'{"admission": {"mode": "perhaps"}}',
        b'{"admission": {"can_lose_hosts": -1}}',
        b'{"begin_within_s": 0}',
        b'{"frozen": true}',
    ],
)
def test_a_record_that_cannot_be_leaves_the_last_good_one_in_force(value: bytes) -> None:
    mirror = standing(value, 6, standing(rec.encode(SOME), 5))
    assert mirror.policies.record == SOME
    assert mirror.bad[rec.POLICIES][0] == 6
    assert standing(rec.encode(Policies()), 7, mirror).bad.get(rec.POLICIES) is None


@given(st.binary(max_size=200))
def test_no_bytes_hurt(value: bytes) -> None:
    mirror = standing(value, 6)
    assert problem_with(mirror.policies.record) == ""


def test_what_is_told_is_what_can_be_set() -> None:
    assert set(told(SOME)) == set(KEYS)
    assert set_to(Policies(), told(SOME)) == replace(SOME, frozen=None)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("frozen", "yes"),
        ("restarts_per_host", "0"),
        ("restarts_per_host", "1.5"),
        ("retry_minutes", ""),
        ("retry_minutes", "0,soon"),
        ("retry_minutes", "nan"),
        ("admission.mode", "maybe"),
        ("admission", "warn"),
        ("host_deaths_minutes", "inf"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(key: str, text: str) -> None:
    with pytest.raises(UsageInvalid) as refused:
        set_to(Policies(), {key: text})
    assert key in f"{refused.value} {refused.value.cause}"


@given(st.sampled_from(sorted(KEYS)), st.text(max_size=30))
def test_any_words_are_taken_or_refused(key: str, text: str) -> None:
    with contextlib.suppress(UsageInvalid):
        assert problem_with(set_to(Policies(), {key: text})) == ""
