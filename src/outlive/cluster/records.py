"""What stands in the store: every key, what it holds, and how it is read back without trusting it.

A value that cannot be read raises BadRecord naming the key; what happens then is decided where the record is
used (`mirror` keeps the last good one). Values are JSON so that a person can read them. No decision is made here.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from outlive.errors import OutliveError

from .fence import FenceState
from .host import NAME, Host
from .machine_rules import machine_problem
from .overlay import Network, problem_with
from .policies import Policies
from .policies import problem_with as problem_with_policies
from .pushed import DepotRecord, PackageRecord, package_problem, use_problem
from .timing import Timing
from .workload import Workload, start_order

PROTOCOL = 1

CLUSTER = "cluster"
LEADER = "leader"
POLICIES = "policies"
HOSTS = "hosts/"
CLAIMS = "claims/"
WORKLOADS = "workloads/"
PLACEMENTS = "placements/"
REPORTS = "reports/"
STANDBYS = "standbys/"
VERDICTS = "verdicts/"
OPERATIONS = "operations/"
NETWORKS = "networks/"
MAINTENANCE = "maintenance/"
PACKAGES = "packages/"
DEPOTS = "depots/"
FENCES = "fences/"
EVENTS = "events/"
PRUNED = "pruned"
REQUESTS = "requests/"


class Desired(StrEnum):
    """What the user wants of a workload."""

    RUNNING = "running"
    STOPPED = "stopped"
    REMOVED = "removed"


class Order(StrEnum):
    """What the leader wants of the host that a placement names."""

    RUN = "run"
    STOP = "stop"


class Stage(StrEnum):
    """How far a host has come with a placement. FAILED and STOPPED are final for the generation."""

    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


FINAL = frozenset({Stage.STOPPED, Stage.FAILED})


class StandbyStage(StrEnum):
    """How far a host has come as a workload's standby, or as the target of its live migration.

    LISTENING: the primary may connect. WHOLE: it holds a whole epoch of this pairing. FAILED is final for the pairing.
    """

    PREPARING = "preparing"
    LISTENING = "listening"
    SEEDING = "seeding"
    WHOLE = "whole"
    FAILED = "failed"


REACHABLE = frozenset({StandbyStage.LISTENING, StandbyStage.SEEDING, StandbyStage.WHOLE})
"""The stages in which a primary may connect."""


class Verdict(StrEnum):
    """What the leader holds a host to be (DESIGN: heartbeats and verdicts)."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    ISOLATED = "isolated"
    PARTITIONED = "partitioned"
    DEAD = "dead"


class OperationKind(StrEnum):
    MIGRATE = "migrate"
    FAILOVER = "failover"
    CHECKPOINT = "checkpoint"
    RESUME = "resume"


class OperationState(StrEnum):
    ASKED = "asked"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


ENDED = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.REFUSED, OperationState.CANCELLED})


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    id: str
    protocol: int = PROTOCOL
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A host's right to act, bound to its store lease; `sequence` grows with every renewal.

    boot_id: of which machine, and since which start of it (`boot`).
    run: names one run of the agent.  heartbeats: the host's heartbeat sequence then; older ones are replays.
    """

    host: str
    boot_id: str
    run: str
    lease: int
    sequence: int
    heartbeats: int = 0


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    host: str


class RolloutState(StrEnum):
    """How far a change of a workload's package has come.

    WAITING: for its turn, or for its host to have it.  TRIAL: it runs, or is to, and is watched.  DONE: it was found
    good.  BACK: it was given up, and the one before is back.  HALTED: it was not begun, since it failed elsewhere.
    """

    WAITING = "waiting"
    TRIAL = "trial"
    DONE = "done"
    BACK = "back"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A change of a workload's package: what it is with `WorkloadRecord.workload` (`rollout` decides).

    other: WAITING, HALTED: the workload as it is to be; TRIAL, DONE: as it was before; BACK: as it was tried.
    version: of the record when the trial began.  generation: of the placement then.
    because: the event that recorded the user's wish.
    """

    state: RolloutState
    other: Workload
    version: int = 0
    generation: int = 0
    reason: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """A workload as the user applied it. version: grows when the workload changes, not with `desired`.

    rollout: the last change of its package.  because: the event that recorded the user's wish.
    """

    workload: Workload
    desired: Desired = Desired.RUNNING
    version: int = 1
    because: str = ""
    rollout: Rollout | None = None


