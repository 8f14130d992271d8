"""What proves that a host has ended where the policy asks for more than its claim's end, and what is still missing.

A device's word, a person's, and the host's own return are each of one incarnation of its claim, and of the machine that
held it: another machine under the same name proves nothing about the one before. Whether a workload may begin anew on
such a proof is asked in `failover`; how proofs are brought about is `fencing`, and `confirming` for persons.
"""

from .boot import is_another_machine, is_another_start
from .fence import BY_HAND, EndProof, FenceState
from .freezing import are_unknown, frozen
from .mirror import Mirror
from .records import FenceRecord, PlacementRecord, Verdict
from .signs import Signs, is_fresh
from .timing import Timing


def needs_fence(mirror: Mirror) -> bool:
    """Whether this cluster holds a silent host to be ended only with a proof by a fence.

    Policies that nobody can read, and nobody remembers, may have asked for it.
    """
    return are_unknown(mirror) or mirror.policies.record.proof_of_end is EndProof.FENCE


def is_proven(mirror: Mirror, host: str, claim: int, boot_id: str = "") -> bool:
    """Whether it is on record that the host, at this incarnation, is off. boot_id: of whoever held it, if known.

    A person's word is of whatever had the name by then; a device was asked about one machine.
    """
    fence = mirror.fences.get(host)
    if fence is None or fence.record.state is not FenceState.PROVEN or fence.record.claim < claim:
        return False
    return fence.record.method == BY_HAND or not is_another_machine(boot_id, fence.record.boot_id)


def came_back(placed: PlacementRecord, signs: Signs, timing: Timing, at: float) -> bool:
    """Whether the placement's host speaks now as one that has nothing left of what it did under that claim.

    Either under a newer claim, since it clears away before what it was not told to keep, or since a newer start of the
    same machine. What it said before it held that claim has lower sequences, and another machine's word counts nothing.
    """
    newest = signs.newest()
    if newest is None or not is_fresh(signs, timing, at) or is_another_machine(placed.boot_id, newest.boot_id):
        return False
    began_anew = newest.sequence > placed.heartbeats and is_another_start(placed.boot_id, newest.boot_id)
    return newest.claim > placed.claim or began_anew


def is_replaced(placed: PlacementRecord, mirror: Mirror, signs: Signs) -> bool:
    """Whether another machine has the name of the placement's host since, by its claim or by what it says."""
    claim, newest = mirror.claims.get(placed.host or ""), signs.newest()
    if claim is not None and claim.incarnation > placed.claim:
        return is_another_machine(placed.boot_id, claim.record.boot_id)
    said_later = newest is not None and newest.sequence > placed.heartbeats
    return said_later and newest is not None and is_another_machine(placed.boot_id, newest.boot_id)


def unfenced(mirror: Mirror, placed: PlacementRecord, verdict: Verdict, *, replaced: bool) -> str:
    """The sentence for what waits for a proof that `placed.host` has ended: how far that is."""
    host = placed.host or ""
    if replaced:
        return f"{host} is another machine now, and nothing has proven yet that the one before it ended"
    if verdict is not Verdict.DEAD:
        return f"{host} is {verdict}, and nothing has proven yet that it ended"
    if needs_word(mirror, host, placed.claim):
        return f"{host} is dead, but could not be fenced ({mirror.fences[host].record.reason})"
    if reason := frozen(mirror):
        return f"{host} is dead, and nobody is fenced: {reason}"
    return f"{host} is dead, and is being fenced"


def needs_word(mirror: Mirror, host: str, claim: int) -> bool:
    """Whether every method to fence the host has failed, so that only a person can say that it is off."""
    fence = mirror.fences.get(host)
    return fence is not None and fence.record.claim >= claim and fence.record.state is FenceState.FAILED


def who_says(fence: FenceRecord) -> str:
    """Whose proof it is, as the beginning of a sentence."""
    return f"{fence.by} said" if fence.method == BY_HAND else f"the fence method {fence.method} has proven"


def confirm(host: str) -> str:
    """The command by which a person says that a host is off."""
    return f"outlive confirm-dead {host}"
