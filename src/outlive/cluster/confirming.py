"""A person's word that a host is off, where no fence method could prove it: when it is taken, and what it says.

It stands for one incarnation of the host's claim and all before it, is refused while anything tells of the host's
life, and is written only if the host has taken no claim meanwhile (DESIGN: never two). Where another machine has the
host's name by now, the word is about the one before it, and the life of the new one says nothing against it.
"""

from dataclasses import dataclass

from . import records as rec
from .fence import BY_HAND, FenceState
from .mirror import Mirror
from .proofs import is_replaced
from .recovery import NEVER_SEEN, lost_placements
from .signs import Signs, is_fresh
from .timing import Timing
from .transaction import Put, Transaction, absent, same_incarnation, unchanged


@dataclass(frozen=True, slots=True)
class Word:
    """What a person's word would be about.

    workloads: what waits for it, by name, and runs twice if it is wrong.  claim: the incarnation, and all before.
    before: the machine that had the name before the present one.
    """

    workloads: tuple[str, ...]
    claim: int
    before: bool = False


def word(mirror: Mirror, host: str, signs: Signs) -> Word:
    """What the word that `host` is off would be about by this picture. signs: what was heard of the host."""
    placed = [mirror.placements[name].record for name in mirror.placed_on(host)]
    replaced = [each for each in placed if is_replaced(each, mirror, signs)]
    if replaced:
        return Word(tuple(each.workload for each in replaced), max(each.claim for each in replaced), before=True)
    seen = mirror.claims.get(host)
    claims = [each.claim for each in placed] + ([seen.incarnation] if seen is not None else [])
    known = host in mirror.hosts or seen is not None
    lost = lost_placements(mirror) if known else ()
    workloads = (*(each.workload for each in placed), *lost)
    return Word(tuple(sorted(workloads)), max(claims, default=NEVER_SEEN))


def refusal(mirror: Mirror, host: str, signs: Signs, timing: Timing, at: float) -> str:
    """Why nobody's word is taken for the host's end now; '' when it is.

    at: seconds on the clock of whoever asks, by which `signs` are dated.
    """
    about, claim = word(mirror, host, signs), mirror.claimed(host)
    if claim is not None and claim.incarnation <= about.claim:
        return f"{host} holds its claim: it runs, or did a moment ago"
    if about.before:
        return ""
    if is_fresh(signs, timing, at):
        return f"{host} was heard a moment ago"
    verdict = mirror.verdicts.get(host)
    if host in mirror.hosts and (verdict is None or verdict.record.verdict is not rec.Verdict.DEAD):
        return f"the leader holds {host} to be {verdict.record.verdict if verdict is not None else 'unknown'}, not dead"
    return "" if about.workloads else f"nothing waits for {host} to be off"


def confirmed(mirror: Mirror, host: str, signs: Signs, by: str, because: str) -> Transaction:
    """What writes the word down, unless the host, or the verdict on it, is another by then.  by: whose word it is."""
    about, claim, key = word(mirror, host, signs), mirror.claimed(host), rec.CLAIMS + host
    record = rec.FenceRecord(host, about.claim, FenceState.PROVEN, BY_HAND, by, "", because)
    verdict = mirror.verdicts.get(host)
    return Transaction(
        (
            absent(key) if claim is None else same_incarnation(key, claim.incarnation),
            unchanged(rec.VERDICTS + host, verdict.mod_revision if verdict is not None else 0),
        ),
        (Put(rec.FENCES + host, rec.encode(record)),),
    )
