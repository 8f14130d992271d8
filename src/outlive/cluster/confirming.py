"""A person's word that a host is off, where no fence method could prove it: when it is taken, and what it says.

It stands for one incarnation of the host's claim and all before it, is refused while anything tells of the host's
life, and is written only if the host has taken no claim meanwhile (DESIGN: never two).
"""

from . import records as rec
from .fence import BY_HAND, FenceState
from .mirror import Mirror
from .signs import Signs, is_fresh
from .timing import Timing
from .transaction import Put, Transaction, absent, unchanged


def refusal(mirror: Mirror, host: str, signs: Signs, timing: Timing, at: float) -> str:
    """Why nobody's word is taken for the host's end now; '' when it is.

    at: seconds on the clock of whoever asks, by which `signs` are dated.
    """
    if mirror.claimed(host) is not None:
        return f"{host} holds its claim: it runs, or did a moment ago"
    if is_fresh(signs, timing, at):
        return f"{host} was heard a moment ago"
    verdict = mirror.verdicts.get(host)
    if host in mirror.hosts and (verdict is None or verdict.record.verdict is not rec.Verdict.DEAD):
        return f"the leader holds {host} to be {verdict.record.verdict if verdict is not None else 'unknown'}, not dead"
    if not mirror.placed_on(host):
        return f"nothing waits for {host} to be off"
    return ""


def confirmed(mirror: Mirror, host: str, by: str, because: str) -> Transaction:
    """What writes the word down, unless the host, or the verdict on it, is another by then.  by: whose word it is."""
    claims = [mirror.placements[name].record.claim for name in mirror.placed_on(host)]
    if (seen := mirror.claims.get(host)) is not None:
        claims.append(seen.incarnation)
    record = rec.FenceRecord(host, max(claims, default=0), FenceState.PROVEN, BY_HAND, by, "", because)
    verdict = mirror.verdicts.get(host)
    return Transaction(
        (
            absent(rec.CLAIMS + host),
            unchanged(rec.VERDICTS + host, verdict.mod_revision if verdict is not None else 0),
        ),
        (Put(rec.FENCES + host, rec.encode(record)),),
    )
