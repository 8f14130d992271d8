"""The backends that the contract is checked against: one parameter each, and nothing else to change."""

import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from outlive.store.base import Store
from outlive.store.etcd import EtcdStore
from outlive.store.sqlite import SqliteStore

from ...store.etcd_cluster import EtcdCluster, etcd_cluster

_numbers = itertools.count()

OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where possible: the contract is no matter of disks, and its many syncs take their time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[EtcdCluster]:
    """Three members of etcd for all tests; each test has a prefix of its own there."""
    with etcd_cluster() as made:
        yield made


@pytest.fixture(params=["sqlite", "etcd"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_store(request: pytest.FixtureRequest, backend: str, folder: Path) -> AsyncIterator[OpenStore]:
    """Open another instance of the one store of this test, as another agent would."""
    opened: list[Store] = []
    prefix = f"/contract/{next(_numbers)}"

    async def open_sqlite() -> Store:
        store = await SqliteStore.open(folder / "store.db", timeout_s=60)
        opened.append(store)
        return store

    async def open_etcd() -> Store:
        cluster: EtcdCluster = request.getfixturevalue("cluster")
        store = await EtcdStore.open(cluster.address(prefix), timeout_s=60)
        opened.append(store)
        return store

    openers: dict[str, OpenStore] = {"sqlite": open_sqlite, "etcd": open_etcd}
    yield openers[backend]
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
def shortest_ttl_s(backend: str) -> int:
    """The shortest lease that the backend grants as asked; etcd's follows from its election timeout."""
    return {"sqlite": 1, "etcd": 2}[backend]
