"""Whether a workload may begin anew: the proof that what acted for it has ended.

This is the other half of *never two*: a placement at a new generation is written only on one of these proofs.
When in doubt the answer is to wait, and it says for what.
"""

from dataclasses import dataclass

from .fence import BY_HAND, EndProof, FenceState
from .freezing import frozen
from .heartbeat import Flags, ModuleStatus
from .lease import surely_over_at
from .mirror import Mirror
from .records import FINAL, POLICIES, FenceRecord, Order, PlacementRecord, ReportRecord, Stage, Verdict
from .signs import Signs, is_fresh, statuses
from .timing import Timing


@dataclass(frozen=True, slots=True)
class Proof:
    """The placement's host no longer acts for the workload. own_fault: it failed there, rather than was lost."""

    reason: str
    own_fault: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Not proven; `until_at` on the leader's clock when that is known. unfenced: nothing but the fence is missing."""

    reason: str
    until_at: float | None = None
    unfenced: bool = False


def proof_of_end(
    placed: PlacementRecord,
    mirror: Mirror,
    signs: Signs,
    verdict: Verdict,
    timing: Timing,
    at: float,
    *,
    freed: bool = False,
) -> Proof | Wait:
    """Say whether `placed.host` has certainly stopped acting at `placed.generation`, and why.

    In this order: the host's own final report; its heartbeat or slot that calls every module stopped; the certain end
    of its claim, unless the host is cut off or was heard lately saying otherwise (DESIGN: a cut-off host's
    workload is started elsewhere only once its slot says it has stopped). A cluster whose policy asks for a fence
    takes the claim's end only together with a proof that the host is off, or that this workload's run lock was taken.

    at: seconds on the leader's clock.  freed: its run lock was taken from `placed.host`. Raises nothing.
    """
    host = placed.host
    if host is None:
        return Proof("nothing acted for it")
    report = mirror.reports.get(placed.workload)
    if report is not None and _is_final(report.record, placed):
        reason = f"{host} reported it {report.record.stage}: {report.record.reason}"
        return Proof(reason, own_fault=report.record.stage is Stage.FAILED)
    said = statuses(signs, placed.workload, placed.generation)
    if said and all(status is ModuleStatus.STOPPED for status in said.values()):
        if _will_say_why(placed, mirror, signs, verdict):
            return Wait(f"{host} stopped it, and has yet to say why")
        return Proof(f"{host} says that all its modules have stopped")
    over_at = surely_over_at(mirror, host, placed.claim, timing)
    if over_at is None:
        return Wait(f"the claim of {host} stands")
    if at < over_at:
        return Wait(f"the claim of {host} may not have ended yet", until_at=over_at)
    if verdict in (Verdict.ISOLATED, Verdict.PARTITIONED) and said != {}:
        return Wait(f"{host} is {verdict}, and its slot does not say that it stopped")
    if said and is_fresh(signs, timing, at):
        return Wait(f"{host} still says that it runs, after its claim ended")
    if not needs_fence(mirror):
        return Proof(f"the claim of {host} has ended for certain")
    if freed:
        return Proof(f"the claim of {host} has ended, and its run lock was taken")
    fence = mirror.fences.get(host)
    if fence is not None and is_proven(mirror, host, placed.claim):
        return Proof(f"the claim of {host} has ended, and {_who_says(fence.record)} that it is off")
    if said == {} and came_back(signs, placed.claim, timing, at):
        return Proof(f"{host} came back, and has nothing of it")
    hint = f"; once you know that it is off: {confirm(host)}" if needs_word(mirror, host, placed.claim) else ""
    return Wait(unfenced(mirror, host, verdict, placed.claim) + hint, unfenced=True)


def _will_say_why(placed: PlacementRecord, mirror: Mirror, signs: Signs, verdict: Verdict) -> bool:
    """Whether its report is on its way: heartbeats are faster, and do not say whether it failed there by its own fault.

    Nobody asked for that end, and the host is well, so that it writes its report until the store has it.
    """
    newest, claim = signs.newest(), mirror.claimed(placed.host or "")
    if placed.order is not Order.RUN or verdict is not Verdict.ALIVE or newest is None or claim is None:
        return False
    return claim.incarnation == placed.claim == newest.claim and Flags.STORE_REACHABLE in newest.flags


def needs_fence(mirror: Mirror) -> bool:
    """Whether this cluster holds a silent host to be ended only with a proof by a fence.

    Policies that nobody can read, and nobody remembers, may have asked for it.
    """
    policies = mirror.policies
    unknown = POLICIES in mirror.bad and policies.mod_revision == 0
    return unknown or policies.record.proof_of_end is EndProof.FENCE


def is_proven(mirror: Mirror, host: str, claim: int) -> bool:
    """Whether it is on record that the host, at this incarnation, is off."""
    fence = mirror.fences.get(host)
    return fence is not None and fence.record.state is FenceState.PROVEN and fence.record.claim >= claim


def came_back(signs: Signs, claim: int, timing: Timing, at: float) -> bool:
    """Whether the host speaks now under a newer claim: it has cleared away before what it was not told to keep."""
    newest = signs.newest()
    return newest is not None and newest.claim > claim and is_fresh(signs, timing, at)


def unfenced(mirror: Mirror, host: str, verdict: Verdict, claim: int) -> str:
    """The sentence for who waits for a fence: how far that is."""
    if verdict is not Verdict.DEAD:
        return f"{host} is {verdict}, and nothing has proven yet that it ended"
    if needs_word(mirror, host, claim):
        return f"{host} is dead, but could not be fenced ({mirror.fences[host].record.reason})"
    if reason := frozen(mirror):
        return f"{host} is dead, and nobody is fenced: {reason}"
    return f"{host} is dead, and is being fenced"


def needs_word(mirror: Mirror, host: str, claim: int) -> bool:
    """Whether every method to fence the host has failed, so that only a person can say that it is off."""
    fence = mirror.fences.get(host)
    return fence is not None and fence.record.claim >= claim and fence.record.state is FenceState.FAILED


def _who_says(fence: FenceRecord) -> str:
    return f"{fence.by} said" if fence.method == BY_HAND else f"the fence method {fence.method} has proven"


def confirm(host: str) -> str:
    """The command by which a person says that a host is off."""
    return f"outlive confirm-dead {host}"


def _is_final(report: ReportRecord, placed: PlacementRecord) -> bool:
    same = report.generation == placed.generation and report.host == placed.host and report.claim == placed.claim
    return same and report.stage in FINAL
