"""What an agent says to its peers and hears from them, by network and by datastore.

Heartbeats, slots, probes and module tables; replays are dropped here, as the wire does. It belongs to one run of an
agent and dies with it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.heartbeat import Heartbeat, ModuleTable
from outlive.cluster.mirror import Mirror
from outlive.cluster.repeats import Repeats

from .datastore import Access
from .gate import Gate
from .parts import LEADER, NODE, Parts

if TYPE_CHECKING:
    from .host import SimHost

TABLES_KEPT = 8
DATASTORE_PATIENCE_S = 1.0
TABLE_READ_AFTER_S = 0.05


class Talk:
    """slot_seen_at: when each host's slot was last seen to change, on this host's clock. feed: gives events."""

    def __init__(self, host: "SimHost", parts: Parts, gate: Gate, feed: Callable[..., None]) -> None:
        self._host = host
        self._parts = parts
        self._gate = gate
        self._feed = feed
        self._newest: dict[str, int] = {}
        self._said: dict[str, Heartbeat] = {}
        self._repeats: dict[str, tuple[int, float]] = {}
        self._repeated = False
        self._slots: dict[str, int] = {}
        self._tables: dict[bytes, ModuleTable] = {}
        self._datastore_reachable: bool | None = None
        self.slot_seen_at: dict[str, float] = {}

    def refuse_older_than(self, mirror: Mirror) -> None:
        """Heartbeats older than the claims say are replays."""
        for name, seen in sorted(mirror.claims.items()):
            self._newest[name] = seen.record.heartbeats

    def send_heartbeat(self, _: str, command: do.SendHeartbeat) -> None:
        """To each of them, under a sequence of its own."""
        heartbeat = replace(command.heartbeat, sequence=self._host.next_sequence())
        for name in command.to:
            self._send(name, Talk.take_heartbeat, heartbeat)

    def _send(self, to: str, what: Callable[..., None], *about: Any) -> None:
        self._parts.network.send(self._host.name, to, self._parts.hosts[to].take_message, what, *about)

    def take_heartbeat(self, heartbeat: Heartbeat) -> None:
        """A heartbeat came by network; one that is not newer than the last is a replay."""
        if heartbeat.sequence <= self._newest.get(heartbeat.host, 0):
            return
        self._newest[heartbeat.host] = heartbeat.sequence
        if heartbeat.host == self._host.name:
            self._feed(ev.HeartbeatReceived, heartbeat=heartbeat)
            return
        said = replace(heartbeat, sequence=0, load=0.0)
        self._repeats[heartbeat.host] = (heartbeat.sequence, self._host.clock.reads(self._gate.now))
        if self._said.get(heartbeat.host) == said:
            self._repeated = True
        else:
            self._said[heartbeat.host] = said
            self._feed(ev.HeartbeatReceived, heartbeat=heartbeat)

    def tell_repeats(self) -> None:
        """What peers merely repeated since the last tick is told at once."""
        if self._repeated:
            self._repeated = False
            names = sorted(self._repeats)
            sequences, heard_at = zip(*(self._repeats[name] for name in names), strict=True)
            places = {name: place for place, name in enumerate(names)}
            self._feed(ev.HeartbeatsRepeated, repeats=Repeats(places, sequences, heard_at))

    def write_slot(self, _: str, command: do.WriteSlot) -> None:
        """Now, when the hang ends, or not at all."""
        heartbeat = replace(command.heartbeat, sequence=self._host.next_sequence())
        self._tables[heartbeat.table] = command.table
        if len(self._tables) > TABLES_KEPT:
            del self._tables[next(iter(self._tables))]
        match self._parts.datastore.access(self._host.name):
            case Access.PROMPT:
                delay_s = self._parts.draw(self._parts.setup.delays.slot_write_s)
                self._host.gate.after(delay_s, self._parts.datastore.write, self._host.name, heartbeat, command.table)
                self._gate.after(delay_s, self._datastore, True)
            case Access.HUNG:
                self._host.hung_write = (heartbeat, command.table)
                self._gate.after(DATASTORE_PATIENCE_S, self._datastore, False)
            case Access.AWAY:
                self._gate.after(0.01, self._datastore, False)

    def _datastore(self, reachable: bool) -> None:
        if reachable is not self._datastore_reachable:
            self._datastore_reachable = reachable
            self._feed(ev.DatastoreChanged, NODE, reachable=reachable)

    def poll_slots(self) -> None:
        """Look at the others' slots, again and again; the first sight of one is no change."""
        if self._parts.datastore.access(self._host.name) is Access.PROMPT:
            for slot in self._parts.datastore.read(self._host.name):
                name, sequence = slot.heartbeat.host, slot.heartbeat.sequence
                known = self._slots.get(name)
                if known is None or sequence > known:
                    self._slots[name] = sequence
                    if known is not None:
                        self.slot_seen_at[name] = self._host.clock.reads(self._gate.now)
                        self._feed(ev.SlotChanged, LEADER, heartbeat=slot.heartbeat)
        self._gate.after(self._parts.draw(self._parts.setup.delays.slot_poll_s), self.poll_slots)

    def probe(self, _: str, command: do.Probe) -> None:
        """Directly, or through a peer."""
        me = self._host.name
        if command.via is None:
            self._send(command.target, Talk.take_probe, me, me)
        else:
            self._send(command.via, Talk.pass_probe_on, me, command.target)

    def pass_probe_on(self, sender: str, target: str) -> None:
        """A peer asks this host to probe a third."""
        self._feed(ev.PeerHeard, NODE, host=sender)
        self._send(target, Talk.take_probe, self._host.name, sender)

    def take_probe(self, sender: str, asker: str) -> None:
        """A probe: answer it. asker: for whom `sender` sent it."""
        self._feed(ev.PeerHeard, NODE, host=sender)
        self._send(sender, Talk.take_probe_answer, self._host.name, asker)

    def take_probe_answer(self, target: str, asker: str) -> None:
        """A probed host answered this host, which had asked for itself or for another."""
        if asker == self._host.name:
            self._feed(ev.ProbeAnswered, target=target, by=self._host.name)
        else:
            self._feed(ev.PeerHeard, NODE, host=target)
            self._send(asker, Talk.take_probe_report, target, self._host.name)

    def take_probe_report(self, target: str, by: str) -> None:
        """A peer tells that the third host answered it."""
        self._feed(ev.PeerHeard, NODE, host=by)
        self._feed(ev.ProbeAnswered, LEADER, target=target, by=by)

    def learn_table(self, _: str, command: do.LearnTable) -> None:
        """Ask the host itself, and look beside its slot."""
        self._send(command.host, Talk.tell_table, self._host.name, command.digest)
        self._gate.after(TABLE_READ_AFTER_S, self._read_table, command.host, command.digest)

    def tell_table(self, asker: str, digest: bytes) -> None:
        """A peer asks for a module table."""
        table = self._tables.get(digest)
        if table is not None:
            self._send(asker, Talk.take_table, self._host.name, table)

    def take_table(self, host: str, table: ModuleTable) -> None:
        """A module table became known."""
        self._feed(ev.TableLearned, LEADER, host=host, table=table)

    def _read_table(self, host: str, digest: bytes) -> None:
        if self._parts.datastore.access(self._host.name) is Access.PROMPT:
            table = self._parts.datastore.table_of(host, digest)
            if table is not None:
                self.take_table(host, table)
