"""What the world tells the machines.

Every event has `at`: seconds on this host's boot clock when the agent learnt of it. Within one machine `at` never
decreases. What people read about is not here but in `records.EventRecord`.
"""

from dataclasses import dataclass
from enum import StrEnum

from .commands import Journal, Purpose, Role
from .fence import FenceMethod
from .heartbeat import Heartbeat, ModuleStatus, ModuleTable
from .mirror import Mirror
from .repeats import Repeats


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
    A standby is alive when its communication manager is, under the journal's generation or the one after it; its
    statuses do not matter. fencing: the ways that this agent has to fence hosts, in the order in which they are to be
    tried. What each communication manager has to say is told again as events after this one.
    """

    at: float
    run: str
    journal: Journal | None
    alive: dict[str, dict[str, ModuleStatus]]
    guard_deadline_at: float
    mirror: Mirror
    fencing: tuple[FenceMethod, ...] = ()


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
class HeartbeatsRepeated:
    """Heartbeats that brought no news passed every check of the wire; told at most once a tick, before it."""

    at: float
    repeats: Repeats


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
    """step: package, guard, lock, data, address…; the agent has undone what it had done before the failing step."""

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


@dataclass(frozen=True, slots=True)
class StandbyListening:
    """A standby, or the target of a migration, can be reached by its primary here."""

    at: float
    workload: str
    generation: int
    pairing: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class StandbySeeding:
    """The primary has connected, and sends."""

    at: float
    workload: str
    generation: int
    pairing: int


@dataclass(frozen=True, slots=True)
class StandbyWhole:
    """The standby holds a whole epoch of this pairing."""

    at: float
    workload: str
    generation: int
    pairing: int


@dataclass(frozen=True, slots=True)
class StandbyFailed:
    """It cannot follow (any more), nor take over."""

    at: float
    workload: str
    generation: int
    pairing: int
    reason: str


@dataclass(frozen=True, slots=True)
class StandbyDiscarded:
    """Nothing of the standby runs here any more."""

    at: float
    workload: str
    generation: int
    pairing: int


@dataclass(frozen=True, slots=True)
class TookOver:
    """The machine runs here at this generation, and its output is free."""

    at: float
    workload: str
    generation: int


@dataclass(frozen=True, slots=True)
class TakeOverFailed:
    """It could not be adopted; nothing of it runs here any more. generation: the new one."""

    at: float
    workload: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Paired:
    """At the primary: the standby has acknowledged its first whole epoch of this pairing; output is held."""

    at: float
    workload: str
    generation: int
    pairing: int


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The link of a pairing is silent or broken, or the primary handed over; role: of this host in it.

    At the primary nothing leaves any more, until GoAlone (unless seeding had not finished: then nothing was held).
    At the standby: whole says whether it holds a whole epoch of this very pairing; it adopts only when told TakeOver.
    """

    at: float
    workload: str
    generation: int
    pairing: int
    role: Role
    reason: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Migrated:
    """At the source: the guest stands still here, and all of it is at the target, which waits for TakeOver.

    stood_still_ms: how long it has stood still by now.
    """

    at: float
    workload: str
    generation: int
    pairing: int
    stood_still_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class MigrationFailed:
    """At the source: the migration has ended without success; the guest is here, and runs or can."""

    at: float
    workload: str
    generation: int
    pairing: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointEnded:
    """A checkpoint that an operator asked for is whole, or could not be made. reason: why not, or its size in words."""

    at: float
    workload: str
    generation: int
    operation: str
    whole: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PackageStep:
    """Getting a workload's package ready has come a step further. step: fetching, verified, installing, installed."""

    at: float
    workload: str
    generation: int
    package: str
    step: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class PackagesHeld:
    """What is whole in this host's depot now, id → NAME@VERSION; troubles: why what is wanted is not there."""

    at: float
    holds: dict[str, str]
    troubles: dict[str, str]


@dataclass(frozen=True, slots=True)
class PackageDamaged:
    """A copy in this host's depot was not what it had been, and was thrown out. package: NAME@VERSION."""

    at: float
    package: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """A try of a fence method has ended.

    proven: the host is certainly off.  freed: workloads of which it is certain that nobody acts for them.
    said:   what the method said, for people; secrets are blotted out.
    """

    at: float
    host: str
    number: int
    proven: bool
    freed: tuple[str, ...] = ()
    said: str = ""


Event = (
    AgentStarted
    | Tick
    | StoreMoved
    | LeaseGranted
    | LeaseRefused
    | Transacted
    | HeartbeatReceived
    | HeartbeatsRepeated
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
    | StandbyListening
    | StandbySeeding
    | StandbyWhole
    | StandbyFailed
    | StandbyDiscarded
    | TookOver
    | TakeOverFailed
    | Paired
    | PeerLost
    | Migrated
    | MigrationFailed
    | CheckpointEnded
    | PackageStep
    | PackagesHeld
    | PackageDamaged
    | Fenced
)
