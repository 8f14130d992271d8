"""What is foretold is what then happens: the same machine, on a copy, and then in a small cluster for real."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.commands import Act, Transact
from outlive.cluster.host import Capacity
from outlive.cluster.what_if import Decision, Foretold, Kind, foretell
from outlive.cluster.workload import OnAfterLimit, PlacementRules, Workload

from .small_world import SmallWorld, host, machine, service


def world_of(*names: str, cpus: float = 8) -> SmallWorld:
    world = SmallWorld()
    for name in names:
        world.boot(host(name, capacity=Capacity(cpus, 16384)))
    world.run(2)
    return world


def apply(world: SmallWorld, name: str, cpus: float = 1, **more: Any) -> None:
    rules = {key: more.pop(key) for key in tuple(more) if key in PlacementRules.__slots__}
    world.apply(service(name, resources=Capacity(cpus, 0), placement=PlacementRules(**rules), **more))


def what_if(world: SmallWorld, *lost: str, asked: str | None = None) -> Foretold:
    leads = world.leads()
    assert leads is not None
    return foretell(world.hosts[asked or leads].leader, frozenset(lost))


def places(world: SmallWorld) -> dict[str, str | None]:
    found = (rec.decode(key, value.value) for key, value in world.store.keys.items() if key.startswith(rec.PLACEMENTS))
    return {each.workload: each.host for each in found if isinstance(each, rec.PlacementRecord)}


def test_the_loss_of_a_host_is_foretold_with_generation_and_reason_and_nothing_is_written() -> None:
    world = world_of("a", "b", "c")
    apply(world, "web", hosts=("b", "c"), prefer_sites=())
    world.run(3)
    [where] = world.runs_on("web")
    before = dict(world.store.keys)
    told = what_if(world, where)
    other = "c" if where == "b" else "b"
    generation = world.placement("web").generation + 1
    why = f"the claim of {where} has ended for certain"
    assert told.decisions == (Decision(Kind.PLACED, "web", other, generation, why),)
    assert (told.leader, told.without, told.whole) == (world.leads(), (), True)
    written = [each for each in told.commands if isinstance(each, Transact) and each.purpose.act is Act.PLACE]
    assert [each.purpose.subject for each in written] == ["placements/web"]
    assert world.store.keys == before


def test_what_has_no_place_is_told_with_its_reason_the_important_first() -> None:
    world = world_of("a", "b", cpus=2)
    apply(world, "aa", 2, priority=1)
    apply(world, "zz", 2, priority=9)
    world.run(3)
    told = what_if(world, world.runs_on("zz")[0])
    assert [each.workload for each in told.without] == ["zz"]
    assert "it has too little capacity left" in told.without[0].reason
    assert what_if(world, "a", "b").without[0].reason == "there is no host left"


def test_a_chain_is_foretold_in_its_order() -> None:
    world = world_of("a", "b", "c")
    apply(world, "zdb", hosts=("a", "b"))
    apply(world, "app", hosts=("a", "b"), after=("zdb",), together_with=("zdb",))
    apply(world, "aweb", hosts=("a", "b"), after=("app",), together_with=("zdb",))
    world.run(8)
    [where] = world.runs_on("aweb")
    placed = [each.workload for each in what_if(world, where).decisions if each.kind is Kind.PLACED]
    assert placed == ["zdb", "app", "aweb"]


def test_who_is_started_without_the_others_in_the_end_is_foretold_too() -> None:
    world = world_of("a", "b", cpus=4)
    apply(world, "db", 4, hosts=("a",))
    apply(
        world,
        "web",
        0,
        hosts=("a", "b"),
        after=("db",),
        prefer_together_with=("db",),
        on_after_limit=OnAfterLimit.START,
    )
    world.run(4)
    assert world.runs_on("web") == ["a"]
    told = what_if(world, "a")
    assert [each.workload for each in told.without] == ["db"]
    assert [each.workload for each in told.decisions if each.kind is Kind.PLACED] == ["web"]


def test_a_hot_machine_is_taken_over_and_followed_anew() -> None:
    world = world_of("a", "b", "c")
    world.apply(machine("db"))
    world.run(6)
    placed = world.placement("db")
    assert placed.paired
    told = what_if(world, placed.host or "")
    [third] = {"a", "b", "c"} - {placed.host, placed.standby}
    assert [(each.kind, each.host, each.generation) for each in told.decisions] == [
        (Kind.TAKEN_OVER, placed.standby, placed.generation + 1),
        (Kind.FOLLOWED, third, placed.generation + 1),
    ]
    followed = what_if(world, placed.standby or "").decisions
    assert [(each.kind, each.host) for each in followed] == [(Kind.FOLLOWED, third)]


def test_when_the_leader_is_lost_another_decides_and_any_host_can_tell() -> None:
    world = world_of("a", "b", "c")
    apply(world, "web")
    world.run(3)
    leads = world.leads()
    assert leads is not None
    for asked in {"a", "b", "c"} - {leads}:
        told = what_if(world, leads, asked=asked)
        assert told.leader == asked
        assert told.without == ()


def test_what_takes_too_long_is_told_as_not_whole() -> None:
    world = world_of("a", "b")
    apply(world, "web")
    world.run(3)
    leads = world.hosts[world.leads() or ""].leader
    told = foretell(leads, frozenset(world.runs_on("web")), go_on=lambda: False)
    assert (told.whole, told.decisions) == (False, ())


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[tuple[str, float, str]], list[Workload], list[str]]:
    names = ["a", "b", "c", "d"][: draw(st.integers(2, 4))]
    hosts = [(name, float(draw(st.integers(1, 6))), draw(st.sampled_from(["north", "south"]))) for name in names]
    workloads = []
    for number in range(draw(st.integers(1, 5))):
        other = (f"w{draw(st.integers(0, number - 1))}",) if number else ()
        rule = draw(st.sampled_from(("none", "together_with", "apart_from", "prefer_together_with", "sites", "group")))
        fixed: dict[str, dict[str, Any]] = {"none": {}, "sites": {"sites": ("north",)}, "group": {"group": "g"}}
        value = fixed.get(rule, {rule: other})
        workloads.append(
            service(
                f"w{number}",
                resources=Capacity(draw(st.integers(0, 3)), 0),
                priority=draw(st.sampled_from((1, 100, 900))),
                after=draw(st.sampled_from(((), other))),
                placement=PlacementRules(**value),
            )
        )
    lost = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names) - 1, unique=True))
    return hosts, workloads, lost


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters())
def test_what_is_foretold_is_what_then_happens(
    cluster: tuple[list[tuple[str, float, str]], list[Workload], list[str]],
) -> None:
    hosts, workloads, lost = cluster
    world = SmallWorld(timing=None)
    for name, cpus, site in hosts:
        world.boot(host(name, site=site, capacity=Capacity(cpus, 16384)))
    world.run(2)
    for each in workloads:
        world.apply(each)
    world.run(8)
    asked = next(name for name, _, _ in hosts if name not in lost)
    leads = world.leads()
    told = what_if(world, *lost, asked=leads if leads not in lost else asked)
    world.off |= set(lost)
    world.run(18)
    then = places(world)
    moved = {each.workload: each.host for each in told.decisions if each.kind is Kind.PLACED}
    assert {name: then.get(name) for name in moved} == moved
    stand = {name for name, where in then.items() if where is not None and where not in lost}
    assert {each.workload for each in told.without} == {each.name for each in workloads} - stand
