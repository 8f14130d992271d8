"""What the communication managers of both sides of a pair have: a link that falls silent, and a way to the agent.

All goes through the host's gate and, since managers can be stalled alone, through one of their own. A message
says how far its sender is, so that one that was lost is made up for by the next, as in a stream.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outlive.cluster import events as ev
from outlive.cluster.workload import Workload

from .gate import Gate

if TYPE_CHECKING:
    from .guests import Guests

SILENCE_S = 0.3
PORT = 4000


class Manager:
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
