"""The bench of decisions: a third of the hosts is lost at once, and the leader places what ran there, in virtual time.

The leader machine alone, with a stand-in for the store that does every transaction at once, and hosts that say the same
five times a second until their site is lost. What is measured is the processor's time of its steps, at three sizes.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

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
from outlive.errors import Failed

from .pretended_store import PretendedStore
from .speakers import BOOT_ID, CLUSTER

SITES = ("east", "north", "west")
LOST = SITES[0]
CPUS, NEEDS = 16.0, Capacity(0.5, 512)
BEFORE_S, AT_MOST_S = 4.0, 120.0
RUN = "bench"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Times of the processor in milliseconds.

    moved: workloads placed anew; left: those without a place at the end.  each_ms: for one of them, of all steps from
    the loss on.  look_ms: a tick that looks at everything, while nothing is the matter; worst_ms: the longest step
    after the loss.  placed_s: virtual seconds from the loss until all were placed.
    """

    hosts: int
    workloads: int
    moved: int
    left: int
    each_ms: float
    look_ms: float
    worst_ms: float
    placed_s: float


class _World:
    """Hosts, their workloads, and the leader, which is a host that is not lost."""

    def __init__(self, hosts: int, workloads: int) -> None:
        self.timing = Timing()
        self.at = 1000.0
        self.hosts = [f"{SITES[number % 3]}-{number:05}" for number in range(hosts)]
        self.me = next(name for name in self.hosts if not name.startswith(LOST))
        self.store = PretendedStore()
        self.steps: list[tuple[str, float]] = []
        self._sequence = 1
        self._rests = {f"w{number:05}": self.hosts[number % hosts] for number in range(workloads)}
        self._silent: frozenset[str] = frozenset()
        self._fill()
        self._state: LeaderState = leader.start(self.me, self.timing)
        self._step(ev.AgentStarted(self.at, RUN, None, {}, 0.0, self.store.mirror))
        self._greet()

    def _fill(self) -> None:
        memory_mib = int(CPUS * 2048)
        for name in self.hosts:
            host = Host(name, name.partition("-")[0], "127.0.0.1", 9, 0, Capacity(CPUS, memory_mib))
            self.store.write([Put(rec.HOSTS + name, rec.encode(host))], self.at)
        self.claims: dict[str, int] = {}
        for name in self.hosts:
            self.renew(name)
            self.claims[name] = self.store.revision
        self.store.write([Put(rec.LEADER, rec.encode(rec.LeaderRecord(self.me)), 1)], self.at)
        for number, (name, there) in enumerate(sorted(self._rests.items())):
            file = Workload(name, modules=(Module("m", ("/bin/true",)),), resources=NEEDS, priority=number % 5)
            placed = rec.PlacementRecord(name, 1, there, self.claims[there], version=1)
            report = rec.ReportRecord(name, 1, there, self.claims[there], rec.Stage.RUNNING)
            wanted = rec.WorkloadRecord(file, rec.Desired.RUNNING, version=1)
            records: list[tuple[str, rec.Record]] = [
                (rec.WORKLOADS, wanted), (rec.PLACEMENTS, placed), (rec.REPORTS, report),
            ]  # fmt: skip
            self.store.write([Put(room + name, rec.encode(each)) for room, each in records], self.at)

    def renew(self, name: str) -> None:
        """One host's claim is renewed."""
        claim = rec.ClaimRecord(name, BOOT_ID, RUN, 1, int(self.at * 10))
        self.store.write([Put(rec.CLAIMS + name, rec.encode(claim), 1)], self.at)

    def _greet(self) -> None:
        """Each host's first sign of life, and what its status bits stand for."""
        for name in self.hosts:
            mine = sorted(each for each, host in self._rests.items() if host == name)
            rows = ModuleTable(tuple(ModuleKey(each, 1, "m") for each in mine))
            statuses = (ModuleStatus.RUNNING,) * len(mine)
            flags = Flags.STORE_REACHABLE | Flags.DATASTORE_REACHABLE
            beat = Heartbeat(CLUSTER, name, BOOT_ID, 1, flags, 0.1, self.claims[name], rows.digest(), statuses)
            self._step(ev.HeartbeatReceived(self.at, beat))
            self._step(ev.TableLearned(self.at, name, rows))

    def lose(self) -> None:
        """A site falls silent; all others have just renewed their claims."""
        self._silent = frozenset(name for name in self.hosts if name.startswith(LOST))
        for name in self.hosts:
            self.renew(name)

    def end_claims(self) -> None:
        """The leases of the silent hosts end."""
        self.store.write([Delete(rec.CLAIMS + name) for name in sorted(self._silent)], self.at)

    def pass_tick(self) -> None:
        """Let a tick's time pass: hosts are heard, the store is read, the leader decides."""
        self.at += self.timing.tick_s
        self._sequence += 1
        self.renew(self.me)
        self._tell_store()
        heard = [name for name in self.hosts if name not in self._silent and name != self.me]
        places = {name: place for place, name in enumerate(heard)}
        repeats = Repeats(places, [self._sequence] * len(heard), [self.at] * len(heard))
        self._step(ev.HeartbeatsRepeated(self.at, repeats))
        self._step(ev.Tick(self.at))
        self._tell_store()

    def _tell_store(self) -> None:
        if keys := self.store.moved():
            self._step(ev.StoreMoved(self.at, self.store.mirror, keys))

    def _step(self, event: ev.Event) -> None:
        began = time.thread_time()
        self._state, commands = leader.step(self._state, event)
        self.steps.append((type(event).__name__, (time.thread_time() - began) * 1000))
        for command in commands:
            if isinstance(command, do.Transact):
                done = self.store.transact(command.transaction, self.at)
                outcome = ev.Outcome.DONE if done else ev.Outcome.REFUSED
                self._step(ev.Transacted(self.at, command.purpose, self.at, outcome, self.store.revision))

    def at_rest(self) -> tuple[int, int]:
        """How many workloads are elsewhere than at first, and how many have no host that can act."""
        moved = left = 0
        for name, host in self._rests.items():
            now = self.store.mirror.placements[name].record.host
            moved += now is not None and now != host
            left += now is None or now in self._silent
        return moved, left


