"""A virtual machine as its primary: epochs, output that is held until it is acknowledged, handing over, migrating.

Epochs are coarse. What leaves the guest is told to `voices`, by which the rule `one_voice` judges it.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload

from .comm import SILENCE_S, Manager
from .voices import Stretch

if TYPE_CHECKING:
    from .guests import Guests

EPOCH_S = (0.08, 0.16)
SEEDING_S = (0.1, 1.5)
MIGRATION_S = (0.2, 2.0)


class Mode(Enum):
    """FREE: output leaves as it comes. HOLDING: once acknowledged. LOST: not at all. STILL: the guest stands still."""

    FREE = "free"
    SEEDING = "seeding"
    HOLDING = "holding"
    LOST = "lost"
    STILL = "still"


class Guest(Manager):
    """The primary's side: a guest that runs here. epoch: the one in which it lives now; acked: the newest whole one."""

    def __init__(self, room: "Guests", workload: Workload, generation: int, stretch: Stretch, epoch: int = 0) -> None:
        super().__init__(room, workload, generation)
        self.stretch = stretch
        self.epoch = epoch
        self.acked = 0
        self.mode = Mode.FREE
        self.lost = ""
        self.migrated = False
        self.hands_over = False
        self._turn = 0
        self._cut()

    def _cut(self) -> None:
        """An epoch ends: its output leaves, or is held; the other side is told."""
        if self.mode is not Mode.STILL:
            self.epoch += 1
        if self.mode in (Mode.FREE, Mode.SEEDING):
            self.room.host.parts.voices.releases(self.stretch, self.epoch)
        if self.mode is Mode.SEEDING:
            self.send("seed", 0)
        elif self.mode is Mode.HOLDING or (self.mode is Mode.STILL and self.hands_over):
            self.send("epoch", self.epoch, stretch=self.stretch, final=self.hands_over)
        if self.mode in (Mode.SEEDING, Mode.HOLDING) and self.is_silent():
            self._lose("silent")
        self.after(self.room.draw(EPOCH_S), self._cut)

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self.mode = Mode.FREE if self.mode is Mode.SEEDING else Mode.LOST
        self.tell(ev.PeerLost, pairing=self.pairing, role=Role.PRIMARY, reason=reason)

    def _enters(self, pairing: int, peer: str) -> None:
        self._turn += 1
        self.pairing, self.peer, self.heard_at = pairing, peer, self.gate.now
        self.acked, self.lost, self.migrated, self.hands_over = 0, "", False, False

    def pair(self, pairing: int, peer: str) -> None:
        """Seed a standby, then hold."""
        if pairing <= self.pairing or self.mode is not Mode.FREE:
            return
        self._enters(pairing, peer)
        self.mode = Mode.SEEDING
        self.after(self.room.draw(SEEDING_S), self._seeded, self._turn)

    def _seeded(self, turn: int) -> None:
        if self.mode is Mode.SEEDING and self._turn == turn:
            self.mode = Mode.HOLDING

    def go_alone(self, pairing: int) -> None:
        """Every pairing below this one is over."""
        if self.pairing >= pairing:
            return
        self._enters(pairing - 1, "")
        self.mode = Mode.FREE

    def hand_over(self, pairing: int) -> None:
        """A last epoch, and stand still."""
        if self.pairing == pairing and self.mode is Mode.HOLDING:
            self.hands_over = True
            self.mode = Mode.STILL

    def migrate(self, pairing: int, target: str) -> None:
        """Send everything while the guest runs; stop it at the end."""
        if pairing <= self.pairing or self.mode is not Mode.FREE:
            return
        self._enters(pairing, target)
        self.after(self.room.draw(MIGRATION_S), self._migrates, self._turn)

    def _migrates(self, turn: int) -> None:
        if self._turn != turn or self.migrated or self.mode is not Mode.FREE:
            return
        self.mode = Mode.STILL
        self.send("all", self.epoch, stretch=self.stretch)
        self.after(SILENCE_S, self._gives_up, self._turn)

    def _gives_up(self, turn: int) -> None:
        if self._turn == turn and self.mode is Mode.STILL and not self.migrated:
            self.mode = Mode.FREE
            self.lost = "the target does not answer"
            self.tell(ev.MigrationFailed, pairing=self.pairing, reason=self.lost)

    def hears(self, what: str, number: int, more: dict[str, Any]) -> None:
        """The standby, or the target, says something."""
        self.heard_at = self.gate.now
        if what == "all-here" and self.mode is Mode.STILL and not self.migrated:
            self.migrated = True
            self.tell(ev.Migrated, pairing=self.pairing)
        elif what == "acknowledge" and (self.mode is Mode.HOLDING or self.hands_over):
            if self.acked == 0:
                self.tell(ev.Paired, pairing=self.pairing)
            self.acked = max(self.acked, number)
            self.room.host.parts.voices.releases(self.stretch, min(self.acked, self.epoch))

    def retell(self) -> None:
        """A new agent asks how it is."""
        if self.acked:
            self.tell(ev.Paired, pairing=self.pairing)
        if self.lost and self.migrated is False:
            self.tell(ev.PeerLost, pairing=self.pairing, role=Role.PRIMARY, reason=self.lost)
        if self.migrated:
            self.tell(ev.Migrated, pairing=self.pairing)
