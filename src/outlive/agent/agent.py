"""The agent: one queue of events in, one step of the two machines at a time, their commands performed.

This is the only place where the machines meet asyncio. Everything else of the agent watches and tells, or is told and
performs, in tasks of one group; nothing here waits for a disk, a peer or the store. A task that breaks ends the
agent, which is started again at once and adopts what runs: it never limps on.
"""

import asyncio
import contextlib
import gc
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum, auto
from functools import partial

import structlog

from outlive.api.figures import Figures
from outlive.cluster import events as ev
from outlive.cluster import leader, node
from outlive.cluster import records as rec
from outlive.cluster.commands import Command, Journal
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.mirror import Mirror
from outlive.cluster.timing import Timing
from outlive.errors import Failed, OutliveError
from outlive.fence.guard import Status
from outlive.network.link_watch import LinkWatch
from outlive.network.links import LinkState
from outlive.store.base import HistoryKept, StoreDenied, StoreError
from outlive.store.boot_clock import boot_time_s
from outlive.wire.endpoint import Address, open_endpoint

from . import forgetting
from . import parts as assembly
from .answering import answer
from .durable import JournalKeeper
from .enclosing import Enclosures
from .ending import AgentEnded, Ending
from .fencing import Fencers
from .ground import Ground
from .history import History
from .holdings import Holdings
from .machine_view import LocalMachines
from .neighbours import Neighbours
from .observe import Ticker
from .packages import Packages
from .parts import Parts
from .peers import Others
from .perform import Means, Performer
from .record import prune
from .storage import Storage
from .view import AgentView, Machines

EVENTS_IN_A_ROW = 32
KEPT_IN_ORDER_S = 5.0
STOPPED_WITHIN_S = 120.0
REVOKED_WITHIN_S = 3.0
COMPACTED_WITHIN_S = 10.0
READ_WITHIN_S = 5.0

log = structlog.get_logger()


class Machine(Enum):
    """Whom an event is for."""

    BOTH = auto()
    NODE = auto()
    LEADER = auto()


class ClusterChanged(Failed):
    """The cluster's intervals are others than this agent runs with; the next run takes them up."""

    id = "agent.cluster-changed"


