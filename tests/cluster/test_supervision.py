"""Restoring failed modules: attempts, back-off, verification, giving up (US 9,201,744, claim 1)."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.supervision import Action, Attempts, backoff_s, supervise
from outlive.cluster.workload import RestorePolicy

POLICY = RestorePolicy(attempts=3, window_s=60, backoff_s=1, backoff_most_s=5)
VERIFY_S = 5.0
FAILED, RUNNING = ModuleStatus.FAILED, ModuleStatus.RUNNING


def test_the_first_failure_is_restored_at_once() -> None:
    attempts, action = supervise(Attempts(), FAILED, POLICY, VERIFY_S, 10.0)
    assert action is Action.RESTORE
    assert attempts.made_at == (10.0,)


def test_the_old_failure_in_late_heartbeats_is_not_counted_again() -> None:
    attempts, _ = supervise(Attempts(), FAILED, POLICY, VERIFY_S, 10.0)
    after, action = supervise(attempts, FAILED, POLICY, VERIFY_S, 10.2)
    assert action is Action.NOTHING
    assert after == attempts


def test_running_after_an_order_is_a_restoration_that_worked() -> None:
    attempts, _ = supervise(Attempts(), FAILED, POLICY, VERIFY_S, 10.0)
    attempts, action = supervise(attempts, RUNNING, POLICY, VERIFY_S, 11.0)
    assert action is Action.RESTORED
    assert supervise(attempts, RUNNING, POLICY, VERIFY_S, 12.0) == (attempts, Action.NOTHING)


def test_a_module_that_shows_nothing_new_within_the_time_to_verify_has_failed_again() -> None:
    attempts, _ = supervise(Attempts(), FAILED, POLICY, VERIFY_S, 10.0)
    attempts, action = supervise(attempts, FAILED, POLICY, VERIFY_S, 15.0)
    assert action is Action.NOTHING
    assert attempts.failed_at == 15.0
    _, action = supervise(attempts, FAILED, POLICY, VERIFY_S, 16.0)
    assert action is Action.RESTORE


def test_attempts_older_than_the_window_are_forgotten() -> None:
    old = Attempts(made_at=(1.0, 2.0, 3.0))
    assert supervise(old, FAILED, POLICY, VERIFY_S, 50.0)[1] is Action.GIVE_UP
    assert supervise(old, FAILED, POLICY, VERIFY_S, 100.0)[1] is Action.RESTORE


def test_a_policy_without_attempts_gives_up_at_once() -> None:
    assert supervise(Attempts(), FAILED, RestorePolicy(attempts=0), VERIFY_S, 1.0)[1] is Action.GIVE_UP


@given(st.lists(st.tuples(st.sampled_from(ModuleStatus), st.floats(0.01, 20)), max_size=80))
def test_never_more_attempts_than_the_policy_allows_within_its_window(
    story: list[tuple[ModuleStatus, float]],
) -> None:
    attempts, at, orders = Attempts(), 0.0, []
    for status, passed_s in story:
        at += passed_s
        attempts, action = supervise(attempts, status, POLICY, VERIFY_S, at)
        if action is Action.RESTORE:
            orders.append(at)
    for first in orders:
        assert len([at for at in orders if first <= at < first + POLICY.window_s]) <= POLICY.attempts


@given(st.integers(0, 10_000))
def test_backoff_grows_to_its_bound(made: int) -> None:
    assert 0 <= backoff_s(made, POLICY) <= backoff_s(made + 1, POLICY) <= POLICY.backoff_most_s
