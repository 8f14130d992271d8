"""How long things take and how long we wait: every interval and threshold of a cluster, in seconds.

One value of `Timing` is agreed on by the whole cluster (it is kept in the store's `cluster` record), since
the leader's patience must cover the hosts' promises. `check` holds the relations that safety rests on.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Intervals and thresholds, all in seconds unless the name says otherwise.

    heartbeat_s       network heartbeat interval; suspect_s and dead_s: silence before each suspicion.
    slot_s            datastore slot interval; slot_stale_s: a slot unchanged for longer is silent.
    claim_ttl_s       how long a claim lasts from before its renewal was sent; renew_s: renewal interval.
                      The store lease has the same length, in the whole seconds that etcd can grant.
    give_up_s         how long before its deadline a host that cannot renew stops its workloads in order.
    drift_ratio       the most that two hosts' boot clocks may differ in rate.
    guard_late_s      the most that a guard may be late.
    isolation_s       silence of all peers before a host holds itself isolated.
    probe_s           interval of probes to silent hosts; an answer counts for probe_fresh_s.
    verify_s          how long a restored module has to show in heartbeats whether it runs.
    stable_s          a workload that ran this long has its failures forgiven.
    retry_first_s, retry_most_s   back-off between placements of a workload that keeps failing.
    exclude_s         how long a host where a workload failed is avoided for it.
    take_over_s       how long a standby is given to take over by itself before its workload is started from a disk.
    hand_over_s       how long a standby is given to take what was handed over before the primary goes on.
    hold_room_s       how long room is held for a more important workload that is about to need a new place.
    lag_s             a machine whose ticks come later than this doubts itself.
    """

    tick_s: float = 0.1
    heartbeat_s: float = 0.2
    suspect_s: float = 1.0
    dead_s: float = 2.0
    slot_s: float = 1.0
    slot_stale_s: float = 3.0
    claim_ttl_s: int = 4
    renew_s: float = 0.5
    give_up_s: float = 0.5
    drift_ratio: float = 0.01
    guard_late_s: float = 0.2
    isolation_s: float = 2.0
    probe_s: float = 0.3
    probe_fresh_s: float = 1.0
    verify_s: float = 5.0
    stable_s: float = 60.0
    retry_first_s: float = 1.0
    retry_most_s: float = 60.0
    exclude_s: float = 120.0
    lag_s: float = 0.5
    transact_s: float = 2.0
    take_over_s: float = 2.0
    hand_over_s: float = 3.0
    hold_room_s: float = 10.0
    witnesses: int = 4

    def claim_surely_over_s(self) -> float:
        """Time after which a claim seen renewed at zero has ended on any clock within the allowed drift."""
        return self.claim_ttl_s * (1.0 + self.drift_ratio) + self.guard_late_s


def check(timing: Timing) -> tuple[str, ...]:
    """Say which relations that safety or liveness rests on do not hold; empty when all do."""
    rules = (
        (timing.tick_s > 0, "tick_s must be positive"),
        (timing.heartbeat_s < timing.suspect_s < timing.dead_s, "heartbeat_s < suspect_s < dead_s"),
        (timing.slot_s * 2 < timing.slot_stale_s, "slot_stale_s must be more than two slot intervals"),
        (timing.claim_ttl_s >= 2, "claim_ttl_s must be at least 2, the shortest lease that etcd keeps"),
        (timing.renew_s * 3 <= timing.claim_ttl_s, "a claim must allow three renewals"),
        (0 <= timing.give_up_s < timing.claim_ttl_s / 2, "give_up_s must be under half of claim_ttl_s"),
        (0 <= timing.drift_ratio < 0.1, "drift_ratio must be from 0 to 0.1"),
        (0 < timing.guard_late_s <= 60, "guard_late_s must be positive, and at most a minute"),
        (timing.take_over_s > 0, "take_over_s must be positive"),
        (timing.hand_over_s > 0, "hand_over_s must be positive"),
    )
    return tuple(sentence for holds, sentence in rules if not holds)
