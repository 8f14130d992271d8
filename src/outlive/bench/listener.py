"""A leader that listens to many hosts: socket, receiver, talk and both machines as the agent has them.

What they ask of store, disk and workloads is answered by stand-ins at once. All hosts but the leader are pretended,
see `speakers`; their claims stand until they are taken away.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from outlive.agent.neighbours import Identity, Neighbours
from outlive.agent.observe import Ticker
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster import leader, node
from outlive.cluster import records as rec
from outlive.cluster.host import Capacity, Host
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, Put
from outlive.store.boot_clock import boot_time_s
from outlive.wire.endpoint import Address, Endpoint, open_endpoint
from outlive.wire.seal import Seal
from outlive.wire.sequence import Sequences

from .pretended_store import PretendedStore
from .speakers import BOOT_ID, CLUSTER, host_name, table

ME = "leader"
SITE = "here"
NOBODY = 9


def member(name: str) -> Host:
    """A registered host, which can be told something but does not listen."""
    return Host(name, SITE, "127.0.0.1", NOBODY, 0, Capacity(8, 16384))


class Listener:
    """One leader of so many hosts. verdicts: each that was given, with when: (host, verdict, seconds of boot time)."""

    def __init__(self, hosts: int, modules: int, key: bytes, folder: Path, timing: Timing) -> None:
        self.timing = timing
        self.store = PretendedStore()
        self.verdicts: list[tuple[str, str, float]] = []
        self.hosts = hosts
        self.names = [host_name(number) for number in range(hosts)]
        self._table = table(modules)
        self._queue: deque[tuple[bool, bool, ev.Event]] = deque()
        self._lease = self._seen = 0
        self._run = "bench"
        identity, sequences = Identity(CLUSTER, ME, BOOT_ID), Sequences(folder / "sequence", 1)
        self.neighbours = Neighbours(identity, Seal(CLUSTER, key), sequences, self._tell, boot_time_s)
        self._ticker = Ticker(timing.tick_s, boot_time_s, lambda: self.neighbours.sequence)
        self._node = node.start(member(ME), BOOT_ID, CLUSTER, timing)
        self.leader = leader.start(ME, timing)

    @contextmanager
    def listening(self) -> Iterator[Endpoint]:
        """Listen until the block ends."""
        loop = asyncio.get_running_loop()
        talk, anywhere = self.neighbours, Address("127.0.0.1", 0)
        with open_endpoint(anywhere, talk.receiver, talk.heard, boot_time_s) as endpoint:
            talk.open_with(endpoint)
            ticking = loop.create_task(self._ticker.run(self._tick))
            try:
                yield endpoint
            finally:
                ticking.cancel()

    def join(self) -> None:
        """Have all hosts registered, and become their leader."""
        at = boot_time_s()
        puts = [Put(rec.HOSTS + name, rec.encode(member(name))) for name in self.names]
        self.store.write([Put(rec.CLUSTER, rec.encode(rec.ClusterRecord(CLUSTER, timing=self.timing))), *puts], at)
        self.renew(range(len(self.names)))
        self.neighbours.know(self.store.mirror, at)
        self._put(True, True, ev.AgentStarted(at, self._run, None, {}, 0.0, self.store.mirror))

    def renew(self, numbers: range) -> None:
        """The hosts of these numbers renew their claims."""
        claims = [rec.ClaimRecord(self.names[number], BOOT_ID, "run", 1, 1) for number in numbers]
        self.store.write([Put(rec.CLAIMS + claim.host, rec.encode(claim), 1) for claim in claims], boot_time_s())

    def end_claims(self, numbers: range) -> None:
        """The leases of these hosts end."""
        self.store.write([Delete(rec.CLAIMS + self.names[number]) for number in numbers], boot_time_s())

    # The agent's own order of things: events in, one step at a time, commands begun.

    def _tell(self, event: ev.Event) -> None:
        self._put(True, True, event)

    def _tick(self, tick: ev.Event) -> None:
        if keys := self.store.moved():
            self._seen = self.store.revision
            self.neighbours.know(self.store.mirror, tick.at, keys)
            self._put(True, True, ev.StoreMoved(tick.at, self.store.mirror, keys))
        if (repeats := self.neighbours.repeats()) is not None:
            self._put(True, True, ev.HeartbeatsRepeated(tick.at, repeats))
        self._put(True, True, tick)
        self._ticker.dealt_with()

    def _put(self, to_node: bool, to_leader: bool, event: ev.Event) -> None:
        idle = not self._queue
        self._queue.append((to_node, to_leader, event))
        while idle and self._queue:
            self._step(*self._queue[0])
            self._queue.popleft()

    def _step(self, to_node: bool, to_leader: bool, event: ev.Event) -> None:
        if to_node:
            self._node, commands = node.step(self._node, event)
            for command in commands:
                self._perform(command, lambda answer: self._put(True, False, answer))
        if to_leader:
            self.leader, commands = leader.step(self.leader, event)
            for command in commands:
                self._perform(command, lambda answer: self._put(False, True, answer))

    def _perform(self, command: do.Command, answer: Callable[[ev.Event], None]) -> None:
        now = boot_time_s()
        match command:
            case do.SendHeartbeat(heartbeat=heartbeat, to=to):
                self.neighbours.send_heartbeat(heartbeat, to)
            case do.Probe(target=target, via=via):
                self.neighbours.probe(target, via)
            case do.LearnTable(host=host):
                answer(ev.TableLearned(now, host, self._table))
            case do.GrantLease():
                self._lease += 1
                answer(ev.LeaseGranted(now, self._lease))
            case do.DeclareIsolated(isolated=isolated):
                answer(ev.SelfIsolated(now, isolated))
            case do.Transact(purpose=purpose, transaction=transaction):
                done = self.store.transact(transaction, now)
                outcome = ev.Outcome.DONE if done else ev.Outcome.REFUSED
                answer(ev.Transacted(now, purpose, now, outcome, self.store.revision))
            case do.RecordEvent(event=event) if event.kind.startswith("verdict."):
                self.verdicts.append((event.host, event.kind.removeprefix("verdict."), now))
            case _:
                pass

    @property
    def is_up_to_date(self) -> bool:
        """Whether it has taken in all that happened in the store."""
        return self._seen == self.store.revision

    @property
    def is_settled(self) -> bool:
        """Whether this host leads and holds every other to be alive, and the store says so."""
        verdicts = self.store.mirror.verdicts
        return len(verdicts) > len(self.names) and all(
            each.record.verdict is rec.Verdict.ALIVE for each in verdicts.values()
        )


@contextmanager
def listener(hosts: int, modules: int, key: bytes) -> Iterator[Listener]:
    """A leader with a folder of its own, that is gone afterwards."""
    with TemporaryDirectory(prefix="outlive-bench-") as folder:
        yield Listener(hosts, modules, key, Path(folder), Timing())