@dataclass(frozen=True, slots=True)
class PlacementRecord:
    """The standing order for one workload: the leader's, and of a pair's two hosts where they arbitrate.

    generation: only grows. host None: nobody acts. claim: incarnation of the host's claim that it rests on.
    stuck:      why its host has not stopped it in time, with order STOP; '': it has, or has time.
    boot_id:    of whoever held that claim; '': not known.  heartbeats: the sequence of its heartbeats by then.
    version:    the workload's version that was placed.
    restores:   for each module, how many restorations were ordered at this generation.
    next_host:  where it goes once stopped (a migration); operation: whose progress this is.
    reason:     the sentence for people; because: id of the event that caused it.

    standby, standby_claim: who follows a hot primary, and the incarnation of its claim.
    pairing:    number of the present pairing of primary and standby (or source and target); only grows. Whoever sees
                a newer one knows that every earlier one is over.
    paired:     the standby holds a whole epoch of this pairing, so that it can take over.
    took_over:  this generation goes on where the one before it stopped, by the standby of this very `pairing`.
    hand_over:  the primary shall hand over to its standby, as planned.
    disk_hosts: the hosts whose local disks it may be started from, the newest first; copies: hosts with older copies,
                good only to begin a standby from.
    resume_at:  the checkpoint that it shall be resumed from; '': the newest.
    moving_to, moving_claim: the target of a live migration under way.
    host_deaths: how many hosts in a row died soon after they had begun it.
    failures:   how often in a row it had failed by its own fault when this was written.
    """

    workload: str
    generation: int
    host: str | None
    claim: int = 0
    order: Order = Order.RUN
    version: int = 1
    restores: dict[str, int] = field(default_factory=dict)
    next_host: str | None = None
    operation: str | None = None
    reason: str = ""
    because: str = ""
    standby: str | None = None
    standby_claim: int = 0
    pairing: int = 0
    paired: bool = False
    took_over: bool = False
    hand_over: bool = False
    disk_hosts: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    resume_at: str = ""
    moving_to: str | None = None
    moving_claim: int = 0
    host_deaths: int = 0
    failures: int = 0
    stuck: str = ""
    boot_id: str = ""
    heartbeats: int = 0


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A host's own statement on a placement."""

    workload: str
    generation: int
    host: str
    claim: int
    stage: Stage
    reason: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class StandbyRecord:
    """A standby's own statement on its pairing: how far it is, and where its primary finds it.

    generation, pairing: as in the placement that named it.  claim: incarnation of its host's claim.
    """

    workload: str
    generation: int
    pairing: int
    host: str
    claim: int
    stage: StandbyStage
    address: str = ""
    port: int = 0
    reason: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """The leader's present verdict on a host, with the evidence as ages in seconds (None: never seen)."""

    host: str
    verdict: Verdict
    evidence: dict[str, str] = field(default_factory=dict)
    by: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class FenceRecord:
    """How far the fencing of a host is, or the proof that it has ended.

    claim:  the incarnation of its claim that this is about, and all before it.
    boot_id: of whoever held it; '': not known.
    method: what is being tried, or what proved it.  by: the leader, or the person whose word it is.
    reason: what the method said last.
    """

    host: str
    claim: int
    state: FenceState
    method: str = ""
    by: str = ""
    reason: str = ""
    because: str = ""
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """A long action that an operator asked for; the leader carries it out and notes how far it is.

    target: the host to move to.  checkpoint: the name of the checkpoint to make, or to resume from ('': the newest).
    generation: at which a checkpoint was begun; the leader notes it.
    An operator cancels a migration by writing CANCELLED; the leader undoes what was begun.
    """

    id: str
    kind: OperationKind
    workload: str
    target: str | None = None
    checkpoint: str = ""
    generation: int = 0
    state: OperationState = OperationState.ASKED
    reason: str = ""
    because: str = ""


class MaintenancePhase(StrEnum):
    """ON: nothing is placed on the host, and what runs there moves away. RETURNING: what was there is brought back."""

    ON = "on"
    RETURNING = "returning"


