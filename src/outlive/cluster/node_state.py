"""What a host's node machine remembers between events, and the turn in which it changes.

State is frozen; nothing here decides. The rules are elsewhere: `session` (the claim), `reigns` (workloads here),
`isolation` (peers), `node` (which rule when).
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import msgspec
from immutables import Map

from .commands import Held, Journal, SaveJournal
from .heartbeat import Heartbeat, ModuleStatus
from .host import Host
from .mirror import Mirror
from .records import Stage
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
class Reign:
    """A workload that this host acts, or has acted, for at one generation.

    statuses: as the runtime says; started: modules that were told to start; restored: restorations carried out.
    final: how it ends (or ended). reporting_since: when the outstanding report was sent; reported_revision: the
    store's revision after the last one that was written.
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


class NodeState(msgspec.Struct, frozen=True):
    """Everything that one host's node machine knows.

    predecessor: the agent's run before this one, by the journal.  shown: the reigns that the last heartbeat told of.
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
    session: Session = Session()
    reigns: "Map[str, Reign]" = Map()
    acted: "Map[str, int]" = Map()
    heard: "Map[str, float]" = Map()
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


class Turn(BaseTurn[NodeState]):
    """One event being dealt with by the node machine."""

    def set_session(self, **changes: Any) -> None:
        """Change fields of the session."""
        self.set(session=replace(self.state.session, **changes))

    def set_reign(self, reign: Reign) -> None:
        """Put a reign in the place of the one before it."""
        self.set(reigns=self.state.reigns.set(reign.workload.name, reign))

    def save(self) -> None:
        """Have the journal say what is held now, if that is not what it says already."""
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
            )
            for _, reign in sorted(state.reigns.items())
        )
        session = state.session
        journal = Journal(state.run, session.lease, session.incarnation, held)
        if journal != state.journal:
            self.set(journal=journal)
            self.do(SaveJournal(journal))
