"""What proves that a host has ended where the policy asks for more than its claim's end, and what is still missing.

A device's word, a person's, and the host's own return are each of one incarnation of its claim, and of the machine that
held it: another machine under the same name proves nothing about the one before. Whether a workload may begin anew on
such a proof is asked in `failover`; how proofs are brought about is `fencing`, and `confirming` for persons.
"""

from .boot import is_another_machine, is_another_start, is_same_machine, names_machine
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

    A person's word is of whatever had the name by then; a device was asked about one machine. One incarnation is one
    machine, whatever its agents call it; for an earlier one it must be the same for certain, if it is known at all.
    """
    fence = mirror.fences.get(host)
    if fence is None or fence.record.state is not FenceState.PROVEN or fence.record.claim < claim:
        return False
    if fence.record.method == BY_HAND or fence.record.claim == claim or not names_machine(boot_id):
        return True
    holder = mirror.holder(host, fence.record.claim)
    return is_same_machine(boot_id, fence.record.boot_id or (holder.boot_id if holder is not None else ""))


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
    """Whether another machine has the name of the placement's host since.

    By a device's proof that is of a later incarnation and not certainly of this machine; by its claim; by what it says;
    by what is on record of fencing it, or was placed on it later, which outlast a claim that this leader never saw.
    """
    host, newest = placed.host or "", signs.newest()
    claim, stands = mirror.claims.get(host), mirror.fences.get(host)
    fence = stands.record if stands is not None and stands.record.claim > placed.claim else None
    proven = is_proven(mirror, host, placed.claim, placed.boot_id)
    if fence is not None and fence.state is FenceState.PROVEN and not proven:
        return True
    if claim is not None and claim.incarnation > placed.claim:
        return is_another_machine(placed.boot_id, claim.record.boot_id)
    later = [each.boot_id for each in _placed_later(mirror, placed)]
    if fence is not None:
        later.append(fence.boot_id)
    if newest is not None and newest.sequence > placed.heartbeats and newest.claim != placed.claim:
        later.append(newest.boot_id)
    return any(is_another_machine(placed.boot_id, each) for each in later)


def _placed_later(mirror: Mirror, placed: PlacementRecord) -> list[PlacementRecord]:
    """What rests on later claims of the placement's host."""
    on_it = (mirror.placements[name].record for name in mirror.placed_on(placed.host or ""))
    return [each for each in on_it if each.claim > placed.claim]


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
