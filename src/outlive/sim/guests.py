"""Virtual machines of one host, as primary and as standby: epochs, held output, links that fall silent, adoption.

The simulator's twin of communication managers. Epochs are coarse, and a message says how far the sender is, so that one
that was lost is made up for by the next, as in a stream. They live until their host loses power or they are
killed; the agent tells them what to do, and they tell it what they notice. All goes through the host's gate and, since
they can be stalled alone, through one of their own.
"""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload

from .gate import Gate
from .voices import Stretch

if TYPE_CHECKING:
    from .host import SimHost
    from .runtime import Program

EPOCH_S = (0.08, 0.16)
SILENCE_S = 0.3
SEEDING_S = (0.1, 1.5)
MIGRATION_S = (0.2, 2.0)
ADOPTION_S = (0.005, 0.08)
PORT = 4000


class Mode(Enum):
    """FREE: output leaves as it comes. HOLDING: once acknowledged. LOST: not at all. STILL: the guest stands still."""

    FREE = "free"
    SEEDING = "seeding"
    HOLDING = "holding"
    LOST = "lost"
    STILL = "still"


class _Manager:
    """What both sides have: who they are, their gates, and the silence of the other side."""

    def __init__(self, room: "Guests", workload: Workload, generation: int) -> None:
        self.room = room
        self.workload = workload
        self.name = workload.name
        self.generation = generation
        self.pairing = 0
        self.peer = ""
        self.heard_at = 0.0
        self.gate = Gate(room.host.parts.agenda)

    def after(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        """Do it later, unless the process is gone or stalled then."""
        self.room.host.gate.after(delay_s, self.gate.enter, act, *args)

    def tell(self, kind: Callable[..., ev.Event], **fields: Any) -> None:
        """Tell the agent, if there is one."""
        self.room.host.tell(kind, workload=self.name, generation=self.generation, **fields)

    def send(self, what: str, number: int, **more: Any) -> None:
        """Say something to the other side; it arrives unless a way is cut."""
        parts, me = self.room.host.parts, self.room.host.name
        if parts.network.passes(me, self.peer):
            about = (self.name, self.generation, self.pairing, what, number, more)
            parts.links.send(me, self.peer, parts.hosts[self.peer].guests_hear, me, *about)

    def is_silent(self) -> bool:
        """Whether the other side has said nothing for too long."""
        return self.gate.now - self.heard_at > SILENCE_S


class Guest(_Manager):
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


class Follower(_Manager):
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
        if what == "seed":
            self.send("acknowledge-seed", 0)
            return
        if number > self.whole:
            first, self.whole, self.stretch = self.whole == 0, number, more["stretch"]
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


class Guests:
    """All of one host. running: those that are primaries, by workload; followers: those that follow another's."""

    def __init__(self, host: "SimHost") -> None:
        self.host = host
        self.running: dict[str, Guest] = {}
        self.followers: dict[str, Follower] = {}

    def draw(self, between: tuple[float, float]) -> float:
        """A number of the range."""
        return self.host.parts.draw(between)

    def cannot_prepare(self, workload: str) -> bool:
        """Whether something here keeps it from being made ready."""
        ills = self.host.parts.ills
        return ills.has(ills.prepares_fail, workload, self.host.name) or not self.host.guard.allows()

    # As the runtime starts and ends them.

    def begins(self, program: "Program") -> None:
        """The machine of a program starts."""
        name = program.workload.name
        self.ends(name)
        stretch = self.host.parts.voices.begins(name, self.host.name, program.generation)
        self.running[name] = Guest(self, program.workload, program.generation, stretch)

    def ends(self, workload: str) -> None:
        """The machine that runs here is gone; its other side will find it silent."""
        guest = self.running.pop(workload, None)
        if guest is not None:
            guest.gate.shut()

    def drops(self, workload: str) -> None:
        """Nothing that follows is left either."""
        follower = self.followers.pop(workload, None)
        if follower is not None:
            follower.gate.shut()

    def guard_fires(self) -> None:
        """The guard kills what follows here too."""
        for name, follower in list(self.followers.items()):
            generation = follower.generation
            self.drops(name)
            self.host.tell(ev.GuardFired, workload=name, generation=generation)

    def power_cut(self) -> None:
        """All is gone."""
        for name in [*self.running]:
            self.ends(name)
        for name in [*self.followers]:
            self.drops(name)

    # Commands.

    def prepare(self, workload: Workload, generation: int, pairing: int, role: Role) -> None:
        """Begin to follow → StandbyListening or StandbyFailed."""
        name = workload.name
        if name in self.followers or name in self.host.runtime.programs:
            about = {"workload": name, "generation": generation, "pairing": pairing}
            self.host.tell(ev.StandbyFailed, reason="something of it is still here", **about)
            return
        self.followers[name] = Follower(self, workload, generation, pairing, role)

    def discard(self, workload: str, generation: int, pairing: int) -> None:
        """End a standby → StandbyDiscarded."""
        follower = self.followers.get(workload)
        if follower is not None and (follower.generation, follower.pairing) == (generation, pairing):
            self.drops(workload)
        delay_s = self.draw((0.001, 0.1))
        fields = {"workload": workload, "generation": generation, "pairing": pairing}
        self.host.gate.after(delay_s, self._discarded, fields)

    def _discarded(self, fields: dict[str, Any]) -> None:
        self.host.tell(ev.StandbyDiscarded, **fields)

    def take_over(self, workload: str, generation: int, pairing: int, to_generation: int) -> None:
        """Have the standby of that pairing adopted → TookOver or TakeOverFailed; at once if it has been."""
        guest, follower = self.running.get(workload), self.followers.get(workload)
        if guest is not None and guest.generation == to_generation:
            self.host.tell(ev.TookOver, workload=workload, generation=to_generation)
        elif follower is not None and (follower.generation, follower.pairing) == (generation, pairing):
            follower.gate.enter(follower.take_over, to_generation)
        else:
            fields = {"workload": workload, "generation": to_generation, "reason": "its standby is gone"}
            self.host.tell(ev.TakeOverFailed, **fields)

    def becomes_primary(self, follower: Follower, stretch: Stretch, generation: int) -> None:
        """It has adopted: the guest runs here."""
        name = follower.name
        self.drops(name)
        if not self.host.runtime.adopted(follower.workload, generation):
            self.host.tell(ev.TakeOverFailed, workload=name, generation=generation, reason="its claim has ended")
            return
        guest = Guest(self, follower.workload, generation, stretch, epoch=follower.whole)
        guest.pairing = follower.pairing
        self.running[name] = guest
        self.host.tell(ev.TookOver, workload=name, generation=generation)

    def guest(self, workload: str, generation: int, act: Callable[..., None], *args: Any) -> None:
        """Have the machine that runs at that generation do something, if there is one."""
        guest = self.running.get(workload)
        if guest is not None and guest.generation == generation:
            guest.gate.enter(act, guest, *args)

    # Messages, faults, and a new agent.

    def hear(self, sender: str, name: str, generation: int, pairing: int, *said: Any) -> None:
        """A message of the other side arrives; one of another pairing is refused."""
        guest, follower = self.running.get(name), self.followers.get(name)
        if guest is not None and (guest.generation, guest.pairing) == (generation, pairing):
            guest.gate.enter(guest.hears, *said)
        elif follower is not None and (follower.generation, follower.pairing) == (generation, pairing):
            follower.gate.enter(follower.hears, sender, *said)

    def stall(self) -> Callable[[], None]:
        """All communication managers here stand still; returns how to let them go on."""
        stalled: list[_Manager] = [*self.running.values(), *self.followers.values()]
        for each in stalled:
            each.gate.close()

        def go_on() -> None:
            for each in stalled:
                each.gate.open()

        return go_on

    def adopt(self, wanted: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
        """Clear away followers that no journal knows; those that live, by workload, for the new agent."""
        alive: dict[str, dict[str, Any]] = {}
        for name, follower in list(self.followers.items()):
            if wanted.get(name) == (follower.generation, follower.pairing) and follower.listens:
                alive[name] = {}
            else:
                self.drops(name)
        for name, (generation, pairing) in wanted.items():
            guest = self.running.get(name)
            if guest is not None and (guest.generation, guest.pairing) == (generation + 1, pairing):
                alive[name] = {}
        return alive

    def retell(self) -> None:
        """Tell a new agent how all of them are."""
        for guest in list(self.running.values()):
            guest.gate.enter(guest.retell)
        for follower in list(self.followers.values()):
            follower.gate.enter(follower.retell)
