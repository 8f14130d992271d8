"""What a simulated world is made of, as values: its hosts, workloads, delays and the length of the run.

Drawn from a seed by `chance`, or read from a file by `scenario`. What goes wrong in it is in `faults`.
"""

from dataclasses import dataclass

from outlive.cluster.fence import FenceMethod
from outlive.cluster.host import Host
from outlive.cluster.policies import Policies
from outlive.cluster.timing import Timing
from outlive.cluster.workload import Workload

CLUSTER_ID = "0123456789abcdef"
DATASTORE = "shared"

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things take when nothing is wrong: ranges of seconds, drawn evenly; probabilities where so named.

    store_rate: seconds that the store's clock, by which leases end, counts in a real second.
    """

    network_s: Range = (0.0002, 0.004)
    network_loss: float = 0.0
    store_s: Range = (0.001, 0.015)
    watch_s: Range = (0.001, 0.06)
    store_rate: float = 1.0
    lease_late_s: Range = (0.0, 0.5)
    slot_write_s: Range = (0.002, 0.05)
    slot_poll_s: Range = (0.4, 0.6)
    prepare_s: Range = (0.02, 0.3)
    fetch_s: Range = (0.05, 0.8)
    install_s: Range = (0.02, 0.4)
    module_start_s: Range = (0.05, 1.0)
    module_stop_s: Range = (0.02, 0.4)
    hang_noticed_s: Range = (2.0, 4.0)
    exit_noticed_s: Range = (0.001, 0.02)
    lock_freed_s: Range = (0.0, 1.0)
    boot_s: Range = (3.0, 6.0)
    agent_start_s: Range = (0.05, 1.0)
    fence_s: Range = (0.2, 2.0)
    tick_jitter_s: Range = (0.0, 0.01)
    lock_patience_s: float = 3.0


def steady(delays: Delays) -> Delays:
    """The same delays without chance: each takes the middle of its range; for scenarios, which must be stable."""
    middles = {
        name: (sum(value) / 2, sum(value) / 2)
        for name in delays.__slots__
        if isinstance(value := getattr(delays, name), tuple)
    }
    return Delays(**middles, network_loss=0.0, store_rate=1.0, lock_patience_s=delays.lock_patience_s)


@dataclass(frozen=True, slots=True)
class HostSetup:
    """A host, the rate of its boot clock, and how long it had been up when the run began."""

    host: Host
    clock_rate: float = 1.0
    up_for_s: float = 100.0


@dataclass(frozen=True, slots=True)
class WorkloadSetup:
    """A workload and when its user applies it (None: an operator's fault in the schedule may).

    broken: its modules never start anywhere; the cluster cannot run it and must not try too hard.
    """

    workload: Workload
    applied_at_s: float | None = 1.0
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """A world before its first moment.

    calm_at_s: from when on nothing more goes wrong; end_s: when the run ends.
    methods: the ways to fence that every host has.
    packages: NAME@VERSION, and the host that it was pushed to before the run.
    """

    hosts: tuple[HostSetup, ...]
    workloads: tuple[WorkloadSetup, ...]
    timing: Timing
    delays: Delays
    calm_at_s: float
    end_s: float
    policies: Policies = Policies()
    methods: tuple[FenceMethod, ...] = ()
    packages: tuple[tuple[str, str], ...] = ()
