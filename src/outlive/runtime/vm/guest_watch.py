"""Telling a guest that stopped working from one that is merely busy. Pure.

A guest is taken to hang only after its agent, which had answered before, was silent for `silence_s` and no disk or
network input or output was seen for `no_io_s`, all that while it was running and we were looking. What was not seen
proves nothing: while the emulator did not answer, the guest stood still, or we ourselves were late, both silences
begin anew. These are the rules of vSphere's VM monitoring.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from outlive.cluster.machine import GuestWatch

LOOK_EVERY_S = 5.0
LATE_S = 3 * LOOK_EVERY_S
"""A look that comes later than this after the one before begins all silences anew."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a guest at one moment. at: boot clock, seconds.

    running:  whether the emulator said that the guest runs; False also when it said nothing.
    answered: whether the guest's agent answered.
    counters: bytes and operations of each disk and card, by any name; empty when they could not be read.
    """

    at: float
    running: bool
    answered: bool
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Impression:
    """What is remembered between looks. began_at: of this run of the guest, or when it was adopted.

    heard_at: when its agent answered last, None: not yet in this run.  silent_since, idle_since: since when nothing
    was heard, and nothing was done, without a gap in our looking.  resets: when it was reset, the last ones.
    """

    began_at: float
    heard_at: float | None = None
    silent_since: float | None = None
    idle_since: float | None = None
    looked_at: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    resets: tuple[float, ...] = ()


class Judgement(StrEnum):
    """GIVE_UP: it hangs, and was reset as often as may be."""

    LEAVE = "leave"
    RESET = "reset"
    GIVE_UP = "give-up"


def seen(before: Impression, look: Look) -> Impression:
    """Return what is remembered after another look."""
    late = before.looked_at is not None and look.at - before.looked_at > LATE_S
    if not look.running or not look.counters or late:
        heard_at = look.at if look.answered else before.heard_at
        return replace(
            before, heard_at=heard_at, silent_since=None, idle_since=None, looked_at=look.at, counters=look.counters
        )
    # The first look after a gap only begins to count: what was done before it is not known.
    idle = before.counters == look.counters
    silent_since = None if look.answered else _since(before.silent_since, look.at)
    return replace(
        before,
        heard_at=look.at if look.answered else before.heard_at,
        silent_since=silent_since,
        idle_since=_since(before.idle_since, look.at) if idle else None,
        looked_at=look.at,
        counters=look.counters,
    )


def judged(policy: GuestWatch, impression: Impression, at: float) -> Judgement:
    """Say what should be done with a guest now."""
    if not policy.enabled or impression.heard_at is None or at - impression.began_at < policy.grace_s:
        return Judgement.LEAVE
    if impression.silent_since is None or at - impression.silent_since < policy.silence_s:
        return Judgement.LEAVE
    if impression.idle_since is None or at - impression.idle_since < policy.no_io_s:
        return Judgement.LEAVE
    recent = [then for then in impression.resets if at - then < policy.window_s]
    return Judgement.RESET if len(recent) < policy.resets else Judgement.GIVE_UP


def after_reset(policy: GuestWatch, impression: Impression, at: float) -> Impression:
    """Return what is remembered once the guest was reset: a new run, with its grace, and how often that was."""
    recent = tuple(then for then in impression.resets if at - then < policy.window_s)
    return Impression(began_at=at, resets=(*recent, at))


def _since(before: float | None, at: float) -> float:
    return at if before is None else before
