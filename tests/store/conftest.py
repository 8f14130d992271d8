"""What the tests of the SQLite store start from: a file in a folder of their own, and stores that get closed."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from outlive.store.boot_clock import BootClock
from outlive.store.sqlite import SqliteStore
from outlive.store.sqlite_tables import HistoryLimits

_boots = itertools.count(1)


class VirtualMachine:
    """A machine whose time passes, and which starts again, when the test says so."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000
        self.clock = BootClock(f"boot-{next(_boots)}", lambda: self._now_ns)

    def pass_time(self, seconds: float) -> None:
        self._now_ns += int(seconds * 1_000_000_000)

    def restart(self) -> None:
        """The boot clock counts from nought again; old stores keep the clock they were opened with."""
        self._now_ns = 1_000_000_000
        self.clock = BootClock(f"boot-{next(_boots)}", lambda: self._now_ns)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def machine() -> VirtualMachine:
    return VirtualMachine()


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[Callable[..., Awaitable[SqliteStore]]]:
    """Open an instance of the store at `path` that is closed when the test is over."""
    opened: list[SqliteStore] = []

    async def open_one(
        clock: BootClock | None = None, limits: HistoryLimits | None = None, at: Path = path
    ) -> SqliteStore:
        store = await SqliteStore.open(at, timeout_s=60, clock=clock, limits=limits)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def umask_open_to_all() -> Iterator[None]:
    """As permissive as it gets, so that the store's own choice shows."""
    before = os.umask(0)
    yield
    os.umask(before)
