"""Hosts that live and do not stop what they are told to: what follows by itself, and what a person is told."""

import pytest

from outlive.cluster import outlook
from outlive.cluster import records as rec
from outlive.cluster.commands import TearDown
from outlive.cluster.outlook import Standing, WorkloadOutlook
from outlive.cluster.policies import Freeze, Policies
from outlive.cluster.workload import Module, PlacementRules

from .small_world import SmallWorld, service

LATE_S = 16.0
WITHIN = Policies(begin_within_s=10)


def web(host: str, name: str = "web") -> object:
    return service(name, Module("main", ("/bin/true",), stop_grace_s=2.0), placement=PlacementRules(hosts=(host,)))


@pytest.fixture
def world() -> SmallWorld:
    """Two hosts; web runs on the one that does not lead."""
    two = SmallWorld("a", "b")
    two.store.put(rec.POLICIES, rec.encode(WITHIN))
    two.run(2)
    two.apply(web(two.other_than(two.leads())))  # type: ignore[arg-type]
    two.run(3)
    assert two.runs_on("web") == [two.other_than(two.leads())]
    return two


def deafen(world: SmallWorld) -> str:
    """From now on nothing of the store's changes reaches the host of web."""
    host = str(world.placement("web").host)
    world.hosts[host].seen = 10**9
    return host


def stop(world: SmallWorld) -> None:
    world.apply(web(str(world.placement("web").host)), rec.Desired.STOPPED)  # type: ignore[arg-type]


def told(world: SmallWorld) -> list[str]:
    return [event.text for event in world.happened if event.kind == "placement.stuck"]


def shown(world: SmallWorld) -> WorkloadOutlook:
    mirror = world.hosts[str(world.leads())].mirror
    [found] = outlook.of_workloads(mirror, ["web"], store_reachable=True)
    return found


def test_the_claim_of_a_host_is_ended_that_heeds_no_order_to_stop_and_runs_nothing_else(world: SmallWorld) -> None:
    deafen(world)
    stop(world)
    world.run(LATE_S)
    assert "claim.revoked" in world.kinds()
    world.run(8)
    assert world.placement("web").host is None


def test_a_host_that_runs_something_else_keeps_its_claim_and_a_person_is_told_what_to_do(world: SmallWorld) -> None:
    world.apply(web(str(world.placement("web").host), "old"))  # type: ignore[arg-type]
    world.run(3)
    host = deafen(world)
    stop(world)
    world.run(LATE_S)
    assert "claim.revoked" not in world.kinds()
    [text] = told(world)
    assert "heeds no orders, but runs old" in text
    found = shown(world)
    assert f"{host} lives, and has not stopped it after 12 s" in found.reason
    assert f"outlive doctor` on {host}" in found.remedy


def test_of_one_that_is_to_run_elsewhere_a_person_is_told_the_command_that_ends_it(world: SmallWorld) -> None:
    world.apply(web(str(world.placement("web").host), "old"))  # type: ignore[arg-type]
    world.run(3)
    deafen(world)
    world.apply(service("web"), version=2)
    world.run(LATE_S)
    assert shown(world).standing is Standing.AT_RISK
    assert "outlive failover web" in shown(world).remedy


def test_a_host_that_is_still_stopping_it_heeds_its_orders_and_that_is_told(world: SmallWorld) -> None:
    world.swallow = lambda _, command: isinstance(command, TearDown)
    stop(world)
    world.run(LATE_S)
    assert "claim.revoked" not in world.kinds()
    [text] = told(world)
    assert "it is still at it" in text


def test_while_the_cluster_is_frozen_no_claim_is_ended_for_it(world: SmallWorld) -> None:
    deafen(world)
    stop(world)
    frozen = Policies(begin_within_s=10, frozen=Freeze("root on a", "new switch"))
    world.store.put(rec.POLICIES, rec.encode(frozen))
    world.run(LATE_S)
    assert "claim.revoked" not in world.kinds()
    assert "new switch" in told(world)[0]
    world.store.put(rec.POLICIES, rec.encode(WITHIN))
    world.run(3)
    assert "claim.revoked" in world.kinds()


def test_nothing_is_told_of_a_host_that_stops_in_time(world: SmallWorld) -> None:
    stop(world)
    world.run(8)
    assert told(world) == []
    assert shown(world).remedy == ""
