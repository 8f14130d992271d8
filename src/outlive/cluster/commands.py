"""What the machines ask the world to do.

A machine never acts; it returns these. The agent performs them on the real world, the simulator on its own.
Each that changes something outside carries `because`: the id of the recorded event that caused it. Commands of one
step are begun in their order.
"""

from dataclasses import dataclass
from enum import StrEnum

from .fence import Unfinished
from .heartbeat import Heartbeat, ModuleTable
from .pushed import Pinned
from .records import EventRecord, Stage
from .transaction import Transaction
from .workload import Workload


class Act(StrEnum):
    """What a transaction is for; its result comes back to the machine under the same name."""

    REGISTER = "register"
    UNREGISTER = "unregister"
    RENEW = "renew"
    REPORT = "report"
    CAMPAIGN = "campaign"
    RESIGN = "resign"
    PLACE = "place"
    VERDICT = "verdict"
    REVOKE = "revoke"
    OPERATION = "operation"
    FORGET = "forget"
    HEAL = "heal"
    PAIRED = "paired"
    ALONE = "alone"
    TAKE_OVER = "take over"
    MOVED = "moved"
    STANDBY = "standby"
    CHECKPOINT = "checkpoint"
    PACKAGE = "package"
    DEPOT = "depot"
    ROLLOUT = "rollout"
    FENCE = "fence"


class Role(StrEnum):
    """What a host is for a workload. INCOMING: the target of a live migration."""

    PRIMARY = "primary"
    STANDBY = "standby"
    INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class Purpose:
    """Names a transaction: what for, for which host, workload or operation, and its number there."""

    act: Act
    subject: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Ask the store for a lease of `ttl_s` whole seconds → LeaseGranted or LeaseRefused."""

    ttl_s: int


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Keep the store lease alive. Its outcome shows in the claim's next renewal, so nothing is answered."""

    lease: int


@dataclass(frozen=True, slots=True)
class Transact:
    """Try a transaction → Transacted, always, within Timing.transact_s."""

    purpose: Purpose
    transaction: Transaction
    because: str = ""


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Send to these hosts, itself among them; the sender fills in the sequence."""

    heartbeat: Heartbeat
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriteSlot:
    """Write the heartbeat into the host's slot in every datastore, and the table beside it when it is new."""

    heartbeat: Heartbeat
    table: ModuleTable


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask `target` for a sign of life, directly, or through `via` → ProbeAnswered, or nothing."""

    target: str
    via: str | None = None


@dataclass(frozen=True, slots=True)
class LearnTable:
    """Find out the module table of `host` with this digest, from itself or its datastore → TableLearned."""

    host: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class DeclareIsolated:
    """Tell this host's leader machine whether the node holds itself isolated → SelfIsolated."""

    isolated: bool


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Tell the guard until when this host may act (its boot clock, seconds)."""

    deadline_at: float


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make ready to act for a workload: package, guard, run lock, data, virtual IPs → Prepared or PrepareFailed.

    Getting and installing its package is told step by step → PackageStep.
    resume_at: the checkpoint that a warm virtual machine is to be resumed from at its first start; '': the newest.
    """

    workload: Workload
    generation: int
    because: str
    resume_at: str = ""


@dataclass(frozen=True, slots=True)
class StartModule:
    """Start a module, after making sure that nothing of it is left → ModuleChanged, again at each change."""

    workload: str
    generation: int
    module: str
    because: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the neighbours that the workload's virtual IPs are here."""

    workload: str
    generation: int
    because: str


@dataclass(frozen=True, slots=True)
class TearDown:
    """Stop all modules in reverse order, drop the addresses, let go of lock and guard → TornDown, always."""

    workload: str
    generation: int
    because: str


@dataclass(frozen=True, slots=True)
class PrepareStandby:
    """Make ready to follow a primary: guard, disks, a machine that waits for state, its communication manager.

    → StandbyListening, then StandbySeeding, StandbyWhole, PeerLost as they come; or StandbyFailed, at any time.
    `role` INCOMING: to be the target of a live migration; then only StandbyListening or StandbyFailed are told.
    Under the guard it has `generation`, as its primary has.
    """

    workload: Workload
    generation: int
    pairing: int
    role: Role
    because: str


