"""What the world tells the machines.

Every event has `at`: seconds on this host's boot clock when the agent learnt of it. Within one machine `at` never
decreases. What people read about is not here but in `records.EventRecord`.
"""

from dataclasses import dataclass
from enum import StrEnum

from .commands import Journal, Purpose
from .heartbeat import Heartbeat, ModuleStatus, ModuleTable
from .mirror import Mirror


class Outcome(StrEnum):
    """DONE: written. REFUSED: a comparison did not hold, nothing written. UNKNOWN: it may be either."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The first event. `journal` as the run before left it (None: none), `mirror` freshly read.

    alive: those workloads of the journal whose programs still run under the guard, with their modules' statuses;
    everything else that was left has been cleared away by the agent. guard_deadline_at: what the guard holds.
    """

    at: float
    run: str
    journal: Journal | None
    alive: dict[str, dict[str, ModuleStatus]]
    guard_deadline_at: float
    mirror: Mirror


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. load: as in a heartbeat. sequence: the newest heartbeat sequence this host used."""

    at: float
    load: float = 0.0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class StoreMoved:
    """The picture of the store is newer. changed: the keys that moved; None: any may have."""

    at: float
    mirror: Mirror
    changed: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    at: float
    lease: int


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Transacted:
    """A transaction ended. sent_at: just before it was sent. revision: the store's, where known."""

    at: float
    purpose: Purpose
    sent_at: float
    outcome: Outcome
    revision: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A heartbeat that passed every check of the wire."""

    at: float
    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class SlotChanged:
    """A host's slot in some datastore shows a newer heartbeat than when it was last read."""

    at: float
    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class DatastoreChanged:
    """Whether this host can write its slot in at least one datastore."""

    at: float
    reachable: bool


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """Any message of another host passed every check."""

    at: float
    host: str


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """`target` answered a probe that `by` sent it (`by` may be this host)."""

    at: float
    target: str
    by: str


@dataclass(frozen=True, slots=True)
class TableLearned:
    at: float
    host: str
    table: ModuleTable


@dataclass(frozen=True, slots=True)
class SelfIsolated:
    at: float
    isolated: bool


@dataclass(frozen=True, slots=True)
class GuardReady:
    """A guard answers, with this deadline and with everything that is held protected again."""

    at: float


@dataclass(frozen=True, slots=True)
class GuardLost:
    """No guard can be had, or the host is to be shut down: this host must not act. reason: for people."""

    at: float
    reason: str = "this host has no guard"


@dataclass(frozen=True, slots=True)
class GuardFired:
    """The guard killed a workload and dropped its addresses."""

    at: float
    workload: str
    generation: int


@dataclass(frozen=True, slots=True)
class Prepared:
    at: float
    workload: str
    generation: int


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """step: guard, lock, data, address…; the agent has undone what it had done before the failing step."""

    at: float
    workload: str
    generation: int
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModuleChanged:
    """RUNNING: ready and healthy. FAILED: ended, unhealthy, or never got ready; what is left of it is killed."""

    at: float
    workload: str
    generation: int
    module: str
    status: ModuleStatus
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TornDown:
    """Nothing of the workload runs here any more, and its addresses are gone."""

    at: float
    workload: str
    generation: int


Event = (
    AgentStarted
    | Tick
    | StoreMoved
    | LeaseGranted
    | LeaseRefused
    | Transacted
    | HeartbeatReceived
    | SlotChanged
    | DatastoreChanged
    | PeerHeard
    | ProbeAnswered
    | TableLearned
    | SelfIsolated
    | GuardReady
    | GuardLost
    | GuardFired
    | Prepared
    | PrepareFailed
    | ModuleChanged
    | TornDown
)
