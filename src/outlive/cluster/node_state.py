"""What a host's node machine remembers between events, and the turn in which it changes.

State is frozen; nothing here decides. The rules are elsewhere: `session` (the claim), `reigns` (workloads here),
`pairing` (hot and moving ones as their primary), `standing_by` (as their standby), `isolation` (peers), `node`
(which rule when).
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import msgspec
from immutables import Map

from .commands import Held, Journal, KeepPackages, Role, SaveJournal
from .heartbeat import Heartbeat, ModuleStatus
from .host import Host
from .mirror import Mirror
from .pushed import DepotRecord
from .records import OperationState, Stage, StandbyStage
from .repeats import Repeats
from .timing import Timing
from .turn import BaseTurn
from .workload import Workload


@dataclass(frozen=True, slots=True)
class Session:
    """The host's standing with the store. Zero means none.

    registered: the sequence with which this claim was registered; answers to earlier renewals were about another.
    asked_at: when the outstanding lease, registration or renewal was sent; None: none is outstanding.
    deadline_at: until when this host may act, by its own clock; it stays after the claim is lost.
    """

    lease: int = 0
    incarnation: int = 0
    sequence: int = 0
    registered: int = 0
    asked_at: float | None = None
    renew_at: float = 0.0
    deadline_at: float = 0.0
    reached_at: float = float("-inf")
    guarded: bool = False


class Phase(StrEnum):
    PREPARING = "preparing"
    ACTIVE = "active"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Link:
    """How a reign stands in its present pairing, with a standby or with the target of a migration.

    pairing: the newest that the store was seen to name.  adopted: what the communication manager was told of it is
    known from the journal alone, so that it is told again.
    told: it was told to pair, or to migrate, in this pairing.  complete: all is at the target of the migration.
    whole: the standby holds a whole epoch; told_whole: and the store says so.
    lost: why the pairing must be left, '' while it need not; lost_because: the event that says so.
    handing_since, failed_since: when it was told to hand over, or the module was seen failed.
    asked_at, asked_revision: when the store was last asked to arbitrate, and the placement's revision then.
    """

    pairing: int = -1
    adopted: bool = False
    told: bool = False
    whole: bool = False
    told_whole: bool = False
    complete: bool = False
    lost: str = ""
    lost_because: str = ""
    handing_since: float | None = None
    failed_since: float | None = None
    asked_at: float | None = None
    asked_revision: int = 0


@dataclass(frozen=True, slots=True)
class Reign:
    """A workload that this host acts, or has acted, for at one generation.

    statuses: as the runtime says; started: modules that were told to start; restored: restorations carried out.
    final: how it ends (or ended). adopting: it begins as a standby that takes over.
    reporting_since: when the outstanding report was sent, reporting_on: by which revision of its placement, refused_on:
    the same if it was refused. reported_revision: the store's revision after the last one that was written.
    """

    workload: Workload
    generation: int
    claim: int
    phase: Phase
    statuses: dict[str, ModuleStatus]
    because: str
    started: frozenset[str] = frozenset()
    restored: dict[str, int] = field(default_factory=dict)
    was_running: bool = False
    final: Stage = Stage.STOPPED
    reason: str = ""
    reported_revision: int = 0
    reporting_since: float | None = None
    reporting_on: int = 0
    refused_on: int = 0
    adopting: bool = False
    link: Link = Link()

    def stage(self) -> Stage:
        """How far this has come, in the words of a report."""
        if self.phase is Phase.PREPARING:
            return Stage.PREPARING
        if self.phase is Phase.STOPPING:
            return Stage.STOPPING
        if self.phase is Phase.ENDED:
            return self.final
        if all(status is ModuleStatus.RUNNING for status in self.statuses.values()):
            return Stage.RUNNING
        return Stage.DEGRADED if self.was_running else Stage.STARTING

    def shown(self, module: str) -> ModuleStatus:
        """The bits that heartbeats carry: STOPPED only once nothing of it can run again."""
        if self.phase is Phase.ENDED:
            return ModuleStatus.STOPPED
        if self.phase is Phase.ACTIVE:
            return self.statuses[module]
        return ModuleStatus.RESTORING


class Standing(StrEnum):
    """HELD: it follows, or gets ready to. TAKING: it won the store, and adopts. ENDED: never again in this pairing."""

    HELD = "held"
    TAKING = "taking"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Standby:
    """A workload that this host follows in one pairing; role: as its standby, or as the target of its migration.

    stage, address, port, reason: what its record in the store shall say.
    lost: why it wants to take over, '' while it does not.
    asked_at, asked_revision: when it last asked the store to, and the placement's revision then.
    reporting_since, reported_revision: as in a Reign.
    """

    workload: Workload
    generation: int
    pairing: int
    claim: int
    role: Role
    because: str
    standing: Standing = Standing.HELD
    stage: StandbyStage = StandbyStage.PREPARING
    address: str = ""
    port: int = 0
    reason: str = ""
    lost: str = ""
    asked_at: float | None = None
    asked_revision: int = 0
    reported_revision: int = 0
    reporting_since: float | None = None


@dataclass(frozen=True, slots=True)
class CheckpointCourse:
    """A checkpoint that an operator asked for. state: None while it is under way; asked_at: last told the store."""

    state: OperationState | None = None
    reason: str = ""
    because: str = ""
    asked_at: float = 0.0


class NodeState(msgspec.Struct, frozen=True):
    """Everything that one host's node machine knows.

    predecessor: the agent's run before this one, by the journal.  peers: the other hosts that are registered, by name.
    repeats: what peers say again and again.  shown: the reigns that the last heartbeat told of.
    checkpoints: how the checkpoint fares that an operation asked for.
    depot_due: the depot may have to hold something else.  kept: what it was last told to have.
    depot: what it last said; None: nothing yet.
    depot_asked_at, depot_revision: when the store was last told of it, and the store's revision after that.
    """

    me: str
    host: Host
    boot_id: str
    cluster_id: str
    timing: Timing
    run: str = ""
    predecessor: str = ""
    at: float = 0.0
    load: float = 0.0
    sequence: int = 0
    issued: int = 0
    mirror: Mirror = Mirror()
    peers: tuple[str, ...] = ()
    session: Session = Session()
    reigns: "Map[str, Reign]" = Map()
    acted: "Map[str, int]" = Map()
    standbys: "Map[str, Standby]" = Map()
    checkpoints: "Map[str, CheckpointCourse]" = Map()
    heard: "Map[str, float]" = Map()
    repeats: Repeats = Repeats()
    listening_since: float = 0.0
    ticked_at: float | None = None
    probed_at: float = 0.0
    isolated: bool = False
    datastore_reachable: bool = False
    beat: Heartbeat | None = None
    shown: "Map[str, Reign] | None" = None
    beat_at: float = 0.0
    slot_at: float = 0.0
    journal: Journal = Journal()
    depot_due: bool = False
    kept: KeepPackages | None = None
    depot: DepotRecord | None = None
    depot_asked_at: float | None = None
    depot_revision: int = 0


class Turn(BaseTurn[NodeState]):
    """One event being dealt with by the node machine."""

    def set_session(self, **changes: Any) -> None:
        """Change fields of the session."""
        self.set(session=replace(self.state.session, **changes))

    def set_reign(self, reign: Reign) -> None:
        """Put a reign in the place of the one before it."""
        self.set(reigns=self.state.reigns.set(reign.workload.name, reign))

    def set_standby(self, standby: Standby) -> None:
        """Put a standby in the place of the one before it."""
        self.set(standbys=self.state.standbys.set(standby.workload.name, standby))

    def save(self) -> None:
        """Have the journal say what is held now, if that is not what it says already.

        A standby that takes over stands there as a standby until it has: so the next agent can have it take over again.
        """
        state = self.state
        held = tuple(
            Held(
                workload=reign.workload,
                generation=reign.generation,
                claim=reign.claim,
                restored=reign.restored,
                because=reign.because,
                ended=reign.final if reign.phase is Phase.ENDED else None,
                reason=reign.reason if reign.phase is Phase.ENDED else "",
                pairing=max(0, reign.link.pairing),
                told=reign.link.told,
            )
            for _, reign in sorted(state.reigns.items())
            if not (reign.adopting and reign.phase is Phase.PREPARING)
        )
        held += tuple(
            Held(
                workload=standby.workload,
                generation=standby.generation,
                claim=standby.claim,
                restored={},
                because=standby.because,
                ended=Stage.FAILED if standby.standing is Standing.ENDED else None,
                reason=standby.reason,
                role=standby.role,
                pairing=standby.pairing,
            )
            for _, standby in sorted(state.standbys.items())
        )
        session = state.session
        journal = Journal(state.run, session.lease, session.incarnation, held)
        if journal != state.journal:
            self.set(journal=journal)
            self.do(SaveJournal(journal))
