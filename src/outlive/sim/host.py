"""A simulated host: what stays when its agent dies, what stays when it loses power, and what happens to it.

On disk: the journal, the heartbeat sequence and the depot. Until power is lost: the boot id, the clock, the guard, what
runs. `pause` stops all of it at once, as a stalled virtual machine does; on waking the guard has the first turn.
"""

from collections.abc import Callable
from typing import Any

from outlive.cluster import events as ev
from outlive.cluster.boot import boot_id
from outlive.cluster.commands import Journal
from outlive.cluster.heartbeat import Heartbeat, ModuleTable
from outlive.cluster.host import Host

from .agent import Agent
from .clock import BootClock
from .depot import SimDepot
from .gate import Gate
from .guard import Guard
from .guests import Guests
from .parts import NODE, Parts
from .runtime import Runtime
from .setup import HostSetup

SOCKET_BUFFER = 256
NETWORK_CARD_BUFFER = 32
GUARD_RESTART_S = (0.02, 0.15)
ANOTHERS_SEQUENCE = 1 << 20
"""A machine without a file of its sequence begins at its wall clock, above all that went before."""


class SimHost:
    """One host. powered: it has power; paused: how many pauses last; gate: of all that runs on it but the agent."""

    def __init__(self, setup: HostSetup, parts: Parts) -> None:
        self.name = setup.host.name
        self.parts = parts
        self.journal: Journal | None = None
        self.hung_write: tuple[Heartbeat, ModuleTable] | None = None
        self.agent: Agent | None = None
        self.paused = 0
        self.powered = False
        self.depot = SimDepot(self)
        self._setup = setup
        self._sequence = 0
        self._machines = 1
        self._boots = 0
        self._runs = 0
        self._pending_starts = 0
        self._boot(setup.up_for_s)

    @property
    def boot_id(self) -> str:
        """Which machine it is, and for which time it has booted."""
        return boot_id(f"{self.name} {self._machines}", str(self._boots))

    @property
    def sequence(self) -> int:
        """The newest heartbeat sequence that was used."""
        return self._sequence

    def next_sequence(self) -> int:
        """One more; it survives restarts and reboots."""
        self._sequence += 1
        return self._sequence

    def member(self) -> Host:
        """The host as it describes itself."""
        return self._setup.host

    def save_journal(self, journal: Journal) -> None:
        """Durable from now on."""
        self.journal = journal

    # Power.

    def _boot(self, up_for_s: float) -> None:
        parts, rate = self.parts, self._setup.clock_rate
        self._boots += 1
        self.powered = True
        self.clock = BootClock(rate, parts.agenda.now - up_for_s / rate)
        self.gate = Gate(parts.agenda)
        self.guard = Guard(parts.agenda, parts.random, self.clock, parts.setup.timing.guard_late_s, self._guard_fires)
        self.guests = Guests(self)
        self.runtime = Runtime(
            self.name, self.gate, parts.random, parts.setup.delays, self.guard, parts.datastore, parts.ledger,
            parts.ills, self.tell, self.guests, self.depot,
        )  # fmt: skip
        if self.paused:
            self.gate.close()
            self.guard.stalled = True
        self.start_agent_after(parts.draw(parts.setup.delays.agent_start_s))

    def crash(self) -> None:
        """Power is lost."""
        if not self.powered:
            return
        self.powered = False
        self.kill_agent()
        self._pending_starts += 1
        self.guard.running = False
        self.runtime.power_cut()
        self.gate.shut()
        self.hung_write = None

    def boot(self) -> None:
        """Power is back."""
        if not self.powered:
            self._boot(self.parts.draw((2.0, 8.0)))

    def replaced(self) -> None:
        """Another machine gets power under this name, with nothing of what was on the disks of the one before."""
        if not self.powered:
            self._machines += 1
            self.journal = None
            self.depot = SimDepot(self)
            self._sequence += ANOTHERS_SEQUENCE
            self._boot(self.parts.draw((2.0, 8.0)))

    def pause(self) -> None:
        """Everything here stands still."""
        self.paused += 1
        if self.paused == 1 and self.powered:
            self.guard.stalled = True
            self.parts.ledger.pause(self.name)
            self.gate.close()
            if self.agent is not None:
                self.agent.gate.close()

    def resume(self) -> None:
        """It goes on; first the guard."""
        self.paused -= 1
        if self.paused == 0 and self.powered:
            self._restart_guard()
            self.guard.wake()
            self.parts.ledger.resume(self.name)
            agent = self.agent
            self.gate.open()
            if agent is not None:
                agent.gate.open()

    # The agent.

    def start_agent_after(self, delay_s: float) -> None:
        """Have the service manager start the agent."""
        self._pending_starts += 1
        self.gate.after(delay_s, self._start_agent, self._pending_starts)

    def _start_agent(self, number: int) -> None:
        if number != self._pending_starts or self.agent is not None:
            return
        self._runs += 1
        self.agent = Agent(self, self.parts, f"r{self._runs}")
        self.agent.start()

    def kill_agent(self) -> None:
        """The agent's process dies; what runs goes on."""
        if self.agent is not None:
            self.agent.end()
            self.agent = None
            self.runtime.agent_gone()

    def agent_crashed_midway(self) -> None:
        """It died between two commands; the service manager starts it again."""
        self.parts.timeline.happened(self.parts.agenda.now, f"the agent of {self.name} died midway")
        self.kill_agent()
        self.start_agent_after(self.parts.draw(self.parts.setup.delays.agent_start_s))

    def hang_agent(self) -> Callable[[], None]:
        """The agent's process is stopped, not the guard nor what runs; returns how to let it go on."""
        agent = self.agent
        if agent is None:
            return lambda: None
        agent.gate.close()
        return agent.gate.open

    def take_message(self, what: Callable[..., None], *about: Any) -> None:
        """A datagram arrives for the agent."""
        if self.agent is not None and self.agent.begun:
            room = NETWORK_CARD_BUFFER if self.paused else SOCKET_BUFFER
            self.agent.gate.enter_if_room(room, what, self.agent.talk, *about)

    def guests_hear(self, sender: str, *said: Any) -> None:
        """A message for one of the virtual machines here arrives."""
        self.gate.enter(self.guests.hear, sender, *said)

    def tell(self, kind: Callable[..., ev.Event], **fields: Any) -> None:
        """Something here is noticed by the agent, if there is one."""
        if self.agent is not None:
            self.agent.gate.enter(self._feed, self.agent, kind, fields)

    @staticmethod
    def _feed(agent: Agent, kind: Callable[..., ev.Event], fields: dict[str, Any]) -> None:
        if agent.begun:
            agent.feed(kind, NODE, **fields)

    # Guard and datastore.

    def _guard_fires(self) -> None:
        if self.parts.guards_fire:
            if self.runtime.programs:
                self.parts.timeline.happened(self.parts.agenda.now, f"the guard of {self.name} fires")
            self.runtime.guard_fires()

    def kill_guard(self) -> None:
        """The guard's process dies; the agent notices, and starts another.

        Not with an agent that cannot: that both fail at once is beyond what is promised.
        """
        able = self.agent is not None and self.agent.gate.is_open
        if able and self.powered and not self.paused and self.guard.running:
            self.guard.running = False
            self.tell(ev.GuardLost)
            self.gate.after(self.parts.draw(GUARD_RESTART_S), self._restart_guard)

    def _restart_guard(self) -> None:
        if not self.guard.running:
            self.guard.restart()
            self.tell(ev.GuardReady)

    def datastore_answers(self) -> None:
        """The datastore hangs no longer: the write that hung happens."""
        if self.hung_write is not None and self.powered and not self.paused:
            heartbeat, table = self.hung_write
            self.parts.datastore.write(self.name, heartbeat, table)
        self.hung_write = None
