"""What an agent is put together from: keys that are keys, a store that is this cluster's."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import facts, parts
from outlive.agent.observe import StoreWatcher
from outlive.agent.record import EventBook
from outlive.cluster import records as rec
from outlive.cluster.host import Capacity
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put, Transaction
from outlive.config.agent_file import AgentConfig, ClusterMembership
from outlive.store.boot_clock import boot_time_s
from outlive.store.sqlite import SqliteStore
from outlive.wire.sequence import Sequences

CLUSTER = "00112233445566ff"
CONFIG = AgentConfig("a", "127.0.0.1", ClusterMembership(CLUSTER), timing=replace(Timing(), claim_ttl_s=6))


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Any]:
    """As much of an agent's parts as the first picture needs."""
    store = await SqliteStore.open(tmp_path / "store", timeout_s=60)
    sequences = Sequences(tmp_path / "sequence", 1000)
    watcher = StoreWatcher(store, EventBook(), boot_time_s)
    try:
        yield SimpleNamespace(config=CONFIG, store=store, watcher=watcher, sequences=sequences)
    finally:
        await store.close()


async def put(opened: Any, key: str, record: rec.Record) -> None:
    await opened.store.transact(Transaction((), (Put(key, rec.encode(record)),)), timeout_s=60)


async def test_an_empty_store_is_founded_with_the_intervals_of_the_agent_file(opened: Any) -> None:
    mirror = await parts.first_picture(opened)
    assert mirror.cluster is not None
    assert mirror.cluster.record == rec.ClusterRecord(CLUSTER, timing=CONFIG.timing)
    assert parts.timing_of(CONFIG, mirror).claim_ttl_s == 6


async def test_a_cluster_that_stands_keeps_its_own_intervals(opened: Any) -> None:
    await put(opened, rec.CLUSTER, rec.ClusterRecord(CLUSTER))
    assert parts.timing_of(CONFIG, await parts.first_picture(opened)) == Timing()


async def test_another_clusters_store_is_refused(opened: Any) -> None:
    await put(opened, rec.CLUSTER, rec.ClusterRecord("f" * 16))
    with pytest.raises(parts.WrongCluster, match="f" * 16) as caught:
        await parts.first_picture(opened)
    assert caught.value.exit_code == 3


async def test_a_record_that_cannot_be_read_is_not_taken_for_a_missing_one(opened: Any) -> None:
    await opened.store.transact(Transaction((), (Put(rec.CLUSTER, b"{oops"),)), timeout_s=60)
    mirror = await parts.first_picture(opened)
    assert mirror.cluster is None
    assert (await opened.store.get(rec.CLUSTER, timeout_s=60)).value == b"{oops"


async def test_the_sequence_goes_on_above_what_the_own_claim_says(opened: Any) -> None:
    await put(opened, "claims/a", rec.ClaimRecord("a", "b", "r", 1, 1, heartbeats=10_000_000))
    await parts.first_picture(opened)
    assert opened.sequences.next() > 10_000_000


def test_a_key_is_read_as_text_or_bytes_and_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32 + "\n")
    assert facts.cluster_key(path) == b"\xab" * 32
    path.write_bytes(b"\x80" * 32)
    assert facts.cluster_key(path) == b"\x80" * 32
    for wrong in (b"", b"ab" * 31, b"xy" * 32, b"\xff" * 33):
        path.write_bytes(wrong)
        with pytest.raises(facts.KeyUnusable):
            facts.cluster_key(path)
    with pytest.raises(facts.KeyUnusable, match="No such file"):
        facts.cluster_key(tmp_path / "none")


def test_a_host_offers_what_its_machine_has_unless_it_was_told() -> None:
    assert facts.member(CONFIG).capacity.memory_mib > 0
    assert facts.member(replace(CONFIG, capacity=Capacity(1, 2))).capacity == Capacity(1, 2)
