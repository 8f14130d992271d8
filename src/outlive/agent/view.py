"""The agent as its API sees it: the newest values, and the few things that the API asks for.

Everything here is read or handed on; nothing is decided and no state is kept but the number of the last event that
was recorded for an operator.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from outlive.api.figures import Figures
from outlive.api.view import LocalPackages
from outlive.cluster.leader_state import LeaderState
from outlive.cluster.mirror import Mirror
from outlive.cluster.node_state import NodeState
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Transaction, TransactionResult
from outlive.runtime import logs
from outlive.store.base import Store

from . import peers
from .machine_view import LocalMachines
from .observe import Clock, StoreWatcher
from .record import EventBook, Recorder

TRANSACT_S = 5.0


@dataclass(frozen=True, slots=True)
class Machines:
    """The two machines' states as they are now."""

    node: Callable[[], NodeState]
    leader: Callable[[], LeaderState]


class AgentView:
    """What the API may know and ask of one run of the agent."""

    def __init__(
        self,
        host: str,
        run: str,
        machines: Machines,
        watcher: StoreWatcher,
        book: EventBook,
        recorder: Recorder,
        store: Store,
        logs_folder: Path,
        clock: Clock,
        others: peers.Others,
        local: LocalMachines,
        figures: Callable[[], Figures],
        packages: LocalPackages,
    ) -> None:
        self.host = host
        self.local = local
        self.packages = packages
        self.book = book
        self._figures = figures
        self._run = run
        self._machines = machines
        self._watcher = watcher
        self._recorder = recorder
        self._store = store
        self._logs_folder = logs_folder
        self._clock = clock
        self._others = others
        self._issued = count(1)

    @property
    def mirror(self) -> Mirror:
        """The newest picture of the store."""
        return self._watcher.mirror

    @property
    def node(self) -> NodeState:
        """The node machine's state."""
        return self._machines.node()

    @property
    def leader(self) -> LeaderState:
        """The leader machine's state."""
        return self._machines.leader()

    @property
    def figures(self) -> Figures:
        """What the agent counts and measures, as it is now."""
        return self._figures()

    @property
    def store_reachable(self) -> bool:
        """Whether the picture of the store is fresh."""
        return self._watcher.fresh

    def now(self) -> float:
        """Seconds on this host's boot clock."""
        return self._clock()

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Try a transaction. Raises StoreError."""
        return await self._store.transact(transaction, timeout_s=TRANSACT_S)

    async def read(self, key: str) -> KeyValue | None:
        """A key of the store as it is now, or None. Raises StoreError."""
        return await self._store.get(key, timeout_s=TRANSACT_S)

    def record(
        self, kind: str, *, workload: str = "", host: str = "", text: str = "", because: str = ""
    ) -> EventRecord:
        """Record something that an operator did."""
        event = EventRecord(
            id=f"{self.host}.{self._run}.o{next(self._issued)}",
            kind=kind,
            by=self.host,
            at_s=self._clock(),
            host=host,
            workload=workload,
            text=text,
            because=because,
        )
        return self._recorder.record(event)

    async def log_lines(self, workload: str, modules: Sequence[str], lines: int, follow: bool) -> AsyncIterator[bytes]:
        """This host's lines of a workload, each a JSON object and a newline."""
        async for line in logs.read(self._logs_folder, workload, modules, lines, follow=follow):
            told = {
                "unix_ms": line.unix_ms,
                "host": self.host,
                "module": line.module,
                "stream": line.stream,
                "text": line.text,
            }
            yield msgspec.json.encode(told) + b"\n"

    async def peer_log_lines(
        self, host: str, workload: str, modules: Sequence[str], lines: int, follow: bool
    ) -> AsyncIterator[bytes]:
        """The same of another host, asked over TLS. Raises ClusterUnreachable when it cannot be asked."""
        options = urlencode({"modules": ",".join(modules), "lines": lines, "follow": int(follow)})
        return await self._others.lines(host, f"/v1/hosts/{quote(host)}/logs/{quote(workload)}?{options}")

    async def ask_peer(
        self, host: str, method: str, path: str, body: bytes = b"", *, answer_s: float = peers.ANSWER_S
    ) -> peers.Answer:
        """Ask another host's agent; its answer is closed by whoever has it. Raises ClusterUnreachable."""
        return await self._others.ask(host, peers.Request(method, path, body, answer_s))
