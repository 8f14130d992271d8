"""What all hosts of a world share, and the machines that they run.

`Machines` is the place where a test may put a broken machine; everything else takes the real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from outlive.cluster import leader, node
from outlive.cluster.commands import Command
from outlive.cluster.events import Event
from outlive.cluster.host import Host
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.node_state import NodeState
from outlive.cluster.timing import Timing

from .agenda import Agenda
from .datastore import Datastore
from .fencing import Fencing
from .ledger import Ledger
from .network import Network
from .runtime import Ills
from .setup import Setup
from .store import Store, Ways
from .timeline import Timeline
from .voices import Voices

NODE = "node"
LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Machines:
    """The pure machines of `outlive.cluster`, as they are."""

    node_start: Callable[[Host, str, str, Timing], NodeState] = node.start
    node_step: Callable[[NodeState, Event], tuple[NodeState, tuple[Command, ...]]] = node.step
    leader_start: Callable[[str, Timing], LeaderState] = leader.start
    leader_step: Callable[[LeaderState, Event], tuple[LeaderState, tuple[Command, ...]]] = leader.step


Spy = Callable[[float, str, str, Event, tuple[Command, ...]], None]


@dataclass(slots=True)
class Parts:
    """One world's shared parts. hosts: by name; their type is in `host`, which needs this file.

    links: the ways of the streams between virtual machines; they can be cut alone, and pass only where `network` does.

    slow_ticks: so many seconds apart are the ticks of an agent that is not given its time.
    spy: called with (now, host, machine, event, commands) at every step. guards_fire: only a test turns it off.
    """

    setup: Setup
    random: Random
    agenda: Agenda
    network: Network
    links: Network
    store: Store
    ways: Ways
    datastore: Datastore
    ledger: Ledger
    voices: Voices
    timeline: Timeline
    machines: Machines
    ills: Ills = field(default_factory=Ills)
    fencing: Fencing = field(default_factory=Fencing)
    hosts: dict[str, Any] = field(default_factory=dict)
    slow_ticks: dict[str, float] = field(default_factory=dict)
    spy: Spy | None = None
    guards_fire: bool = True
    on_dropped: list[Callable[[str, str], None]] = field(default_factory=list)

    def dropped(self, host: str, package: str) -> None:
        """A host has removed its copy of a package, by id."""
        for told in self.on_dropped:
            told(host, package)

    def draw(self, between: tuple[float, float]) -> float:
        """A number of the range, drawn evenly."""
        return between[0] + (between[1] - between[0]) * self.random.random()