def sizes(hosts: int, workloads: int) -> tuple[tuple[int, int], ...]:
    """The sizes that are compared, the largest last."""
    return tuple(sorted({(max(3, hosts * part // 10), max(1, workloads * part // 10)) for part in (1, 3, 10)}))


def play(hosts: int, workloads: int, progress: Progress) -> tuple[Row, ...]:
    """Measure all sizes. Raises Failed when workloads keep waiting that have a place."""
    rows = []
    for size in sizes(hosts, workloads):
        progress(f"{size[0]} hosts with {size[1]} workloads")
        rows.append(_measure(*size))
    return tuple(rows)


def _measure(hosts: int, workloads: int) -> Row:
    world = _World(hosts, workloads)
    until = world.at + BEFORE_S
    while world.at < until:
        world.pass_tick()
    ticks = [spent for kind, spent in world.steps if kind == "Tick"]
    # One tick in ten looks at everything; the first ones have verdicts to write.
    look_ms = median(sorted(ticks[len(ticks) // 2 :])[-2:])
    world.lose()
    world.steps.clear()
    lost_at, ended = world.at, False
    while world.at_rest()[1]:
        if world.at - lost_at > AT_MOST_S:
            break
        world.pass_tick()
        if not ended and world.at - lost_at >= world.timing.claim_ttl_s:
            world.end_claims()
            ended = True
    moved, left = world.at_rest()
    if not moved:
        raise Failed(f"Nothing was placed within {AT_MOST_S:g} virtual seconds.")
    spent = [each for _, each in world.steps]
    return Row(hosts, workloads, moved, left, sum(spent) / moved, look_ms, max(spent), world.at - lost_at)


def told(rows: tuple[Row, ...]) -> dict[str, Any]:
    """The bench as one object."""

    def growth(row: Row) -> float | None:
        return round(row.each_ms / rows[0].each_ms, 2) if rows[0].each_ms else None

    listed = [{**{name: round(value, 3) for name, value in asdict(row).items()}, "growth": growth(row)} for row in rows]
    return {"rows": listed, "all_placed": not any(row.left for row in rows)}
