"""What a failing seed is cut down to breaks the same rule, and nothing of it could be left out."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import failover
from outlive.sim import campaign
from outlive.sim.shrink import TRIES, shrink


@given(st.integers(0, 60), st.sets(st.integers(0, 59), max_size=6))
def test_only_what_it_takes_is_kept(faults: int, needed: set[int]) -> None:
    needed = {number for number in needed if number < faults}
    assert set(shrink(faults, lambda kept: needed <= {*kept}, 10_000)) == needed


@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_none_of_it_can_be_left_out_whatever_else_breaks_the_rule(faults: int, random: Random) -> None:
    answers: dict[tuple[int, ...], bool] = {}

    def breaks(kept: Sequence[int]) -> bool:
        return answers.setdefault(tuple(kept), random.random() < 0.3)

    kept = shrink(faults, breaks, 100_000)
    assert kept == tuple(range(faults)) or answers[kept]
    assert not any(breaks(kept[:place] + kept[place + 1 :]) for place in range(len(kept)))


def test_it_is_asked_no_more_often_than_it_may_be() -> None:
    asked: list[Sequence[int]] = []

    def breaks(kept: Sequence[int]) -> bool:
        asked.append(kept)
        return {*range(0, 200, 2)} <= {*kept}

    kept = shrink(200, breaks)
    assert len(asked) == TRIES
    assert {*range(0, 200, 2)} <= {*kept}


def test_a_broken_seed_is_shown_with_fewer_faults_that_break_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "surely_over_at", lambda *_: float("-inf"))
    outcomes = (campaign.run_seed(seed, 3, 6.0) for seed in range(100))
    broken = next(each for each in outcomes if each.violation is not None and each.planned > 3)
    least = campaign.smallest(broken, 3, 6.0)
    assert least.violation is not None
    assert broken.violation is not None
    assert least.violation[0] == broken.violation[0]
    assert len(least.faults) < len(broken.faults)
    again = campaign.run_seed(least.seed, 3, 6.0, least.faults)
    assert again == least
