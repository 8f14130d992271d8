"""Real hosts for tests of the whole agent, and machines that are none for tests of its rooms."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from outlive.agent import founding
from outlive.cluster import records as rec
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put, Transaction
from outlive.config.agent_file import AgentConfig, read_agent
from outlive.store.sqlite import SqliteStore

from .. import one_host as hosts
from ..one_host import OneHost, one_host, other_host
from .machine_scene import scene

__all__ = ["one_host", "other_host", "patient_host", "pytest_collection_modifyitems", "scene"]

PATIENT = Timing(claim_ttl_s=40)


@pytest.fixture
def patient_host() -> Iterator[OneHost]:
    """A host for one test whose claims last so long that a new agent is in time, however loaded the machine is."""
    with hosts.open_folder() as folder, hosts.namespace(f"ol-p{os.getpid()}") as name:
        host = OneHost(folder, name)
        words = ("up", "--folder", str(folder), "--name", "one", "--json")
        try:
            assert host.run(*words, "--no-start").code == 0
            asyncio.run(found_patiently(read_agent(folder / "agent.toml")))
            assert host.run(*words).code == 0
            yield host
        finally:
            hosts.clear_away(host)


async def found_patiently(config: AgentConfig) -> None:
    """Write the cluster's record with other intervals than `up` did."""
    store = await SqliteStore.open(config.store_path, timeout_s=founding.STORE_S)
    try:
        record = rec.encode(rec.ClusterRecord(config.cluster.id, timing=PATIENT))
        await store.transact(Transaction((), (Put(rec.CLUSTER, record),)), timeout_s=founding.STORE_S)
    finally:
        await store.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that has a real host: it needs root, as the lab does."""
    hosts.pytest_collection_modifyitems(items)
    for item in items:
        if "patient_host" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.lab)
