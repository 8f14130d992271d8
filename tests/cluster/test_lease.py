"""The leader's certainty always comes after the host's deadline."""

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.lease import deadline_at, surely_over, surely_over_at
from outlive.cluster.mirror import Mirror, changed, snapshot
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, KeyValue

TIMING = Timing()
KEY = rec.CLAIMS + "a"


def claim(sequence: int, created: int, modified: int) -> KeyValue:
    record = rec.ClaimRecord("a", "b" * 32, "run", 7, sequence)
    return KeyValue(KEY, rec.encode(record), created, modified, 7)


def test_a_standing_claim_is_never_over_however_long_it_is_silent() -> None:
    mirror = changed(Mirror(), 5, [claim(1, 5, 5)], 100.0)
    assert surely_over_at(mirror, "a", 5, TIMING) is None
    assert not surely_over(mirror, "a", 5, TIMING, 1e9)


def test_an_ended_claim_is_over_only_a_full_length_after_its_last_renewal_was_seen() -> None:
    mirror = changed(Mirror(), 5, [claim(1, 5, 5)], 100.0)
    mirror = changed(mirror, 6, [claim(2, 5, 6)], 101.0)
    mirror = changed(mirror, 7, [Delete(KEY)], 101.5)
    over_at = 101.0 + TIMING.claim_surely_over_s()
    assert surely_over_at(mirror, "a", 5, TIMING) == over_at
    assert not surely_over(mirror, "a", 5, TIMING, over_at - 0.01)
    assert surely_over(mirror, "a", 5, TIMING, over_at)


def test_a_claim_that_ended_unseen_may_have_been_renewed_until_just_now() -> None:
    mirror = changed(Mirror(), 5, [claim(1, 5, 5)], 100.0)
    mirror = snapshot(mirror, 90, [], 200.0)
    assert surely_over_at(mirror, "a", 5, TIMING) == 200.0 + TIMING.claim_surely_over_s()


def test_an_older_incarnation_is_counted_from_when_it_was_last_seen() -> None:
    mirror = changed(Mirror(), 5, [claim(1, 5, 5)], 100.0)
    mirror = changed(mirror, 6, [Delete(KEY)], 103.0)
    mirror = changed(mirror, 8, [claim(1, 8, 8)], 104.0)
    assert surely_over_at(mirror, "a", 5, TIMING) == 100.0 + TIMING.claim_surely_over_s()
    assert surely_over_at(mirror, "a", 8, TIMING) is None


def test_an_incarnation_not_seen_yet_is_never_over() -> None:
    mirror = changed(Mirror(), 5, [claim(1, 5, 5)], 100.0)
    assert surely_over_at(mirror, "a", 9, TIMING) is None


def test_a_claim_that_came_and_went_while_the_store_was_not_followed_counts_from_when_it_was_read_again() -> None:
    mirror = snapshot(Mirror(), 3, [], 50.0)
    assert surely_over_at(snapshot(mirror, 90, [], 200.0), "a", 20, TIMING) == 200.0 + TIMING.claim_surely_over_s()
    mirror = changed(mirror, 5, [claim(1, 5, 5)], 100.0)
    mirror = snapshot(mirror, 90, [], 200.0)
    assert surely_over_at(mirror, "a", 20, TIMING) == 200.0 + TIMING.claim_surely_over_s()
    mirror = changed(mirror, 91, [claim(1, 91, 91)], 201.0)
    assert surely_over_at(mirror, "a", 20, TIMING) == 200.0 + TIMING.claim_surely_over_s()


def test_a_claim_that_cannot_be_read_is_not_over() -> None:
    mirror = changed(Mirror(), 5, [KeyValue(KEY, b"{nonsense", 5, 5)], 100.0)
    assert surely_over_at(mirror, "a", 5, TIMING) is None


def test_a_host_never_seen_counts_from_when_the_picture_began() -> None:
    mirror = snapshot(Mirror(), 3, [], 50.0)
    assert surely_over_at(mirror, "a", 2, TIMING) == 50.0 + TIMING.claim_surely_over_s()


@given(
    sent_at=st.floats(0, 1000),
    delay_s=st.floats(0, 5),
    drift=st.floats(-0.5, 0.5).map(lambda share: share * TIMING.drift_ratio),
    late_s=st.floats(0, TIMING.guard_late_s),
)
def test_with_drift_and_a_late_guard_the_host_has_stopped_before_anyone_is_sure(
    sent_at: float, delay_s: float, drift: float, late_s: float
) -> None:
    """Host and leader clocks agree at zero; the host's runs at 1 + drift of the leader's."""
    host_sent = sent_at * (1 + drift)
    stopped_by_host_clock = deadline_at(host_sent, TIMING)
    stopped_by_leader_clock = stopped_by_host_clock / (1 + drift) + late_s
    sure_at = sent_at + delay_s + TIMING.claim_surely_over_s()
    assert stopped_by_leader_clock <= sure_at + 1e-6
