"""Failed modules: restore in place, verify by heartbeats, and past a threshold give the host up.

The leader reads a module's bits, orders a restoration by raising the module's number in the placement, and takes
what the next heartbeats say for the result (US 9,201,744, claim 1). Attempts are counted within a window and wait
longer each time; when they are used up, the workload fails over. Pure functions from values to values.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from .heartbeat import ModuleStatus
from .workload import RestorePolicy


@dataclass(frozen=True, slots=True)
class Attempts:
    """What was tried for one module at one generation, in seconds on the leader's clock.

    ordered_at: when the outstanding restoration was ordered (None: none is). seen_working: a heartbeat has shown
    the module restoring since, so that a failure it shows now is a new one.
    failed_at: when it was first seen failed with nothing outstanding.
    """

    made_at: tuple[float, ...] = ()
    ordered_at: float | None = None
    seen_working: bool = False
    failed_at: float | None = None


class Action(StrEnum):
    NOTHING = "nothing"
    RESTORE = "restore"
    RESTORED = "restored"
    GIVE_UP = "give up"


def supervise(
    attempts: Attempts, status: ModuleStatus, policy: RestorePolicy, verify_s: float, at: float
) -> tuple[Attempts, Action]:
    """Take in what a heartbeat says of a module; say what is to be done.

    verify_s: how long after its order a restoration may show nothing but the old failure.
    """
    if status is ModuleStatus.RUNNING:
        if attempts.ordered_at is None:
            return (replace(attempts, failed_at=None) if attempts.failed_at is not None else attempts), Action.NOTHING
        return replace(attempts, ordered_at=None, seen_working=False, failed_at=None), Action.RESTORED
    if status is not ModuleStatus.FAILED:
        return attempts, Action.NOTHING
    if attempts.ordered_at is not None:
        if not attempts.seen_working and at - attempts.ordered_at < verify_s:
            return attempts, Action.NOTHING
        attempts = replace(attempts, ordered_at=None, seen_working=False, failed_at=at)
    if attempts.failed_at is None:
        attempts = replace(attempts, failed_at=at)
    recent = tuple(made_at for made_at in attempts.made_at if at - made_at < policy.window_s)
    attempts = replace(attempts, made_at=recent)
    if len(recent) >= policy.attempts:
        return attempts, Action.GIVE_UP
    if recent and at < (attempts.failed_at or at) + backoff_s(len(recent), policy):
        return attempts, Action.NOTHING
    return replace(attempts, made_at=(*recent, at), ordered_at=at, failed_at=None), Action.RESTORE


def backoff_s(attempts_made: int, policy: RestorePolicy) -> float:
    """How long to wait before another attempt after so many; none before the first."""
    if attempts_made < 1:
        return 0.0
    doubled: float = policy.backoff_s * 2.0 ** min(attempts_made - 1, 30)
    return min(policy.backoff_most_s, doubled)
