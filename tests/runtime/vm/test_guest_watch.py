"""When a guest is held to hang: never while anything else could explain its silence."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.machine import GuestWatch
from outlive.runtime.vm.guest_watch import (
    LATE_S,
    LOOK_EVERY_S,
    Impression,
    Judgement,
    Look,
    after_reset,
    judged,
    seen,
)

POLICY = GuestWatch(enabled=True, silence_s=30.0, no_io_s=120.0, grace_s=120.0, resets=2, window_s=3600.0)


def looked(impression: Impression, looks: Iterable[Look]) -> tuple[Impression, Judgement, float]:
    """Look until a judgement is more than to leave it, or to the end."""
    at = impression.began_at
    for look in looks:
        at = look.at
        impression = seen(impression, look)
        if (judgement := judged(POLICY, impression, at)) is not Judgement.LEAVE:
            return impression, judgement, at
    return impression, Judgement.LEAVE, at


def look(at: float, *, answered: bool = False, done: int = 0, running: bool = True) -> Look:
    return Look(at, running, answered, {"disk": done})


def every(start: float, end: float, **what: bool | int) -> list[Look]:
    return [look(start + n * LOOK_EVERY_S, **what) for n in range(int((end - start) / LOOK_EVERY_S))]  # type: ignore[arg-type]


ANSWERED = every(0.0, 200.0, answered=True)


def test_a_guest_silent_and_idle_for_long_enough_is_reset() -> None:
    _, judgement, at = looked(Impression(0.0), [*ANSWERED, *every(200.0, 2000.0)])
    assert judgement is Judgement.RESET
    assert at == 200.0 + POLICY.silence_s - 5.0 + 5.0  # idle since long; silent since 200


def test_a_guest_whose_agent_was_never_heard_is_left() -> None:
    assert looked(Impression(0.0), every(0.0, 5000.0))[1] is Judgement.LEAVE


def test_a_guest_that_reads_or_writes_is_left_however_silent() -> None:
    busy = [look(200.0 + n * LOOK_EVERY_S, done=n) for n in range(1000)]
    assert looked(Impression(0.0), [*ANSWERED, *busy])[1] is Judgement.LEAVE


def test_a_guest_that_answers_is_left_however_idle() -> None:
    assert looked(Impression(0.0), every(0.0, 5000.0, answered=True))[1] is Judgement.LEAVE


def test_what_happened_while_nobody_looked_proves_nothing() -> None:
    gap = 200.0 + 10 * LATE_S
    assert looked(Impression(0.0), [*ANSWERED, look(gap), *every(gap + 5.0, gap + 115.0)])[1] is Judgement.LEAVE
    assert looked(Impression(0.0), [*ANSWERED, look(gap), *every(gap + 5.0, gap + 300.0)])[1] is Judgement.RESET


def test_a_guest_that_stands_still_is_not_silent() -> None:
    paused = every(200.0, 3000.0, running=False)
    assert looked(Impression(0.0), [*ANSWERED, *paused])[1] is Judgement.LEAVE
    assert looked(Impression(0.0), [*ANSWERED, *paused, *every(3000.0, 3100.0)])[1] is Judgement.LEAVE


def test_counters_that_cannot_be_read_prove_nothing() -> None:
    blind = [Look(200.0 + n * LOOK_EVERY_S, True, False) for n in range(1000)]
    assert looked(Impression(0.0), [*ANSWERED, *blind])[1] is Judgement.LEAVE


def test_it_is_given_up_after_so_many_resets_and_not_before() -> None:
    impression, judgements, at = Impression(0.0), [], 0.0
    for _ in range(3):
        looks = [*every(at, at + 200.0, answered=True), *every(at + 200.0, at + 2000.0)]
        impression, judgement, at = looked(impression, looks)
        judgements.append(judgement)
        impression = after_reset(POLICY, impression, at)
    assert judgements == [Judgement.RESET, Judgement.RESET, Judgement.GIVE_UP]


def test_resets_of_long_ago_are_forgotten() -> None:
    impression = Impression(10_000.0, resets=(1.0, 2.0))
    looks = [*every(10_000.0, 10_200.0, answered=True), *every(10_200.0, 12_000.0)]
    assert looked(impression, looks)[1] is Judgement.RESET


def test_a_guest_that_just_started_has_its_grace() -> None:
    looks = [look(0.0, answered=True), *every(5.0, 115.0)]
    assert looked(Impression(0.0), looks)[1] is Judgement.LEAVE


LOOKS = st.lists(
    st.tuples(st.floats(0.1, 60.0), st.booleans(), st.booleans(), st.integers(0, 1)), min_size=1, max_size=200
)


@given(LOOKS)
def test_no_reset_without_both_silences_seen_whole(steps: list[tuple[float, bool, bool, int]]) -> None:
    impression, at, done = Impression(0.0), 0.0, 0
    history: list[Look] = []
    for pause, running, answered, did in steps:
        at, done = at + pause, done + did
        history.append(look(at, answered=answered and running, done=done, running=running))
        impression = seen(impression, history[-1])
        if judged(POLICY, impression, at) is not Judgement.LEAVE:
            recent = [one for one in history if one.at >= at - POLICY.silence_s]
            assert all(one.running and not one.answered for one in recent)
            recent = [one for one in history if one.at >= at - POLICY.no_io_s]
            assert len({one.counters["disk"] for one in recent}) == 1
            assert all(one.running for one in recent)
            assert any(one.answered for one in history)
            return
