"""What the API needs of its agent: values to show, the store to write wishes to, and logs to read.

The agent implements this; nothing here does anything.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from outlive.cluster.leader_state import LeaderState
from outlive.cluster.mirror import Mirror
from outlive.cluster.node_state import NodeState
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import Transaction, TransactionResult

Arrival = tuple[int, str]
"""Where an event stands in the order of arrival: the store's revision, and its key."""


class Book(Protocol):
    """The cluster's recorded events."""

    def happened(self) -> list[EventRecord]:
        """All, in the order of the wall clocks that stamped them."""
        ...

    def arrived(self, after: Arrival = (0, "")) -> list[tuple[Arrival, EventRecord]]:
        """Those that reached the store after a mark, each with the mark to go on from."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next event to arrive, at most `timeout_s`."""
        ...


class View(Protocol):
    """One agent as its API sees it."""

    @property
    def host(self) -> str: ...
    @property
    def mirror(self) -> Mirror: ...
    @property
    def node(self) -> NodeState: ...
    @property
    def leader(self) -> LeaderState: ...
    @property
    def book(self) -> Book: ...
    @property
    def store_reachable(self) -> bool: ...

    def now(self) -> float:
        """Seconds on this host's boot clock."""
        ...

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Try a transaction on the store, within a few seconds. Raises an OutliveError when it cannot be reached."""
        ...

    def record(
        self, kind: str, *, workload: str = "", host: str = "", text: str = "", because: str = ""
    ) -> EventRecord:
        """Record something that an operator did; its id is the cause of what follows."""
        ...

    def log_lines(self, workload: str, modules: Sequence[str], lines: int, follow: bool) -> AsyncIterator[bytes]:
        """This host's lines of a workload's modules, the last `lines` and then, if asked, each new one.

        Each is one JSON object with unix_ms, host, module, stream and text, and a newline.
        """
        ...

    async def peer_log_lines(
        self, host: str, workload: str, modules: Sequence[str], lines: int, follow: bool
    ) -> AsyncIterator[bytes]:
        """The same of another host, from its own API."""
        ...
