"""Whether a workload may begin anew: the proof that what acted for it has ended.

This is the other half of *never two*: a placement at a new generation is written only on one of these proofs.
When in doubt the answer is to wait, and it says for what.
"""

from dataclasses import dataclass

from .heartbeat import Flags, ModuleStatus
from .lease import surely_over_at
from .mirror import Mirror
from .proofs import came_back, confirm, is_proven, is_replaced, needs_fence, needs_word, unfenced, who_says
from .records import FINAL, Order, PlacementRecord, ReportRecord, Stage, Verdict
from .signs import Signs, is_fresh, statuses
from .timing import Timing


@dataclass(frozen=True, slots=True)
class Proof:
    """The placement's host no longer acts for the workload. own_fault: it failed there, rather than was lost."""

    reason: str
    own_fault: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Not proven; `until_at` on the leader's clock when that is known.

    unfenced: nothing is missing but the proof that the policy asks for.  by_hand: only a person can give that.
    on_claim: that moment, the claim's end in the store, or another word of the host has to come first.
    """

    reason: str
    until_at: float | None = None
    on_claim: bool = False
    unfenced: bool = False
    by_hand: bool = False


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
        return Wait(f"the claim of {host} stands", on_claim=True)
    if at < over_at:
        return Wait(f"the claim of {host} may not have ended yet", until_at=over_at, on_claim=True)
    if verdict in (Verdict.ISOLATED, Verdict.PARTITIONED) and said != {}:
        return Wait(f"{host} is {verdict}, and its slot does not say that it stopped")
    if said and is_fresh(signs, timing, at):
        return Wait(f"{host} still says that it runs, after its claim ended")
    if not needs_fence(mirror):
        return Proof(f"the claim of {host} has ended for certain")
    if freed:
        return Proof(f"the claim of {host} has ended, and its run lock was taken")
    if is_proven(mirror, host, placed.claim, placed.boot_id):
        return Proof(f"the claim of {host} has ended, and {who_says(mirror.fences[host].record)} that it is off")
    if said == {} and came_back(placed, signs, timing, at):
        return Proof(f"{host} came back, and has nothing of it")
    replaced = is_replaced(placed, mirror, signs)
    asks = replaced or needs_word(mirror, host, placed.claim)
    hint = f"; once you know that it is off: {confirm(host)}" if asks else ""
    return Wait(unfenced(mirror, placed, verdict, replaced=replaced) + hint, unfenced=True, by_hand=replaced)


def _will_say_why(placed: PlacementRecord, mirror: Mirror, signs: Signs, verdict: Verdict) -> bool:
    """Whether its report is on its way: heartbeats are faster, and do not say whether it failed there by its own fault.

    Nobody asked for that end, and the host is well, so that it writes its report until the store has it.
    """
    newest, claim = signs.newest(), mirror.claimed(placed.host or "")
    if placed.order is not Order.RUN or verdict is not Verdict.ALIVE or newest is None or claim is None:
        return False
    return claim.incarnation == placed.claim == newest.claim and Flags.STORE_REACHABLE in newest.flags


def _is_final(report: ReportRecord, placed: PlacementRecord) -> bool:
    same = report.generation == placed.generation and report.host == placed.host and report.claim == placed.claim
    return same and report.stage in FINAL
