"""What the API needs of its agent: values to show, the store to write wishes to, logs, machines, and other agents.

The agent implements this; nothing here does anything.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from outlive.cluster.leader_state import LeaderState
from outlive.cluster.machine import MachineType
from outlive.cluster.mirror import Mirror
from outlive.cluster.node_state import NodeState
from outlive.cluster.package import Component, Manifest
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Transaction, TransactionResult

from .figures import Figures

Looks = AsyncGenerator[dict[str, Any], None]
"""What is found as checkpoints are looked at, and how far that is."""

Arrival = tuple[int, str]
"""Where an event stands in the order of arrival: the store's revision at which it came, and its key."""


class Book(Protocol):
    """The cluster's recorded events, in orders that are the same at every agent."""

    @property
    def pruned(self) -> Arrival:
        """All that arrived up to this one may be gone."""
        ...

    def happened(self) -> list[EventRecord]:
        """All, in the order of the wall clocks that stamped them."""
        ...

    def arrived(self, after: Arrival = (0, "")) -> list[tuple[Arrival, EventRecord]]:
        """Those that reached the store after a mark, each with the mark to go on from."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Wait for the next event to arrive, at most `timeout_s`."""
        ...


class ConsoleUse(Protocol):
    """One use of a machine's console."""

    async def read(self) -> bytes:
        """What it wrote, as soon as there is any, the replay first; b"" when it has ended."""
        ...

    async def type(self, keys: bytes) -> None:
        """Send to the guest. Raises an OutliveError when it takes nothing in."""
        ...

    async def close(self) -> None:
        """Use it no longer."""
        ...


class LocalMachines(Protocol):
    """The virtual machines of this host, and the checkpoints on the datastores that it reaches."""

    def board(self, kind: MachineType) -> str | None:
        """The newest version of a board that this host can make; None without an emulator."""
        ...

    def told(self, workload: str) -> dict[str, Any] | None:
        """How a machine stands on this host; None when nothing of it is here."""
        ...

    async def screenshot(self, workload: str) -> bytes | None:
        """What its display shows, as PNG; None when it does not run here. Raises an OutliveError."""
        ...

    async def press(self, workload: str, button: str) -> bool:
        """Press pause, unpause or reset; False when it does not run here. Raises an OutliveError."""
        ...

    async def console(self, workload: str, replay_bytes: int) -> ConsoleUse | None:
        """Begin to use its console; None when it does not run here. Raises an OutliveError."""
        ...

    def reaches(self, datastore: str) -> bool:
        """Whether this host has a datastore that answers."""
        ...

    async def checkpoints(self, datastore: str, workload: str) -> list[dict[str, Any]]:
        """A workload's checkpoints, the newest first. Raises an OutliveError, also when storage does not answer."""
        ...

    async def verify(self, datastore: str, workload: str, checkpoint: str) -> Looks | None:
        """Look at all checkpoints, or at one; None when it is not there. Raises an OutliveError.

        Each is told as {name, whole, problem}, after any number of {name, done_bytes, total_bytes}.
        """
        ...


class LocalPackages(Protocol):
    """The packages of this host."""

    def arrival(self, pieces: AsyncIterator[bytes]) -> AbstractAsyncContextManager[tuple[str, Manifest]]:
        """Take in an archive as it arrives, and have its record written in the block: its package's id and manifest.

        What the block refuses goes again, unless somebody else needs it. Raises an OutliveError.
        """
        ...

    async def manifest(self, id: str) -> bytes:
        """A manifest, as it is. Raises PackageMissing."""
        ...

    def content(self, id: str, components: Sequence[Component], offset: int) -> AsyncGenerator[bytes, None]:
        """The bytes of components, one after the other, the first from an offset on. Raises an OutliveError."""
        ...


class PeerAnswer(Protocol):
    """What another agent answers. headers: by their names in lower case. Whoever has it closes it."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...

    async def piece(self) -> bytes:
        """The next piece, as soon as there is any; b"" at the end. Raises ClusterUnreachable when it breaks off."""
        ...

    async def whole(self, most_bytes: int, within_s: float) -> bytes:
        """All of it. Raises ClusterUnreachable when it breaks off, is larger or takes longer than that."""
        ...

    def close(self) -> None:
        """Be done with it, read or not."""
        ...


class View(Protocol):
    """One agent as its API sees it."""

    @property
    def host(self) -> str: ...
    @property
    def local(self) -> LocalMachines: ...
    @property
    def packages(self) -> LocalPackages: ...
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

    @property
    def figures(self) -> Figures: ...

    def now(self) -> float:
        """Seconds on this host's boot clock."""
        ...

    async def transact(self, transaction: Transaction) -> TransactionResult:
        """Try a transaction on the store, within a few seconds. Raises an OutliveError when it cannot be reached."""
        ...

    async def read(self, key: str) -> KeyValue | None:
        """A key of the store as it is now, or None. Raises an OutliveError when the store cannot be reached."""
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

    async def ask_peer(
        self, host: str, method: str, path: str, body: bytes = b"", *, answer_s: float = ...
    ) -> PeerAnswer:
        """Ask another host's agent. Raises ClusterUnreachable. answer_s: until the head of its answer is there."""
        ...
