"""Fence devices: a power switch for each host, and ways for the switch to fail.

A device acts halfway through a try and answers at its end, whether or not whoever asked still lives. One that is slow
acts after its asker gave up; one that lies says that the host is off and does nothing. What a method of run locks does
is the datastore's. A host whose power was cut gets it back after a while.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from outlive.cluster import commands as do

from .datastore import Grip

if TYPE_CHECKING:
    from .agent import Agent

LIMIT_S = 4.0
SLOW_S = 8.0
POWER_BACK_S = (4.0, 9.0)


class Fencing:
    """fails, slow, lies: for (method, host), or (method, '') for all hosts, how many faults say so.

    proven: what devices said is off, as (host, claim); on_cut: called with (host, by) before power is cut.
    """

    def __init__(self) -> None:
        self.fails: dict[tuple[str, str], int] = {}
        self.slow: dict[tuple[str, str], int] = {}
        self.lies: dict[tuple[str, str], int] = {}
        self.proven: set[tuple[str, int]] = set()
        self.on_cut: Callable[[str, str], None] = lambda host, by: None

    def begin(self, agent: "Agent", command: do.Fence) -> None:
        """An agent tries a method."""
        parts = agent.parts
        method = next((each for each in parts.setup.methods if each.name == command.method), None)
        takes_s = parts.draw(parts.setup.delays.fence_s)
        if method is not None and method.run_locks:
            agent.gate.after(takes_s, self._take_locks, agent, command)
            return
        slow = self._is(self.slow, command)
        parts.agenda.after(SLOW_S if slow else takes_s / 2, self._act, agent, command, slow)
        agent.gate.after(LIMIT_S if slow else takes_s, self._answer, agent, command, slow)

    def _act(self, agent: "Agent", command: do.Fence, slow: bool) -> None:
        """The switch is thrown, unless it was called off before it was asked."""
        if (not slow and agent.is_called_off(command)) or self._is(self.fails, command) or self._is(self.lies, command):
            return
        host = agent.parts.hosts[command.host]
        if host.powered:
            self.on_cut(command.host, agent.host.name)
            agent.parts.timeline.happened(agent.parts.agenda.now, f"{command.method} cuts the power of {command.host}")
            host.crash()
            agent.parts.agenda.after(agent.parts.draw(POWER_BACK_S), host.boot)

    def _answer(self, agent: "Agent", command: do.Fence, slow: bool) -> None:
        if agent.is_called_off(command):
            return
        lies = self._is(self.lies, command)
        off = not agent.parts.hosts[command.host].powered
        proven = lies or (off and not slow and not self._is(self.fails, command))
        if proven:
            self.proven.add((command.host, command.claim))
        said = "is off" if proven else "no answer in time" if slow else "failed"
        agent.fence_ended(command, proven, (), said)

    def _take_locks(self, agent: "Agent", command: do.Fence) -> None:
        if agent.is_called_off(command):
            return
        freed = tuple(
            each.workload
            for each in command.workloads
            if each.datastore is not None
            and agent.parts.datastore.fence(agent.host.name, each.workload, each.generation) is Grip.TAKEN
        )
        agent.fence_ended(command, False, freed, f"took {len(freed)} of {len(command.workloads)} run locks")

    @staticmethod
    def _is(ills: dict[tuple[str, str], int], command: do.Fence) -> bool:
        return ills.get((command.method, command.host), 0) > 0 or ills.get((command.method, ""), 0) > 0