@dataclass(frozen=True, slots=True)
class MaintenanceRecord:
    """An operator's wish that a host be free of workloads; no record: there is none.

    had: the workloads that were there when it began.  force: what can go nowhere else is stopped.
    empty: nothing is there any more, as the leader found.
    by, reason, since_unix_ms: who asked, why, and when by that host's wall clock; because: the event of the wish.
    """

    host: str
    phase: MaintenancePhase = MaintenancePhase.ON
    had: tuple[str, ...] = ()
    force: bool = False
    empty: bool = False
    by: str = ""
    reason: str = ""
    since_unix_ms: int = 0
    because: str = ""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened, and the id of the event that caused it ('' for a first cause).

    kind is `noun.past_tense`, as in `verdict.dead` or `module.failed`. unix_ms is stamped by the agent that
    records it; at_s is the boot clock of the host that saw it.
    """

    id: str
    kind: str
    by: str
    at_s: float
    unix_ms: int = 0
    host: str = ""
    workload: str = ""
    generation: int = 0
    module: str = ""
    text: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True)
class PrunedRecord:
    """How far the events are pruned: all that arrived up to this one may be gone.

    revision, key: the store's revision at which the last one pruned came, and its key.
    """

    revision: int
    key: str


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request that was to be done once, by the key that its client gave it, and the answer to give again.

    id: made of the client's key.  fingerprint: tells whether another request comes with the same key.
    answer: None: it was begun, and is being done, or its agent ended midway.  revision: in the answer, the store's own
    of this very record takes its place.
    unix_ms: when, by the wall clock of host `by`; what is old is forgotten.
    """

    id: str
    fingerprint: str
    by: str
    unix_ms: int
    status: int = 200
    answer: dict[str, Any] | None = None


Record = (
    ClusterRecord
    | ClaimRecord
    | LeaderRecord
    | Host
    | WorkloadRecord
    | PlacementRecord
    | ReportRecord
    | StandbyRecord
    | VerdictRecord
    | OperationRecord
    | EventRecord
    | PrunedRecord
    | RequestRecord
    | Network
    | Policies
    | MaintenanceRecord
    | PackageRecord
    | DepotRecord
    | FenceRecord
)

_KINDS: tuple[tuple[str, type], ...] = (
    (HOSTS, Host),
    (CLAIMS, ClaimRecord),
    (WORKLOADS, WorkloadRecord),
    (PLACEMENTS, PlacementRecord),
    (REPORTS, ReportRecord),
    (STANDBYS, StandbyRecord),
    (VERDICTS, VerdictRecord),
    (OPERATIONS, OperationRecord),
    (EVENTS, EventRecord),
    (REQUESTS, RequestRecord),
    (NETWORKS, Network),
    (MAINTENANCE, MaintenanceRecord),
    (PACKAGES, PackageRecord),
    (DEPOTS, DepotRecord),
    (FENCES, FenceRecord),
)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {prefix: msgspec.json.Decoder(kind) for prefix, kind in _KINDS}
_DECODERS[CLUSTER] = msgspec.json.Decoder(ClusterRecord)
_DECODERS[LEADER] = msgspec.json.Decoder(LeaderRecord)
_DECODERS[PRUNED] = msgspec.json.Decoder(PrunedRecord)
_DECODERS[POLICIES] = msgspec.json.Decoder(Policies)
_encoder = msgspec.json.Encoder()


class BadRecord(OutliveError):
    """A value in the store that is not what its key promises."""

    id = "store.bad-record"

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(
            f"The store's key {key!r} cannot be read.",
            cause=problem,
            remedy="it was written by hand or by another version: write it again with `outlive apply`, "
            "or remove the key",
        )
        self.key = key


def encode(record: Record) -> bytes:
    """The bytes that stand in the store for a record."""
    return _encoder.encode(record)


def name_in(key: str) -> str:
    """The last part of a key: the host's, workload's, network's, package's, operation's or event's name."""
    return key.rpartition("/")[2]