@dataclass(frozen=True, slots=True)
class DiscardStandby:
    """End a standby, in whatever state it is → StandbyDiscarded, always. Its disks stay, as of its last whole epoch."""

    workload: str
    generation: int
    pairing: int
    because: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The standby of this pairing is now the primary, at `to_generation` → TookOver or TakeOverFailed.

    Nothing is acknowledged to the old primary any more; the newest whole epoch is adopted, the guest runs, its output
    is free, the neighbours are told. Told again for one that has been adopted, it answers TookOver at once.
    """

    workload: str
    generation: int
    pairing: int
    to_generation: int
    because: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Have the primary seed a standby and then hold its output → Paired, or PeerLost. Again: nothing more is done."""

    workload: str
    generation: int
    pairing: int
    standby: str
    address: str
    port: int
    because: str


@dataclass(frozen=True, slots=True)
class GoAlone:
    """Every pairing below `pairing` is over in the store, nobody takes over any more: the primary goes on by itself.

    A primary that is in such a pairing drops its link, lets its held output out and lets its guest run (it stands
    still after a handing over, or a migration that was cut short). One that is in no older pairing does nothing.
    """

    workload: str
    generation: int
    pairing: int
    because: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Complete a last epoch and leave the guest standing still; the standby then tells PeerLost."""

    workload: str
    generation: int
    pairing: int
    because: str


@dataclass(frozen=True, slots=True)
class MigrateTo:
    """Begin a live migration → Migrated or MigrationFailed. Again: nothing more is done."""

    workload: str
    generation: int
    pairing: int
    target: str
    address: str
    port: int
    because: str


@dataclass(frozen=True, slots=True)
class TakeCheckpoint:
    """Make a checkpoint of a running machine → CheckpointEnded. One of that name that is whole already is enough."""

    workload: str
    generation: int
    operation: str
    name: str
    because: str


@dataclass(frozen=True, slots=True)
class KeptPackage:
    """A package that a host's depot shall have. holders: the other hosts that say they have it, the best first."""

    pinned: Pinned
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepPackages:
    """Have these in the depot: fetch what is not there, verify it → PackagesHeld, at each change.

    free: ids of what need not be kept any more.
    Told again with another set, only the newest counts.
    """

    kept: tuple[KeptPackage, ...]
    free: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A workload that this host has begun, as its journal keeps it.

    role, pairing: what for, and in which pairing; told: a primary's communication manager may be in that pairing, or
    in an older one if it was not told.

    ended: how it ended here (None: it was not torn down); it must never begin again at this generation, since others
    may have begun on the word that it ended. reason: why it did.
    """

    workload: Workload
    generation: int
    claim: int
    restored: dict[str, int]
    because: str
    ended: Stage | None = None
    reason: str = ""
    role: Role = Role.PRIMARY
    pairing: int = 0
    told: bool = False


@dataclass(frozen=True, slots=True)
class Journal:
    """What an agent must know to adopt what still runs after its own death.

    lease, incarnation: the host's claim. run: the agent's run that made it.
    """

    run: str = ""
    lease: int = 0
    incarnation: int = 0
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class SaveJournal:
    """Make it durable before any later command is begun."""

    journal: Journal


@dataclass(frozen=True, slots=True)
class WriteProtected:
    """Write the list of protected workloads to every datastore: name → (generation, host)."""

    workloads: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class Fence:
    """Try one method on a host that has ended as far as can be told → Fenced, always, unless it is called off.

    claim: the incarnation of the host's claim that is accused; a host that holds a newer one is left alone.
    number: names this try.  workloads: those that wait for the proof.
    """

    host: str
    claim: int
    method: str
    number: int
    workloads: tuple[Unfinished, ...]
    because: str


@dataclass(frozen=True, slots=True)
class CallOffFence:
    """Leave the host alone: end the try under way, if there is any. Nothing is answered."""

    host: str
    number: int


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Keep what happened, for `outlive events` and `outlive why`."""

    event: EventRecord


Command = (
    GrantLease
    | KeepAlive
    | Transact
    | SendHeartbeat
    | WriteSlot
    | Probe
    | LearnTable
    | DeclareIsolated
    | SetDeadline
    | Prepare
    | StartModule
    | Announce
    | TearDown
    | PrepareStandby
    | DiscardStandby
    | TakeOver
    | Pair
    | GoAlone
    | HandOver
    | MigrateTo
    | TakeCheckpoint
    | KeepPackages
    | SaveJournal
    | WriteProtected
    | Fence
    | CallOffFence
    | RecordEvent
)
