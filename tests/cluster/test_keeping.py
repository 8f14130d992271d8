"""A host works out what its depot is to hold when that may have changed: once a tick at most, not for others' news."""

from dataclasses import replace

import pytest

from outlive.cluster import mirror, node
from outlive.cluster import records as rec
from outlive.cluster.commands import Command, KeepPackages, RecordEvent
from outlive.cluster.events import PackageDamaged, PackagesHeld, StoreMoved, Tick
from outlive.cluster.node_state import NodeState
from outlive.cluster.pushed import DepotRecord, PackageRecord, PackageUse
from outlive.cluster.transaction import KeyValue
from outlive.cluster.workload import Workload

from .small_world import SmallWorld, service

APP = PackageRecord("app", "1.0.0", "a" * 64, hosts=("a", "b"))
OTHER = PackageRecord("other", "1.0.0", "b" * 64, hosts=("a", "b"))


def using(name: str) -> Workload:
    return replace(service(name), package=PackageUse("app", "", "1.0.0", APP.id))


class Told:
    """What the node machine of host `c`, which is to keep nothing for others, makes of news from the store."""

    def __init__(self) -> None:
        self.world = SmallWorld("a", "b", "c", "d")
        self.world.store.put(rec.PACKAGES + APP.key, rec.encode(APP))
        self.world.run(2)
        self.state: NodeState = self.world.hosts["c"].node
        assert not self.state.depot_due

    def hear(self, *records: tuple[str, rec.Record]) -> None:
        revision, now = self.state.mirror.revision + 1, self.state.at
        values = [KeyValue(key, rec.encode(record), 1, revision) for key, record in records]
        picture = mirror.changed(self.state.mirror, revision, values, now)
        self.step(StoreMoved(now, picture, frozenset(key for key, _ in records)))

    def step(self, event: StoreMoved | Tick | PackagesHeld) -> tuple[Command, ...]:
        self.state, commands = node.step(self.state, event)
        return tuple(each for each in commands if isinstance(each, KeepPackages))

    def tick(self) -> tuple[Command, ...]:
        return self.step(Tick(self.state.at + 0.1, 0.1, self.state.sequence))


@pytest.fixture
def told() -> Told:
    return Told()


def test_news_of_others_is_no_reason_to_look(told: Told) -> None:
    told.hear((rec.WORKLOADS + "web", rec.WorkloadRecord(using("web"))))
    told.hear((rec.PLACEMENTS + "web", rec.PlacementRecord("web", 3, "a", 1)))
    told.hear((rec.REPORTS + "web", rec.ReportRecord("web", 3, "a", 1, rec.Stage.RUNNING)))
    told.hear((rec.DEPOTS + "a", DepotRecord("a", {OTHER.id: OTHER.key})))
    assert not told.state.depot_due
    assert told.tick() == ()


def test_many_changes_are_one_look_at_the_next_tick(told: Told) -> None:
    told.hear((rec.WORKLOADS + "web", rec.WorkloadRecord(using("web"))))
    told.hear((rec.PLACEMENTS + "web", rec.PlacementRecord("web", 3, "c", 1)))
    told.hear((rec.DEPOTS + "a", DepotRecord("a", {APP.id: APP.key})))
    assert told.state.depot_due
    [keep] = told.tick()
    assert isinstance(keep, KeepPackages)
    assert [(each.pinned.key, each.holders) for each in keep.kept] == [(APP.key, ("a",))]
    assert told.tick() == ()


def test_what_would_be_fetched_from_elsewhere_or_may_go_follows_others_depots(told: Told) -> None:
    told.step(PackagesHeld(told.state.at, {APP.id: APP.key}, {}))
    told.hear((rec.DEPOTS + "c", DepotRecord("c", {APP.id: APP.key})))
    told.tick()
    told.hear((rec.DEPOTS + "a", DepotRecord("a", {APP.id: APP.key})))
    assert told.tick() == (), "one of the two that are named still lacks it"
    told.hear((rec.DEPOTS + "b", DepotRecord("b", {APP.id: APP.key})))
    [keep] = told.tick()
    assert isinstance(keep, KeepPackages)
    assert keep.free == (APP.id,)


def test_a_damaged_copy_is_told_to_the_cluster(told: Told) -> None:
    _, commands = node.step(told.state, PackageDamaged(told.state.at, APP.key, "one of its components is damaged"))
    [event] = [each.event for each in commands if isinstance(each, RecordEvent)]
    assert (event.kind, event.host) == ("package.damaged", "c")
    assert event.text == "app@1.0.0: one of its components is damaged"


def test_what_leaves_the_host_is_kept_for_it_no_longer(told: Told) -> None:
    told.hear((rec.WORKLOADS + "web", rec.WorkloadRecord(using("web"))))
    told.hear((rec.PLACEMENTS + "web", rec.PlacementRecord("web", 3, "c", 1)))
    told.tick()
    told.hear((rec.PLACEMENTS + "web", rec.PlacementRecord("web", 4, "a", 1)))
    [keep] = told.tick()
    assert isinstance(keep, KeepPackages)
    assert keep.kept == ()
