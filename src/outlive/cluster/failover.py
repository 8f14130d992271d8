"""Whether a workload may begin anew: the proof that what acted for it has ended.

This is the other half of *never two*: a placement at a new generation is written only on one of these proofs.
When in doubt the answer is to wait, and it says for what.
"""

from dataclasses import dataclass

from .heartbeat import ModuleStatus
from .lease import surely_over_at
from .mirror import Mirror
from .records import FINAL, PlacementRecord, ReportRecord, Stage, Verdict
from .signs import Signs, is_fresh, statuses
from .timing import Timing


@dataclass(frozen=True, slots=True)
class Proof:
    """The placement's host no longer acts for the workload. own_fault: it failed there, rather than was lost."""

    reason: str
    own_fault: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Not proven; `until_at` on the leader's clock when that is known."""

    reason: str
    until_at: float | None = None


def proof_of_end(
    placed: PlacementRecord, mirror: Mirror, signs: Signs, verdict: Verdict, timing: Timing, at: float
) -> Proof | Wait:
    """Say whether `placed.host` has certainly stopped acting at `placed.generation`, and why.

    In this order: the host's own final report; its heartbeat or slot that calls every module stopped; the certain end
    of its claim, unless the host is cut off or was heard lately saying otherwise (DESIGN: a cut-off host's
    workload is started elsewhere only once its slot says it has stopped).

    at: seconds on the leader's clock. Raises nothing.
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
    return Proof(f"the claim of {host} has ended for certain")


def _is_final(report: ReportRecord, placed: PlacementRecord) -> bool:
    same = report.generation == placed.generation and report.host == placed.host and report.claim == placed.claim
    return same and report.stage in FINAL