class Agent:
    """One run of the agent, from its parts on. `run` is its whole life."""

    def __init__(self, parts: Parts, timing: Timing, tasks: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._timing = timing
        self._tasks = tasks
        self._run = secrets.token_hex(4)
        self._queue: deque[tuple[Machine, ev.Event]] = deque()
        self._some = asyncio.Event()
        host = parts.host
        parts.guard.late_s = timing.guard_late_s
        self.node = node.start(host, parts.identity.boot_id, parts.identity.cluster, timing)
        self.leader = leader.start(host.name, timing)
        self._neighbours = Neighbours(parts.identity, parts.seal, parts.sequences, self.tell, boot_time_s)
        self._storage = Storage(parts.datastores, timing.slot_s, boot_time_s, self._neighbours.numbered)
        self._journal = JournalKeeper(parts.config.data_folder)
        self._others = Others(parts.config.tls, lambda: parts.watcher.mirror)
        self._packages = Packages(
            parts.config.data_folder,
            host.name,
            self._others.ask,
            self.tell,
            lambda: parts.watcher.mirror,
            partial(parts.store.get, timeout_s=READ_WITHIN_S),
            boot_time_s,
        )
        ground = Ground(
            host.name, parts.premises, parts.floor, parts.guard, parts.datastores, parts.addresses, boot_time_s, tasks,
            lambda: parts.watcher.mirror, self._packages,
        )  # fmt: skip
        self._holdings = Holdings(ground, self._journal, self.tell)
        self._ticker = Ticker(timing.tick_s, boot_time_s, lambda: self._neighbours.sequence)
        self._fencers = Fencers(
            host.name, parts.config.fencing.methods, parts.datastores, boot_time_s, tasks, lambda: parts.watcher.mirror,
            Enclosures(parts.premises.tree.root),
        )  # fmt: skip
        means = Means(
            parts.store,
            self._neighbours,
            self._storage,
            self._holdings,
            self._journal,
            parts.recorder,
            self._fencers,
            self._packages,
        )
        self._performer = Performer(host.name, timing, means, boot_time_s, tasks, lambda: parts.watcher.mirror)
        self._history_kept_told = False
        self._name_taken_told = False

    # Events in, commands out.

    def tell(self, event: ev.Event) -> None:
        """Put an event in the queue, for the machines that it concerns."""
        whom = Machine.BOTH
        me = self._parts.host.name
        match event:
            case ev.ProbeAnswered(by=by) if by != me:
                whom = Machine.LEADER
            case ev.HeartbeatReceived(heartbeat=heartbeat) if heartbeat.host == me:
                whom = Machine.LEADER  # which hears of its own host as of any other
            case _:
                pass
        self._put(whom, event)

    def _tick(self, tick: ev.Event) -> None:
        """Time passed: what peers merely repeated meanwhile is told first, all at once."""
        if (repeats := self._neighbours.repeats()) is not None:
            self._put(Machine.BOTH, ev.HeartbeatsRepeated(tick.at, repeats))
        self._put(Machine.BOTH, tick)

    def _put(self, whom: Machine, event: ev.Event) -> None:
        self._queue.append((whom, event))
        self._some.set()

    def _answer_node(self, event: ev.Event) -> None:
        """An event that a command of the node led to; isolation is what it tells the leader."""
        self._put(Machine.LEADER if isinstance(event, ev.SelfIsolated) else Machine.NODE, event)

    def _answer_leader(self, event: ev.Event) -> None:
        self._put(Machine.LEADER, event)

    async def _decide(self) -> None:
        """Step the machines for as long as the agent runs."""
        in_a_row = 0
        while True:
            if not self._queue or in_a_row == EVENTS_IN_A_ROW:
                in_a_row = 0
                if self._queue:
                    await asyncio.sleep(0)
                else:
                    self._some.clear()
                    await self._some.wait()
            in_a_row += 1
            self.step(*self._queue.popleft())

    def step(self, whom: Machine, event: ev.Event) -> None:
        """One event, dealt with by one or both machines, whose commands are begun."""
        steps = self._parts.figures.steps
        if whom is not Machine.LEADER:
            begun = time.perf_counter()
            self.node, commands = node.step(self.node, event)
            steps["node"].note(time.perf_counter() - begun)
            self._begin(commands, self._answer_node)
        if whom is not Machine.NODE:
            begun = time.perf_counter()
            self.leader, commands = leader.step(self.leader, event)
            steps["leader"].note(time.perf_counter() - begun)
            self._begin(commands, self._answer_leader)
        if isinstance(event, ev.Tick):
            self._ticker.dealt_with()

    def _begin(self, commands: tuple[Command, ...], answer_to: Callable[[ev.Event], None]) -> None:
        for command in commands:
            self._performer.begin(command, answer_to)

    # The life of the process.

    async def run(self, journal: Journal | None, status: Status | None, ending: Ending) -> None:
        """Adopt what runs, then serve until told to end. Never returns: raises AgentEnded, or what broke."""
        parts = self._parts
        self._know(parts.watcher.mirror)
        address = Address(parts.config.address, parts.config.port)
        with open_endpoint(address, self._neighbours.receiver, self._neighbours.heard, boot_time_s) as endpoint:
            self._neighbours.open_with(endpoint)
            alive = await self._holdings.adopt(journal, status or Status(boot_time_s(), 0.0, ()))
            with contextlib.suppress(OutliveError):
                await parts.guard.whole()
            self._put(Machine.BOTH, self._started(journal, alive, status))
            self._holdings.watch_adopted()
            await self._keep_taps()
            if status is None:
                self._put(Machine.NODE, ev.GuardLost(boot_time_s()))
            view = self._view()
            for life in (
                self._decide(),
                self._ticker.run(self._tick),
                parts.watcher.run(self._store_moved),
                parts.guard.run(self.tell),
                parts.recorder.run(parts.store),
                parts.sequences.keep_reserved(),
                self._journal.run(),
                self._storage.run(self.tell),
                self._holdings.keep_addresses(),
                parts.wiring.run(),
                self._packages.run(),
                self._packages.verifying.run(),
                self._watch_links(),
                self._keep_in_order(),
                answer(parts.config, view),
            ):
                self._tasks.create_task(life)
            gc.collect()
            gc.freeze()
            await self._until_ended(ending)

    def _started(
        self, journal: Journal | None, alive: dict[str, dict[str, ModuleStatus]], status: Status | None
    ) -> ev.AgentStarted:
        now = boot_time_s()
        deadline_at = status.deadline_at if status is not None else 0.0
        mirror, methods = self._parts.watcher.mirror, self._fencers.told()
        return ev.AgentStarted(now, self._run, journal, alive, deadline_at, mirror, methods)

    async def _until_ended(self, ending: Ending) -> None:
        await ending.asked.wait()
        if ending.workloads_too:
            await self._stop_workloads(ending)
        held = self._holdings.in_force
        if held:
            left_s = max(0.0, self._parts.guard.deadline_at - boot_time_s())
            names = ", ".join(sorted(holding.name for holding in held))
            log.warning("agent.left_workloads", workloads=names, guard_ends_them_in_s=round(left_s, 1))
            print(
                f"The agent ends; {names} goes on. The guard ends it in {left_s:.1f} s, when this host's claim "
                "is over, unless an agent is back by then.",
                file=sys.stderr,
            )
        self._holdings.leave()
        raise AgentEnded

    async def _stop_workloads(self, ending: Ending) -> None:
        """Stop everything in order and give the claim back, so that others need not wait for its end."""
        lease = self.node.session.lease
        log.info("agent.leaving", workloads=len(self._holdings.in_force))
        self._put(Machine.NODE, ev.GuardLost(boot_time_s(), "this host is being shut down"))
        try:
            async with asyncio.timeout(STOPPED_WITHIN_S):
                # The event above is dealt with first; then the holdings are what tells.
                while self._queue or not node.holds_nothing(self.node):
                    if ending.at_once:
                        return
                    await asyncio.sleep(0.05)
            if lease:
                await self._parts.store.revoke(lease, timeout_s=REVOKED_WITHIN_S)
        except (TimeoutError, StoreError) as error:
            log.warning("agent.left_in_disorder", reason=str(error) or "workloads did not stop in time")

    # Small watches.

    def _store_moved(self, event: ev.Event) -> None:
        assert isinstance(event, ev.StoreMoved)
        assembly.check_cluster(self._parts.config, event.mirror)
        timing = assembly.timing_of(self._parts.config, event.mirror)
        if event.mirror.cluster is not None and timing != self._timing:
            raise ClusterChanged("The cluster's intervals were changed; the agent takes them up with its next run.")
        self._know(event.mirror, event.changed)
        self._parts.wiring.store_moved(event.changed)
        if event.changed is None or any(key.startswith(rec.PLACEMENTS) for key in event.changed):
            self._holdings.placements_moved()
        self.tell(event)

    async def _keep_taps(self) -> None:
        try:
            await self._parts.wiring.keep_only(self._holdings.names)
        except OutliveError as error:
            log.warning("taps.not_reconciled", reason=str(error))

    def _know(self, mirror: Mirror, changed: frozenset[str] | None = None) -> None:
        self._neighbours.know(mirror, boot_time_s(), changed)
        if changed is None or any(key.startswith(rec.HOSTS) for key in changed):
            self._storage.watch(tuple(name for name in sorted(mirror.hosts) if name != self._parts.host.name))

    async def _watch_links(self) -> None:
        while True:
            try:
                async with LinkWatch() as changes:
                    async for change in changes:
                        if change.state is LinkState.RUNNING:
                            self._holdings.announce_on(change.interface)
            except (OutliveError, OSError) as error:
                log.warning("links.not_watched", reason=str(error))
            await asyncio.sleep(KEPT_IN_ORDER_S)

    async def _keep_in_order(self) -> None:
        """Every few seconds: prune what the store keeps where this host leads, and say when its name is taken."""
        forgot_at = 0.0
        history = History()
        while True:
            await asyncio.sleep(KEPT_IN_ORDER_S)
            if leader.in_office(self.leader):
                try:
                    await prune(self._parts.book, self._parts.store)
                    if boot_time_s() - forgot_at > forgetting.EVERY_S:
                        await forgetting.forget(self._parts.store)
                        forgot_at = boot_time_s()
                    await self._forget_history(history)
                except StoreError as error:
                    log.info("store.not_pruned", reason=str(error))
            else:
                history.begin_anew()
            self._say_if_name_is_taken()

    async def _forget_history(self, history: History) -> None:
        watcher = self._parts.watcher
        if not watcher.fresh:
            return
        revision = history.forgettable(boot_time_s(), watcher.mirror.revision)
        if revision is None:
            return
        try:
            await self._parts.store.compact(revision, timeout_s=COMPACTED_WITHIN_S)
            self._history_kept_told = False
        except (HistoryKept, StoreDenied) as error:
            if not self._history_kept_told:
                log.warning("store.history_kept", reason=str(error), remedy=error.remedy)
            self._history_kept_told = True

    def _say_if_name_is_taken(self) -> None:
        name = self._parts.host.name
        seen = self._parts.watcher.mirror.claimed(name)
        fresh = seen is not None and boot_time_s() - seen.observed_at < self._timing.renew_s * 2
        taken = seen is not None and fresh and seen.record.run != self._run and not self.node.session.incarnation
        if taken and not self._name_taken_told:
            log.error("host.name_taken", host=name, boot_id=seen.record.boot_id if seen else "", run=self._run)
        self._name_taken_told = taken

    def _view(self) -> AgentView:
        parts = self._parts
        machines = Machines(lambda: self.node, lambda: self.leader)
        return AgentView(
            parts.host.name,
            self._run,
            machines,
            parts.watcher,
            parts.book,
            parts.recorder,
            parts.store,
            parts.premises.logs,
            boot_time_s,
            self._others,
            LocalMachines(self._holdings, parts.datastores, parts.floor),
            self._figures,
            self._packages,
        )

    def _figures(self) -> Figures:
        figures = self._parts.figures
        figures.heartbeats_sent = self._neighbours.heartbeats_sent
        figures.datagrams = asdict(self._neighbours.counts())
        figures.loop_lag_s, figures.events_waiting = self._ticker.lag.recent_s, self._parts.recorder.waiting
        return figures
