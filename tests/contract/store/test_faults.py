"""Every promise holds while members of an etcd cluster are killed, stand still, and are cut off from each other."""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from outlive.store.base import Store, StoreError, StoreTimeout
from outlive.store.etcd import EtcdStore

from ...store.etcd_cluster import NAMES, EtcdCluster
from .histories import History, lived

# A connection that is given up while it is being made is left to the garbage collector, by httpx's parts.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

TROUBLED_S, BETWEEN_S = 1.6, 0.7


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


async def afflict(history: History, cluster: EtcdCluster, kind: str, name: str, seconds: float) -> None:
    """One fault and its end."""
    if kind == "kill":
        cluster.kill(name)
    elif kind == "pause":
        cluster.pause(name)
    else:
        cluster.cut_off(name)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(cluster.mend)
    if kind == "pause":
        history.woke.append(time.monotonic())


def opener(cluster: EtcdCluster, prefix: str, rng: random.Random) -> Callable[[], Awaitable[Store]]:
    async def open_store() -> Store:
        members = tuple(rng.sample(NAMES, 3))
        return await EtcdStore.open(cluster.address(prefix, members), timeout_s=60)

    return open_store


async def test_nothing_is_lost_doubled_or_out_of_order_while_leaders_die_stand_still_and_are_cut_off(
    cluster: EtcdCluster,
) -> None:
    async def trouble(history: History) -> None:
        for kind in ("kill", "cut", "pause"):
            await asyncio.sleep(BETWEEN_S)
            await afflict(history, cluster, kind, await asyncio.to_thread(cluster.leader), TROUBLED_S)

    try:
        history = await lived(opener(cluster, "/faults", random.Random(1)), trouble)
    finally:
        cluster.mend()
        await asyncio.to_thread(cluster.until_whole)
    assert any(write.revision is not None for write in history.writes)
    print(told(history))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
async def test_the_same_for_long_and_at_random(cluster: EtcdCluster, seed: int) -> None:
    rng = random.Random(seed)

    async def trouble(history: History) -> None:
        ends_at = time.monotonic() + 90
        while time.monotonic() < ends_at:
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            name = rng.choice([*NAMES, await asyncio.to_thread(cluster.leader)])
            await afflict(history, cluster, rng.choice(["kill", "cut", "pause"]), name, rng.uniform(0.2, 5.0))

    try:
        history = await lived(opener(cluster, f"/soak{seed}", rng), trouble, clients=5, seed=seed)
    finally:
        cluster.mend()
        await asyncio.to_thread(cluster.until_whole)
    print(told(history))


async def test_without_a_majority_reads_time_out_and_writes_are_never_called_done(cluster: EtcdCluster) -> None:
    store = await EtcdStore.open(cluster.address("/majority"), timeout_s=60)
    leader = await asyncio.to_thread(cluster.leader)
    others = [name for name in NAMES if name != leader]
    try:
        for name in others:
            cluster.pause(name)
        began = time.monotonic()
        with pytest.raises(StoreTimeout):
            await store.get("key", timeout_s=1.0)
        assert time.monotonic() - began < 10
        with pytest.raises(StoreError):
            await store.grant_lease(10, timeout_s=1.0)
    finally:
        cluster.mend()
        await asyncio.to_thread(cluster.until_whole)
        await store.close()


def told(history: History) -> str:
    done = sum(write.revision is not None for write in history.writes)
    unsure = sum(write.revision is None and not write.sure_not for write in history.writes)
    return (
        f"{done} writes acknowledged, {unsure} unsure, {len(history.reads)} reads, "
        f"{len(history.held)} leases, {history.fresh} signs of freshness, refused as {sorted(history.refusals)}"
    )
