"""The backends that the contract is checked against: one parameter each, and nothing else to change."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from outlive.store.base import Store
from outlive.store.sqlite import SqliteStore

OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where possible: the contract is no matter of disks, and its many syncs take their time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(params=["sqlite"])
async def open_store(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[OpenStore]:
    """Open another instance of the one store of this test, as another agent would."""
    opened: list[Store] = []

    async def open_sqlite() -> Store:
        store = await SqliteStore.open(folder / "store.db", timeout_s=10)
        opened.append(store)
        return store

    openers: dict[str, OpenStore] = {"sqlite": open_sqlite}
    yield openers[request.param]
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def other(open_store: OpenStore, store: Store) -> Store:
    """A second instance of the same store."""
    return await open_store()


@pytest.fixture
def shortest_ttl_s(open_store: OpenStore) -> int:
    """The shortest lease that the backend grants as asked."""
    return 1
