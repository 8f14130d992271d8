"""The virtual machines of one host, those that run and those that follow: the agent's hands, and a new agent's eyes.

The simulator's twin of what the agent does with communication managers. They outlive the agent, and end with their
host's power or by its guard.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload

from .comm import Manager
from .follower import Follower
from .guest import Guest, Mode
from .voices import Stretch

if TYPE_CHECKING:
    from .host import SimHost
    from .runtime import Program


class Guests:
    """All of one host. running: those that are primaries, by workload; followers: those that follow another's.

    unmanaged: machines that run, and whose communication manager has died.
    """

    def __init__(self, host: "SimHost") -> None:
        self.host = host
        self.running: dict[str, Guest] = {}
        self.followers: dict[str, Follower] = {}
        self.unmanaged: dict[str, Guest] = {}

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
        self.unmanaged.pop(workload, None)
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
        # An agent that died as it took over knows of no more than a standby, and ends all that is there of it.
        self.host.runtime.forget(workload, generation + 1)
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
        if act is Guest.go_alone:
            self._revive(workload, generation)
        guest = self.running.get(workload)
        if guest is not None and guest.generation == generation:
            guest.gate.enter(act, guest, *args)

    # Messages, faults, and a new agent.

    def kill_manager(self, workload: str) -> None:
        """The communication manager of a machine dies, and the machine goes on, unheard; the agent notices."""
        guest = self.running.pop(workload, None)
        if guest is not None:
            guest.gate.shut()
            self.unmanaged[workload] = guest
            self.host.gate.after(self.draw((0.001, 0.05)), self._manager_gone, guest)

    def _manager_gone(self, guest: Guest) -> None:
        if self.unmanaged.get(guest.name) is not guest or self.host.agent is None:
            return
        if guest.mode is Mode.FREE and not guest.lost:
            self._revive(guest.name, guest.generation)
        else:
            guest.tell(ev.PeerLost, pairing=guest.pairing, role=Role.PRIMARY, reason="its manager died")

    def _revive(self, workload: str, generation: int) -> None:
        """Give a machine that goes on alone a manager again; what the one before it held is lost, as on a wire."""
        guest = self.unmanaged.get(workload)
        if guest is not None and guest.generation == generation:
            del self.unmanaged[workload]
            self.running[workload] = Guest(self, guest.workload, generation, guest.stretch, epoch=guest.epoch)

    def hear(self, sender: str, name: str, generation: int, pairing: int, *said: Any) -> None:
        """A message of the other side arrives; one of another pairing is refused."""
        guest, follower = self.running.get(name), self.followers.get(name)
        if guest is not None and (guest.generation, guest.pairing) == (generation, pairing):
            guest.gate.enter(guest.hears, *said)
        elif follower is not None and (follower.generation, follower.pairing) == (generation, pairing):
            follower.gate.enter(follower.hears, sender, *said)

    def stall(self) -> Callable[[], None]:
        """All communication managers here stand still; returns how to let them go on."""
        stalled: list[Manager] = [*self.running.values(), *self.followers.values()]
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
        for guest in list(self.unmanaged.values()):
            # Which pairing it was in died with it.
            guest.tell(ev.PeerLost, pairing=0, role=Role.PRIMARY, reason="its manager ended while no agent ran")
        for guest in list(self.running.values()):
            guest.gate.enter(guest.retell)
        for follower in list(self.followers.values()):
            follower.gate.enter(follower.retell)
