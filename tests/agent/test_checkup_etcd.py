"""The check-up of a host whose store is in etcd: members, versions, leases, and how many members may be lost."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlive.agent import checkup_etcd
from outlive.agent.finding import Finding, Result
from outlive.agent.first_host import Places, Wish, found_host
from outlive.agent.founding import StoreTaken
from outlive.cluster import records as rec
from outlive.config.agent_file import AgentConfig, ClusterMembership
from outlive.config.store_address import EtcdAddress

from ..store.etcd_cluster import EtcdCluster, etcd_cluster
from ..store.etcd_pretended import bad, good, pretended

# A connection that is given up while it is being made is left to the garbage collector, by httpx's parts.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with etcd_cluster() as made:
        yield made


def founded(cluster: EtcdCluster, folder: Path) -> AgentConfig:
    store = str(cluster.address(f"/{folder.name}"))
    return found_host(Places.below(folder), Wish(name="one", store=store), lambda step: None)[0]


def examined(config: AgentConfig) -> tuple[dict[str, Finding], list[str]]:
    address = config.store_address
    assert isinstance(address, EtcdAddress)
    found, listing = asyncio.run(checkup_etcd.store(config, address))
    # How long a renewal takes is this machine's, of this moment.
    timely = [each for each in found if each.id != "store.lease" or each.result is Result.FAILED]
    return {each.id: each for each in timely}, [key.key for key in listing.keys] if listing else []


def test_founding_writes_the_clusters_record_once_and_another_cluster_is_refused(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    config = founded(cluster, tmp_path)
    assert found_host(Places.below(tmp_path), Wish(), lambda step: None)[0] == config
    found, keys = examined(config)
    assert {each.result for each in found.values()} == {Result.OK}
    assert "3 of 3 members answer here; 1 of them may be lost" in found["store.members"].found
    assert set(found) == {
        "store", "store.members", "store.history", *(f"store.{end}" for end in cluster.address().endpoints),
    }  # fmt: skip
    assert keys == [rec.CLUSTER]
    with pytest.raises(StoreTaken):
        found_host(Places.below(tmp_path / "other"), Wish(name="two", store=config.store), lambda step: None)


def test_a_member_that_is_gone_and_a_majority_that_is_gone_are_told(
    cluster: EtcdCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = founded(cluster, tmp_path)
    try:
        cluster.kill("two")
        cluster.leader()
        found, keys = examined(config)
        assert sorted(each.result for each in found.values() if each.result is not Result.OK) == [
            Result.FAILED,
            Result.WARNING,
            Result.WARNING,
        ]
        assert "keys are other programs'" in found["store.history"].found  # another test's
        assert "2 of 3 members answer here; 0 of them may be lost" in found["store.members"].found
        assert keys

        monkeypatch.setattr(checkup_etcd, "MEMBER_S", 1.0)
        monkeypatch.setattr(checkup_etcd, "STORE_S", 1.0)
        cluster.kill("three")
        found, keys = examined(config)
        assert found["store"].result is Result.FAILED
        assert found["store.members"].result is Result.FAILED
        assert not keys
        assert all(each.fix for each in found.values() if each.result is not Result.OK)
    finally:
        cluster.mend()
        cluster.until_whole()


def test_a_member_that_tells_its_state_to_root_alone_is_seen_to_serve() -> None:
    """As those from 3.5.28 on do once there are users; to read a key of ours is allowed."""

    async def answer(path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path == "/v3/maintenance/status":
            writer.write(bad(403, "etcdserver: permission denied", 7))
        elif path == "/v3/cluster/member/list":
            writer.write(good(members=[{"ID": "1", "name": "one"}]))
        elif path == "/v3/kv/range" and not body.get("range_end"):
            writer.write(good())
        else:
            writer.write(bad(503, "etcdserver: no leader", 14))

    async def found() -> dict[str, Finding]:
        async with pretended(answer) as endpoint:
            address = EtcdAddress((endpoint,))
            config = AgentConfig("a", "127.0.0.1", ClusterMembership("0" * 16), store=str(address))
            told = (await checkup_etcd.store(config, address))[0]
            return {each.id.replace(str(endpoint), "it"): each for each in told}

    told = asyncio.run(found())
    assert told["store.it"].result is Result.OK
    assert "serves" in told["store.it"].found
    assert "1 of 1 members answer here" in told["store.members"].found
