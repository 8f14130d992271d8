"""One run of a host's agent process: feeds its two machines, and performs their commands on the simulated world.

This is the simulator's twin of the agent's `perform` and `observe`. It holds what a process holds in memory: the two
states, the picture of the store, what it waits for (`talk` has what it knows of its peers). It dies with its process;
the journal, the guard, and what runs belong to the host. Everything comes in through its gate.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.mirror import Mirror
from outlive.cluster.mirror import changed as mirror_changed
from outlive.cluster.mirror import snapshot as mirror_snapshot
from outlive.cluster.transaction import KeyValue, TransactionResult

from .gate import Gate
from .guest import Guest
from .parts import LEADER, NODE, Parts
from .setup import CLUSTER_ID
from .store import Changes, Door
from .talk import Talk

if TYPE_CHECKING:
    from .host import SimHost

STORE_PATIENCE_S = 1.0


class CrashedHere(Exception):
    """The agent dies between two commands of one step."""


class Agent:
    """One run of the agent. crash_in: after so many commands more it dies; None: it does not."""

    def __init__(self, host: "SimHost", parts: Parts, run: str) -> None:
        self.host = host
        self.parts = parts
        self.run = run
        self.gate = Gate(parts.agenda)
        self.crash_in: int | None = None
        self.begun = False
        timing, machines = parts.setup.timing, parts.machines
        self.node = machines.node_start(host.member(), host.boot_id, CLUSTER_ID, timing)
        self.leader = machines.leader_start(host.name, timing)
        self.mirror = Mirror()
        self._timing = timing
        self._door = Door(
            parts.agenda, parts.random, parts.setup.delays, parts.store, parts.ways, host.name,
            lambda batch: self.gate.enter(self._moved, batch),
            lambda revision, values: self.gate.enter(self._reread, revision, values),
        )  # fmt: skip
        self._reading = False
        self._watching = False
        self._early: list[tuple[int, Changes]] = []
        self._queue: deque[tuple[str, ev.Event]] = deque()
        self._stepping = False
        self._called_off: set[int] = set()
        self.talk = Talk(host, parts, self.gate, self.feed)
        self._performers: dict[type, Callable[[str, Any], None]] = {
            do.GrantLease: self._grant_lease,
            do.KeepAlive: self._keep_alive,
            do.Transact: self._transact,
            do.SendHeartbeat: self.talk.send_heartbeat,
            do.WriteSlot: self.talk.write_slot,
            do.Probe: self.talk.probe,
            do.LearnTable: self.talk.learn_table,
            do.DeclareIsolated: lambda _, command: self.feed(ev.SelfIsolated, LEADER, isolated=command.isolated),
            do.SetDeadline: lambda _, command: host.guard.set_deadline(command.deadline_at),
            do.Prepare: lambda _, command: host.runtime.prepare(command.workload, command.generation),
            do.StartModule: lambda _, command: host.runtime.start(command.workload, command.generation, command.module),
            do.Announce: lambda _, command: None,
            do.TearDown: lambda _, command: host.runtime.tear_down(command.workload, command.generation),
            do.PrepareStandby: lambda _, command: host.guests.prepare(
                command.workload, command.generation, command.pairing, command.role
            ),
            do.DiscardStandby: lambda _, command: host.guests.discard(
                command.workload, command.generation, command.pairing
            ),
            do.TakeOver: lambda _, command: host.guests.take_over(
                command.workload, command.generation, command.pairing, command.to_generation
            ),
            do.Pair: lambda _, command: host.guests.guest(
                command.workload, command.generation, Guest.pair, command.pairing, command.standby
            ),
            do.GoAlone: lambda _, command: host.guests.guest(
                command.workload, command.generation, Guest.go_alone, command.pairing
            ),
            do.HandOver: lambda _, command: host.guests.guest(
                command.workload, command.generation, Guest.hand_over, command.pairing
            ),
            do.MigrateTo: lambda _, command: host.guests.guest(
                command.workload, command.generation, Guest.migrate, command.pairing, command.target
            ),
            do.TakeCheckpoint: self._take_checkpoint,
            do.KeepPackages: lambda _, command: host.depot.keep(command),
            do.SaveJournal: lambda _, command: host.save_journal(command.journal),
            do.WriteProtected: lambda _, command: None,
            do.Fence: self._fence,
            do.CallOffFence: lambda _, command: self._called_off.add(command.number),
            do.RecordEvent: lambda _, command: parts.timeline.recorded(parts.agenda.now, command.event),
        }

    # The life of the process.

    def start(self) -> None:
        """Read the store, or go on without it when it does not answer in time."""
        self._read_store()
        self.gate.after(STORE_PATIENCE_S, self._begin, self.mirror)

    def end(self) -> None:
        """The process is gone."""
        self.gate.shut()
        self._door.close()

    def store_ways_changed(self) -> None:
        """The store may be reachable again."""
        self._door.mended()

    def clock(self) -> float:
        """The host's boot clock now."""
        return self.host.clock.reads(self.parts.agenda.now)

    def _begin(self, mirror: Mirror) -> None:
        if self.begun:
            return
        self.begun = True
        journal = self.host.journal
        held = [each for each in journal.held if each.ended is None] if journal else []
        wanted = {each.workload.name: each.generation for each in held if each.role is do.Role.PRIMARY}
        followed = {
            each.workload.name: (each.generation, each.pairing) for each in held if each.role is not do.Role.PRIMARY
        }
        standbys = self.host.guests.adopt(followed)
        self.feed(
            ev.AgentStarted,
            run=self.run,
            journal=journal,
            alive=self.host.runtime.adopt(wanted | {name: followed[name][0] + 1 for name in standbys}) | standbys,
            guard_deadline_at=self.host.guard.deadline_at,
            mirror=mirror,
            fencing=self.parts.setup.methods,
        )
        if not self.host.guard.running:
            self.feed(ev.GuardLost, NODE)
        self.host.guests.retell()
        self.host.depot.retell()
        self._tick()
        self.talk.poll_slots()

    def _tick(self) -> None:
        self.talk.tell_repeats()
        self.feed(ev.Tick, load=0.0, sequence=self.host.sequence)
        jitter_s = self.parts.draw(self.parts.setup.delays.tick_jitter_s)
        tick_s = max(self._timing.tick_s, self.parts.slow_ticks.get(self.host.name, 0.0))
        self.gate.after(tick_s / self.host.clock.rate + jitter_s, self._tick)

    # The machines.

    def feed(self, kind: Callable[..., ev.Event], machine: str = "", /, **fields: Any) -> None:
        """Give an event to one machine, or to both; stamped with the present."""
        event = kind(at=self.clock(), **fields)
        if machine != LEADER:
            self._queue.append((NODE, event))
        if machine != NODE:
            self._queue.append((LEADER, event))
        if not self._stepping:
            self._work_off()

    def _work_off(self) -> None:
        self._stepping = True
        machines, queue, spy = self.parts.machines, self._queue, self.parts.spy
        try:
            while queue:
                machine, event = queue.popleft()
                if machine == NODE:
                    self.node, commands = machines.node_step(self.node, event)
                else:
                    self.leader, commands = machines.leader_step(self.leader, event)
                if spy is not None:
                    spy(self.parts.agenda.now, self.host.name, machine, event, commands)
                for command in commands:
                    if self.crash_in is not None:
                        self.crash_in -= 1
                        if self.crash_in < 0:
                            raise CrashedHere
                    self._performers[type(command)](machine, command)
        except CrashedHere:
            queue.clear()
            self.host.agent_crashed_midway()
        finally:
            self._stepping = False

    # The store.

    def _read_store(self) -> None:
        """Read everything and watch from there; tried again until it works."""
        if self._watching:
            return
        self._door.ask(self._look_at_store, self.gate.enter, self._on_read)
        self.gate.after(STORE_PATIENCE_S, self._read_store)

    def _look_at_store(self) -> tuple[int, list[KeyValue]]:
        if not self.gate.is_shut and not self._reading:
            self._reading = True
            self._door.open()
        return self.parts.store.revision, list(self.parts.store.data.values())

    def _on_read(self, seen: tuple[int, list[KeyValue]]) -> None:
        if self._watching:
            return
        self._watching = True
        self._reread(*seen)
        early, self._early = self._early, []
        self._moved(early)

    def _reread(self, revision: int, values: list[KeyValue]) -> None:
        self.mirror = mirror_snapshot(self.mirror, revision, values, self.clock())
        if self.begun:
            self.feed(ev.StoreMoved, mirror=self.mirror)
        else:
            self.talk.refuse_older_than(self.mirror)
            self._begin(self.mirror)

    def _moved(self, batch: list[tuple[int, Changes]]) -> None:
        if not self._watching:
            # Changes may overtake the slow answer to the first reading.
            self._early += batch
            return
        at, mirror = self.clock(), self.mirror
        keys: set[str] = set()
        for revision, changes in batch:
            mirror = mirror_changed(mirror, revision, changes, at)
            keys.update(change.key for change in changes)
        if mirror is not self.mirror:
            self.mirror = mirror
            self.feed(ev.StoreMoved, mirror=mirror, changed=frozenset(keys))

    def _fence(self, _: str, command: do.Fence) -> None:
        self.parts.fencing.begin(self, command)

    def is_called_off(self, command: do.Fence) -> bool:
        """Whether the host is to be left alone: so it was told, or the newest picture shows that the host came back."""
        claim = self.mirror.claimed(command.host)
        return command.number in self._called_off or (claim is not None and claim.incarnation > command.claim)

    def fence_ended(self, command: do.Fence, proven: bool, freed: tuple[str, ...], said: str) -> None:
        """A try has ended."""
        self.feed(ev.Fenced, LEADER, host=command.host, number=command.number, proven=proven, freed=freed, said=said)

    def _take_checkpoint(self, _: str, command: do.TakeCheckpoint) -> None:
        about = {"workload": command.workload, "generation": command.generation, "operation": command.operation}
        running = command.workload in self.host.guests.running
        self.gate.after(self.parts.draw((0.1, 1.5)), self._checkpoint_ended, about | {"whole": running})

    def _checkpoint_ended(self, fields: dict[str, Any]) -> None:
        self.feed(ev.CheckpointEnded, NODE, **fields)

    def _grant_lease(self, machine: str, command: do.GrantLease) -> None:
        asked = [machine]
        self._door.ask(lambda: self.parts.store.grant(command.ttl_s), self.gate.enter, self._granted, asked)
        self.gate.after(self._timing.transact_s, self._not_granted, asked)

    def _granted(self, asked: list[str], lease: int) -> None:
        if asked:
            self.feed(ev.LeaseGranted, asked.pop(), lease=lease)

    def _not_granted(self, asked: list[str]) -> None:
        if asked:
            self.feed(ev.LeaseRefused, asked.pop(), reason="the store did not answer")

    def _keep_alive(self, _: str, command: do.KeepAlive) -> None:
        self._door.ask(lambda: self.parts.store.keep_alive(command.lease), lambda result: None)

    def _transact(self, machine: str, command: do.Transact) -> None:
        asked = [(machine, command.purpose, self.clock())]
        origin = self.host.name
        self._door.ask(
            lambda: self.parts.store.transact(origin, command.transaction),
            self.gate.enter,
            self._answered,
            asked,
        )
        self.gate.after(self._timing.transact_s, self._unanswered, asked)

    def _answered(self, asked: list[tuple[str, do.Purpose, float]], result: TransactionResult) -> None:
        if asked:
            machine, purpose, sent_at = asked.pop()
            outcome = ev.Outcome.DONE if result.succeeded else ev.Outcome.REFUSED
            self.feed(
                ev.Transacted, machine,
                purpose=purpose, sent_at=sent_at, outcome=outcome, revision=result.revision,
            )  # fmt: skip

    def _unanswered(self, asked: list[tuple[str, do.Purpose, float]]) -> None:
        if asked:
            machine, purpose, sent_at = asked.pop()
            self.feed(
                ev.Transacted, machine,
                purpose=purpose, sent_at=sent_at, outcome=ev.Outcome.UNKNOWN, reason="no answer in time",
            )  # fmt: skip