def decode(key: str, value: bytes) -> Record | None:
    """Read the record of `key`; None for keys that this version has no use for.

    Raises BadRecord when the value is not what the key promises, or names something else than the key does.
    """
    prefix = key[: key.find("/") + 1] or key
    decoder = _DECODERS.get(prefix)
    if decoder is None:
        return None
    try:
        record: Record = decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRecord(key, str(error)) from error
    named = _named(record)
    if named is not None and prefix + named != key:
        raise BadRecord(key, f"it holds the record of {named!r}")
    if isinstance(record, WorkloadRecord) and (problem := _unusable(record.workload) or _bad_rollout(record)):
        raise BadRecord(key, problem)
    if isinstance(record, PlacementRecord) and (problem := _impossible(record)):
        raise BadRecord(key, problem)
    if isinstance(record, FenceRecord) and record.claim < 1:
        raise BadRecord(key, f"a claim of incarnation {record.claim} cannot be")
    if isinstance(record, StandbyRecord) and (problem := _impossible_standby(record)):
        raise BadRecord(key, problem)
    if isinstance(record, Network) and (problem := problem_with(record)):
        raise BadRecord(key, problem)
    if isinstance(record, Policies) and (problem := problem_with_policies(record)):
        raise BadRecord(key, problem)
    if isinstance(record, PackageRecord) and (problem := package_problem(record)):
        raise BadRecord(key, problem)
    return record


def _bad_rollout(record: WorkloadRecord) -> str:
    """Why it could not be brought to the other version, or back; '' for nothing."""
    rollout = record.rollout
    if rollout is None:
        return ""
    if rollout.other.name != record.workload.name:
        return f"its change is one of {rollout.other.name[:80]!r}"
    return _unusable(rollout.other)


def _impossible(placed: PlacementRecord) -> str:
    """What no placement can say; '' for nothing."""
    if placed.generation < 1:
        return f"a generation of {placed.generation} cannot be"
    if placed.pairing < 0:
        return f"a pairing of {placed.pairing} cannot be"
    if placed.heartbeats < 0:
        return f"{placed.heartbeats} heartbeats cannot be"
    if placed.host is not None and placed.host in (placed.standby, placed.moving_to):
        return f"{placed.host} cannot follow itself"
    if placed.paired and placed.standby is None:
        return "it is paired with nobody"
    return ""


def _impossible_standby(standby: StandbyRecord) -> str:
    if standby.generation < 1 or standby.pairing < 1:
        return f"a pairing of {standby.pairing} at generation {standby.generation} cannot be"
    if standby.stage in REACHABLE and not (standby.address and 0 < standby.port < 65536):
        return f"it is {standby.stage}, and does not say where"
    return ""


def _unusable(workload: Workload) -> str:
    """What keeps a workload from ever being started; '' for nothing. Names become paths, so they are looked at too."""
    names = [workload.name, *(module.name for module in workload.modules)]
    rules = workload.placement
    others = (*workload.after, *rules.together_with, *rules.apart_from)
    if wrong := [name for name in (*names, *others) if not NAME.fullmatch(name)]:
        return f"{wrong[0]!r} is no name"
    if workload.name in workload.after:
        return "it comes after itself"
    if workload.name in others:
        return "it is to be placed by where it is itself"
    if len(set(names[1:])) < len(workload.modules):
        return "two of its modules have the same name"
    for module in workload.modules:
        if missing := set(module.after) - set(names[1:]):
            return f"module {module.name} comes after {min(missing)}, which it does not have"
    try:
        start_order(workload.modules)
    except ValueError as cycle:
        return f"its modules wait for each other: {cycle}"
    if workload.package is not None and (problem := use_problem(workload.package)):
        return problem
    return machine_problem(workload)


def _named(record: Record) -> str | None:
    match record:
        case Host(name=name) | Network(name=name):
            return name
        case ClaimRecord(host=name) | VerdictRecord(host=name) | MaintenanceRecord(host=name):
            return name
        case DepotRecord(host=name) | FenceRecord(host=name):
            return name
        case PackageRecord():
            return record.key
        case WorkloadRecord(workload=workload):
            return workload.name
        case PlacementRecord(workload=name) | ReportRecord(workload=name) | StandbyRecord(workload=name):
            return name
        case OperationRecord(id=name) | RequestRecord(id=name):
            return name
        case _:
            return None
