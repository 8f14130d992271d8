"""Claims: until when a host may act, and from when everybody else may be sure that it no longer does.

A host counts its deadline on its own boot clock from before the renewal was sent. The leader counts from when
it saw the renewal, which was later, and adds the drift and the guard's lateness; so the leader's
certainty always comes after the host's deadline, whatever the store's own clock says. An incarnation of a claim
that ended never revives (DESIGN: never two).
"""

from .mirror import ClaimSeen, Mirror
from .records import CLAIMS
from .timing import Timing


def deadline_at(sent_at: float, timing: Timing) -> float:
    """Until when a host may act on a renewal that it began to send at `sent_at` (its boot clock, seconds)."""
    return sent_at + timing.claim_ttl_s


def surely_over_at(mirror: Mirror, host: str, incarnation: int, timing: Timing) -> float | None:
    """From when on the watcher's clock the claim has certainly ended; None while it may still be renewed.

    A claim that was never seen came and went before the store was last read as a whole, and is taken to have been
    renewed until just then.
    """
    seen = mirror.claims.get(host)
    if seen is None or (incarnation > seen.incarnation and not seen.present):
        unreadable = CLAIMS + host in mirror.bad
        return None if unreadable else mirror.began_at + timing.claim_surely_over_s()
    if incarnation == seen.incarnation:
        return None if seen.present else seen.observed_at + timing.claim_surely_over_s()
    if incarnation > seen.incarnation:
        return None
    return seen.older_observed_at + timing.claim_surely_over_s()


def surely_over(mirror: Mirror, host: str, incarnation: int, timing: Timing, at: float) -> bool:
    """Whether the claim has certainly ended at `at`."""
    over_at = surely_over_at(mirror, host, incarnation, timing)
    return over_at is not None and at >= over_at


def silent_for_s(seen: ClaimSeen, at: float) -> float:
    """Seconds since the claim was last seen renewed."""
    return max(0.0, at - seen.observed_at)
