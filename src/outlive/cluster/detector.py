"""Judging hosts: from the ages of their signs of life to a verdict.

`classify` is the table of DESIGN, row by row. What follows from a verdict is decided elsewhere (`failover`,
`isolation`); how signs are gathered is in `signs`. An observer that was itself late makes its evidence younger
before it asks for a verdict (Lifeguard: local health), which is `signs` too.
"""

from dataclasses import dataclass

from .records import Verdict
from .timing import Timing


@dataclass(frozen=True, slots=True)
class Evidence:
    """Ages in seconds on the judge's own clock; None: never seen since it listens.

    network_s: since the last heartbeat by network (or since listening began).
    probe_s:   since a peer, or the judge, last had an answer to a probe.
    slot_s:    since the datastore slot was last seen to change.
    slot_isolated: the newest slot or heartbeat has the flag isolated.
    lease_held: the host's claim stands in the store.
    """

    network_s: float
    probe_s: float | None
    slot_s: float | None
    slot_isolated: bool
    lease_held: bool

    def told(self) -> dict[str, str]:
        """The evidence in words, for events and the verdict's record."""
        ages = {"network": self.network_s, "probes": self.probe_s, "slot": self.slot_s}
        words = {name: "never" if age is None else f"{age:.2f} s ago" for name, age in ages.items()}
        return words | {
            "lease": "held" if self.lease_held else "expired",
            "isolated": "yes" if self.slot_isolated else "no",
        }


def classify(evidence: Evidence, timing: Timing) -> Verdict:
    """Judge a host by the signs of life that reached us.

    A host is `dead` only when network, peers' probes, datastore and lease are all silent; any fresh datastore slot,
    or a claim that still stands, means that it runs, cut off (US 9,558,070, claim 1; US 8,880,774).

    evidence: ages in seconds on the judge's own monotonic clock.
    timing:   thresholds in seconds; `timing.suspect_s < timing.dead_s`.
    Raises nothing; missing evidence counts as silence.
    """
    if evidence.network_s < timing.suspect_s:
        return Verdict.ALIVE
    if evidence.network_s < timing.dead_s or _fresh(evidence.probe_s, timing.probe_fresh_s):
        return Verdict.SUSPECT
    if _fresh(evidence.slot_s, timing.slot_stale_s):
        return Verdict.ISOLATED if evidence.slot_isolated else Verdict.PARTITIONED
    if evidence.lease_held:
        return Verdict.PARTITIONED
    return Verdict.DEAD


def _fresh(age_s: float | None, limit_s: float) -> bool:
    return age_s is not None and age_s < limit_s
