"""What the node is told of one machine: its module's status, and every event about its pairing, moves and checkpoints.

Each bears the moment at which it is told, and the generation and pairing that the machine stands in then, unless
whoever tells it says which it is about. Nothing is done here; what a manager's words mean is in `machine_news`.
"""

from outlive.cluster import events as ev
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE
from outlive.replication import control
from outlive.runtime.base import Told

from .machine_news import news_of
from .observe import Clock, Tell
from .standing import Standing


class MachineEvents:
    """The voice of one machine. told: takes its module's status.  tell: takes everything else."""

    def __init__(self, standing: Standing, clock: Clock, told: Told, tell: Tell) -> None:
        self._standing = standing
        self._clock = clock
        self._told = told
        self._tell = tell

    def module(self, status: ModuleStatus, reason: str = "") -> None:
        """What has become of the machine."""
        self._told(MODULE, status, reason)

    def news(self, event: control.Event) -> None:
        """What its manager told, if that means anything to the node."""
        if (news := news_of(event, self._standing, self._clock())) is not None:
            self._tell(news)

    def peer_lost(self, reason: str) -> None:
        """Its other half is not known to follow, or to be followed, any more."""
        of = self._standing
        self._tell(ev.PeerLost(self._clock(), of.workload, of.generation, of.pairing, of.role, reason))

    def standby_failed(self, reason: str) -> None:
        """It can stand by no longer."""
        of = self._standing
        self._tell(ev.StandbyFailed(self._clock(), of.workload, of.generation, of.pairing, reason))

    def migrated(self, at: tuple[int, int], stood_still_ms: float) -> None:
        """All of it is at the target of a move. at: the generation and pairing of that move."""
        self._tell(ev.Migrated(self._clock(), self._standing.workload, *at, stood_still_ms))

    def migration_failed(self, at: tuple[int, int], reason: str) -> None:
        """It did not get to the target of a move. at: the generation and pairing of that move."""
        self._tell(ev.MigrationFailed(self._clock(), self._standing.workload, *at, reason))

    def checkpoint_ended(self, operation: str, *, whole: bool, reason: str) -> None:
        """A checkpoint that an operator asked for is there, or is not to be."""
        of = self._standing
        self._tell(ev.CheckpointEnded(self._clock(), of.workload, of.generation, operation, whole, reason))
