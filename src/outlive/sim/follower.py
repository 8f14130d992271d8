"""A virtual machine as its standby, or as the target of its migration: it keeps the newest whole epoch, and adopts it.

From the moment in which it adopts, it acknowledges nothing more to the old primary.
"""

from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload

from .comm import PORT, SILENCE_S, Manager
from .voices import Stretch

if TYPE_CHECKING:
    from .guests import Guests

ADOPTION_S = (0.005, 0.08)


class Follower(Manager):
    """The standby's side, or the target of a migration. whole: the newest whole epoch it holds; stretch: of what."""

    def __init__(self, room: "Guests", workload: Workload, generation: int, pairing: int, role: Role) -> None:
        super().__init__(room, workload, generation)
        self.pairing = pairing
        self.role = role
        self.whole = 0
        self.stretch: Stretch | None = None
        self.listens = False
        self.seeding = False
        self.lost = ""
        self.adopting = False
        self.after(room.draw(room.host.parts.setup.delays.prepare_s), self._listen)

    def _listen(self) -> None:
        if self.room.cannot_prepare(self.name):
            self.fail("its disk cannot be made")
            return
        self.listens = True
        self.tell(ev.StandbyListening, pairing=self.pairing, address=f"at-{self.room.host.name}", port=PORT)
        self._watch()

    def fail(self, reason: str) -> None:
        """It is of no use any more."""
        self.gate.shut()
        self.listens = False
        self.tell(ev.StandbyFailed, pairing=self.pairing, reason=reason)

    def _watch(self) -> None:
        if self.adopting:
            return
        if self.seeding and not self.lost and self.is_silent():
            self._lose("silent")
        self.after(SILENCE_S / 3, self._watch)

    def _lose(self, reason: str) -> None:
        self.lost = reason
        self._tell_lost()

    def _tell_lost(self) -> None:
        whole = self.whole > 0
        self.tell(ev.PeerLost, pairing=self.pairing, role=Role.STANDBY, reason=self.lost, whole=whole)

    def hears(self, sender: str, what: str, number: int, more: dict[str, Any]) -> None:
        """The primary says how far it is; nothing is acknowledged any more from when this one adopts."""
        if not self.listens or self.adopting:
            return
        self.peer, self.heard_at = sender, self.gate.now
        if not self.seeding:
            self.seeding = True
            self.tell(ev.StandbySeeding, pairing=self.pairing)
        voices = self.room.host.parts.voices
        if what == "seed":
            voices.keeps(self.name, self.room.host.name, None, 0)
            self.send("acknowledge-seed", 0)
            return
        if number > self.whole:
            first, self.whole, self.stretch = self.whole == 0, number, more["stretch"]
            voices.keeps(self.name, self.room.host.name, self.stretch, number)
            if first and what == "epoch":
                self.tell(ev.StandbyWhole, pairing=self.pairing)
        self.send("all-here" if what == "all" else "acknowledge", self.whole)
        if more.get("final") and not self.lost:
            self._lose("handed over")

    def take_over(self, to_generation: int) -> None:
        """Adopt the newest whole epoch."""
        if self.adopting:
            return
        if not self.listens or self.stretch is None or not self.room.host.guard.allows():
            self.room.host.tell(
                ev.TakeOverFailed, workload=self.name, generation=to_generation, reason="it holds nothing whole"
            )
            return
        self.adopting = True
        here, voices = self.room.host.name, self.room.host.parts.voices
        stretch = voices.adopts(self.stretch, self.whole, here, to_generation)
        self.after(self.room.draw(ADOPTION_S), self._adopted, stretch, to_generation)

    def _adopted(self, stretch: Stretch, to_generation: int) -> None:
        self.room.becomes_primary(self, stretch, to_generation)

    def retell(self) -> None:
        """A new agent asks how it is."""
        if self.listens:
            self.tell(ev.StandbyListening, pairing=self.pairing, address=f"at-{self.room.host.name}", port=PORT)
        if self.seeding:
            self.tell(ev.StandbySeeding, pairing=self.pairing)
        if self.whole and self.role is Role.STANDBY:
            self.tell(ev.StandbyWhole, pairing=self.pairing)
        if self.lost:
            self._tell_lost()
