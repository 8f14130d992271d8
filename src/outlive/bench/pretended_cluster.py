"""A pretended cluster around the leader machine alone, in virtual time.

The store does every transaction at once; hosts that are not silent do at their next word as they are told, and else say
the same at every tick. What each step of the machine took of the processor is kept.
"""

import time
from collections.abc import Callable, Iterable

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster import leader
from outlive.cluster import records as rec
from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from outlive.cluster.host import Capacity, Host
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.repeats import Repeats
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Delete, Put
from outlive.cluster.workload import Module, Workload

from .pretended_store import PretendedStore
from .speakers import BOOT_ID, CLUSTER

SITES = ("east", "north", "west")
CPUS, NEEDS = 16.0, Capacity(0.5, 512)
RUN = "bench"
RENEWED_EACH = 20
"""At every which tick a host renews its claim."""


def needs_alike(number: int) -> Capacity:
    """Every workload needs the same."""
    return NEEDS


class PretendedCluster:
    """Hosts in three sites, the workloads that run there, and the leader, which is a host of the second site.

    steps: the event of each step so far, and what it took in milliseconds of the processor.  said: the kinds of all
    events that were recorded, and how long the longest text was.  began_on: where each workload was at first.
    """

    def __init__(
        self, hosts: int, workloads: int, cpus: float = CPUS, needs: Callable[[int], Capacity] = needs_alike
    ) -> None:
        """needs: what the workload of each number asks for; its host has room for it."""
        self.timing = Timing()
        self.at = 1000.0
        self.hosts = [f"{SITES[number % 3]}-{number:05}" for number in range(hosts)]
        self.me = next(name for name in self.hosts if not name.startswith(SITES[0]))
        self.store = PretendedStore()
        self.steps: list[tuple[str, float]] = []
        self.said: dict[str, int] = {}
        self.longest_text = 0
        self._sequence = 1
        self._cpus, self._needs = cpus, needs
        self.began_on = {f"w{number:05}": self.hosts[number % hosts] for number in range(workloads)}
        self._tables = {name: dict[str, int]() for name in self.hosts}
        for name, there in self.began_on.items():
            self._tables[there][name] = 1
        self._silent: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._fill()
        self.state: LeaderState = leader.start(self.me, self.timing)
        self._step(ev.AgentStarted(self.at, RUN, None, {}, 0.0, self.store.mirror))
        for name in self.hosts:
            self._speak(name)

    def _fill(self) -> None:
        for name in self.hosts:
            self.register(name, self._cpus)
        self.claims: dict[str, int] = {}
        for name in self.hosts:
            self.renew(name)
            self.claims[name] = self.store.revision
        self.store.write([Put(rec.LEADER, rec.encode(rec.LeaderRecord(self.me)), 1)], self.at)
        for number, (name, there) in enumerate(sorted(self.began_on.items())):
            needs = self._needs(number)
            file = Workload(name, modules=(Module("m", ("/bin/true",)),), resources=needs, priority=number % 5)
            placed = rec.PlacementRecord(name, 1, there, self.claims[there], version=1)
            report = rec.ReportRecord(name, 1, there, self.claims[there], rec.Stage.RUNNING)
            wanted = rec.WorkloadRecord(file, rec.Desired.RUNNING, version=1)
            records: list[tuple[str, rec.Record]] = [
                (rec.WORKLOADS, wanted), (rec.PLACEMENTS, placed), (rec.REPORTS, report),
            ]  # fmt: skip
            self.store.write([Put(room + name, rec.encode(each)) for room, each in records], self.at)

    def register(self, name: str, cpus: float) -> None:
        """One host says what it has."""
        host = Host(name, name.partition("-")[0], "127.0.0.1", 9, 0, Capacity(cpus, int(cpus * 2048)))
        self.store.write([Put(rec.HOSTS + name, rec.encode(host))], self.at)

    def take_up_rest(self, least: float) -> None:
        """Every host offers just what is used on it, and less than `least` processors more."""
        used = dict.fromkeys(self.hosts, least / 2)
        for number, (_, there) in enumerate(sorted(self.began_on.items())):
            used[there] += self._needs(number).cpus
        for name, cpus in used.items():
            self.register(name, cpus)

    def renew(self, name: str) -> None:
        """One host's claim is renewed."""
        claim = rec.ClaimRecord(name, BOOT_ID, RUN, 1, int(self.at * 10))
        self.store.write([Put(rec.CLAIMS + name, rec.encode(claim), 1)], self.at)

    def _speak(self, name: str) -> None:
        """A host's sign of life when it has something to say, and what its status bits stand for."""
        mine = sorted(self._tables[name].items())
        rows = ModuleTable(tuple(ModuleKey(each, generation, "m") for each, generation in mine))
        statuses = (ModuleStatus.RUNNING,) * len(mine)
        flags = Flags.STORE_REACHABLE | Flags.DATASTORE_REACHABLE
        beat = Heartbeat(CLUSTER, name, BOOT_ID, self._sequence, flags, 0.1, self.claims[name], rows.digest(), statuses)
        self._step(ev.HeartbeatReceived(self.at, beat))
        self._step(ev.TableLearned(self.at, name, rows))

    def lose(self, site: str) -> None:
        """A site falls silent; all hosts have just renewed their claims."""
        self._silent = frozenset(name for name in self.hosts if name.startswith(site))
        for name in self.hosts:
            self.renew(name)

    def end_claims(self) -> None:
        """The leases of the silent hosts end."""
        self.store.write([Delete(rec.CLAIMS + name) for name in sorted(self._silent)], self.at)

    def bring_back(self, names: Iterable[str]) -> None:
        """These hosts speak again, under new claims and with nothing of what they had."""
        self._silent -= (back := frozenset(names))
        for name in sorted(back):
            self.renew(name)
            self.claims[name] = self.store.revision
            self._tables[name] = {}
            self._speak(name)

    def pass_tick(self) -> None:
        """Let a tick's time pass: hosts are heard and do as they are told, the store is read, the leader decides."""
        self.at += self.timing.tick_s
        self._sequence += 1
        self._renew_some()
        self._heed()
        self._tell_store()
        heard = [name for name in self.hosts if name not in self._silent and name != self.me]
        places = {name: place for place, name in enumerate(heard)}
        repeats = Repeats(places, [self._sequence] * len(heard), [self.at] * len(heard))
        self._step(ev.HeartbeatsRepeated(self.at, repeats))
        self._step(ev.Tick(self.at))
        self._tell_store()

    def _renew_some(self) -> None:
        """The leader's claim is renewed at every tick, and the others' in turn."""
        self.renew(self.me)
        for name in self.hosts[self._sequence % RENEWED_EACH :: RENEWED_EACH]:
            if name not in self._silent and name != self.me:
                self.renew(name)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.at + seconds
        while self.at < until:
            self.pass_tick()

    def _heed(self) -> None:
        """Hosts begin what was placed on them, and say so."""
        changed = set()
        for name in sorted(self._told):
            entry = self.store.mirror.placements.get(name)
            placed = entry.record if entry is not None else None
            if placed is None or placed.host is None or placed.host in self._silent:
                continue
            if self._tables[placed.host].get(name) == placed.generation:
                continue
            self._tables[placed.host][name] = placed.generation
            changed.add(placed.host)
            report = rec.ReportRecord(name, placed.generation, placed.host, placed.claim, rec.Stage.RUNNING)
            self.store.write([Put(rec.REPORTS + name, rec.encode(report))], self.at)
        self._told.clear()
        for name in sorted(changed):
            self._speak(name)

    def _tell_store(self) -> None:
        if keys := self.store.moved():
            self._told |= {rec.name_in(key) for key in keys if key.startswith(rec.PLACEMENTS)}
            self._step(ev.StoreMoved(self.at, self.store.mirror, keys))

    def _step(self, event: ev.Event) -> None:
        began = time.thread_time()
        self.state, commands = leader.step(self.state, event)
        self.steps.append((type(event).__name__, (time.thread_time() - began) * 1000))
        for command in commands:
            if isinstance(command, do.Transact):
                done = self.store.transact(command.transaction, self.at)
                outcome = ev.Outcome.DONE if done else ev.Outcome.REFUSED
                self._step(ev.Transacted(self.at, command.purpose, self.at, outcome, self.store.revision))
            elif isinstance(command, do.RecordEvent):
                self.said[command.event.kind] = self.said.get(command.event.kind, 0) + 1
                self.longest_text = max(self.longest_text, len(command.event.text))

    def at_rest(self) -> tuple[int, int]:
        """How many workloads are elsewhere than at first, and how many have no host that can act."""
        moved = left = 0
        for name, host in self.began_on.items():
            now = self.store.mirror.placements[name].record.host
            moved += now is not None and now != host
            left += now is None or now in self._silent
        return moved, left
