"""How many hosts may be lost: what is told is true, also beside a search through every possible placement."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from outlive.cluster import records as rec
from outlive.cluster.admission import Losable, losable
from outlive.cluster.host import Capacity, Host
from outlive.cluster.machine import LOCAL, Disk, Machine
from outlive.cluster.mirror import ClaimSeen, Entry, Mirror
from outlive.cluster.workload import Apart, Kind, Module, OnAfterLimit, PlacementRules, Protection, Workload

CLAIM = rec.ClaimRecord("h", "boot", "run", 1, 1)


def host(name: str, cpus: float, site: str = "here", **more: Any) -> Host:
    return Host(name, site, "10.0.0.1", 1, 2, Capacity(cpus, 1000), datastores=("shared",), **more)


def workload(name: str, cpus: float = 1, **more: Any) -> Workload:
    rules = {key: more.pop(key) for key in tuple(more) if key in PlacementRules.__slots__}
    modules = (Module("main", ("/bin/true",)),)
    return Workload(name, modules, resources=Capacity(cpus, 0), placement=PlacementRules(**rules), **more)


def picture(hosts: list[Host], places: Sequence[tuple[Workload, str | None]], **more: rec.PlacementRecord) -> Mirror:
    def entries(records: dict[str, Any]) -> Any:
        return Map({name: Entry(record, 1, 1) for name, record in records.items()})

    placed = {each.name: rec.PlacementRecord(each.name, 1, where, 1) for each, where in places}
    return Mirror(
        hosts=entries({each.name: each for each in hosts}),
        claims=Map({each.name: ClaimSeen(1, True, 0.0, 1, CLAIM, 0.0) for each in hosts}),
        verdicts=entries({each.name: rec.VerdictRecord(each.name, rec.Verdict.ALIVE) for each in hosts}),
        workloads=entries({each.name: rec.WorkloadRecord(each) for each, _ in places}),
        placements=entries({**placed, **more}),
    )


def test_without_workloads_all_hosts_but_one_may_go() -> None:
    assert losable(picture([host("a", 1), host("b", 1)], [])) == Losable(1, True)


def test_each_on_its_own_could_go_elsewhere_but_not_all_together() -> None:
    found = losable(
        picture(
            [host("a", 2), host("b", 2), host("c", 2)],
            [(workload("one", 2), "a"), (workload("two", 1), "b"), (workload("three", 1), "c")],
        )
    )
    assert (found.hosts, found.exact, found.worst) == (0, True, ("a",))
    assert [each.workload for each in found.without] == ["one"]
    assert found.without[0].reason.endswith("b and c: it has too little capacity left")
    assert found.told() == "it can lose 0 hosts"


def test_what_has_no_place_even_now_is_told_as_that() -> None:
    found = losable(picture([host("a", 2), host("b", 2)], [(workload("one", 4), None)]))
    assert (found.hosts, found.worst, found.told()) == (0, (), "not everything has a place even now")
    assert found.without[0].workload == "one"


def test_the_less_important_is_told_to_be_without_a_place() -> None:
    places = [(workload("aa", 2, priority=1), "a"), (workload("zz", 2, priority=9), "b")]
    found = losable(picture([host("a", 2), host("b", 2), host("c", 2)], places))
    assert (found.hosts, found.worst) == (1, ("a", "b"))
    assert [each.workload for each in found.without] == ["aa"]


def test_what_must_be_apart_needs_a_host_each() -> None:
    pair = [(workload("one", 0, apart_from=("two",)), "a"), (workload("two", 0), "b")]
    assert losable(picture([host("a", 1), host("b", 1)], pair)).hosts == 0
    assert losable(picture([host("a", 1), host("b", 1), host("c", 1)], pair)).hosts == 1


def test_what_must_be_together_is_lost_and_placed_together() -> None:
    pair = [(workload("one", 2, together_with=("two",)), "a"), (workload("two", 2), "a")]
    assert losable(picture([host("a", 4), host("b", 2), host("c", 4)], pair)).hosts == 1
    assert losable(picture([host("a", 4), host("b", 3), host("c", 3)], pair)).hosts == 0


def test_disks_on_one_host_alone_are_lost_with_it() -> None:
    machine = Machine(disks=(Disk("root", on=LOCAL, size_mib=64),))
    db = workload("db", 1, kind=Kind.VM, machine=machine)
    placed = rec.PlacementRecord("db", 1, "a", 1, disk_hosts=("a",))
    found = losable(picture([host("a", 4), host("b", 4)], [(db, "a")], db=placed))
    assert (found.hosts, found.without[0].reason) == (0, "no host can have it: b: its disks are on a alone")


def test_a_standby_takes_over_on_room_that_it_has() -> None:
    hot = workload("hot", 2, kind=Kind.VM, protection=Protection.HOT, machine=Machine())
    placed = rec.PlacementRecord("hot", 1, "a", 1, standby="b", standby_claim=1, pairing=1, paired=True)
    full = [host("a", 2), host("b", 2), host("c", 1)]
    assert losable(picture(full, [(hot, "a")], hot=placed)).hosts == 1


def test_what_comes_after_something_that_has_no_place_does_not_run_either() -> None:
    places = [(workload("db", 2, hosts=("a",)), "a"), (workload("web", 0, after=("db",)), "a")]
    found = losable(picture([host("a", 2), host("b", 2)], places))
    assert [each.workload for each in found.without] == ["db", "web"]
    assert found.without[1].reason == "it comes after db, which would not run"
    hasty = [places[0], (workload("web", 0, after=("db",), on_after_limit=OnAfterLimit.START), "a")]
    assert [each.workload for each in losable(picture([host("a", 2), host("b", 2)], hasty)).without] == ["db"]


def test_hosts_in_maintenance_offer_nothing_but_may_be_lost() -> None:
    hosts = [host("a", 2), host("b", 2)]
    emptied: Any = Map({"b": Entry(rec.MaintenanceRecord("b"), 1, 1)})
    first = picture(hosts, [(workload("one", 1), "a")])
    assert losable(replace(first, maintenance=emptied)).hosts == 0
    second = picture([*hosts, host("c", 2)], [(workload("one", 1), "b")])
    assert losable(replace(second, maintenance=emptied)).hosts == 2


@pytest.mark.parametrize("count", [30, 400])
def test_many_hosts_are_counted_in_bounded_time_and_never_too_high(count: int) -> None:
    hosts = [host(f"h{number}", 10, site=f"s{number % 4}") for number in range(count)]
    places = [(workload(f"w{number}", 2), f"h{number % count}") for number in range(count * 2)]
    found = losable(picture(hosts, places), most_looks=2000)
    # Four of ten processors are used: slots allow for 3 of 5 hosts at the most.
    assert count * 2 // 5 <= found.hosts <= count * 3 // 5
    tight = [(workload(f"w{number}", 2), f"h{number % count}") for number in range(count * 5)]
    none = losable(picture(hosts, tight), most_looks=2000)
    assert (none.hosts, none.exact, len(none.worst)) == (0, True, 1)


RULES = st.fixed_dictionaries(
    {},
    optional={
        "sites": st.just(("north",)),
        "hosts": st.sets(st.sampled_from("abcd"), min_size=1).map(lambda names: tuple(sorted(names))),
        "apart": st.sampled_from(Apart),
    },
)


@st.composite
def clusters(draw: st.DrawFn) -> Mirror:
    hosts = [host(name, draw(st.integers(0, 4)), draw(st.sampled_from(["north", "south"]))) for name in "abcd"]
    hosts = hosts[: draw(st.integers(2, 4))]
    places = []
    free = {each.name: each.capacity.cpus for each in hosts}
    for number in range(draw(st.integers(0, 4))):
        rules = draw(RULES)
        if number and draw(st.booleans()):
            rules[draw(st.sampled_from(("apart_from", "together_with")))] = (f"w{draw(st.integers(0, number - 1))}",)
        one = workload(f"w{number}", draw(st.integers(0, 3)), priority=draw(st.sampled_from((1, 9))), **rules)
        fits = [name for name in free if free[name] >= one.resources.cpus]
        where = draw(st.sampled_from(fits)) if fits else None
        if where is not None:
            free[where] -= one.resources.cpus
        places.append((one, where))
    return picture(hosts, places)


@settings(max_examples=80, deadline=None)
@given(clusters(), st.sampled_from([0, 60_000]))
def test_the_number_is_never_higher_than_what_any_placement_could_do(mirror: Mirror, most_looks: int) -> None:
    told = losable(mirror, most_looks)
    for lost in combinations(sorted(mirror.hosts), told.hosts):
        if told.hosts and mirror.workloads:
            assert _possible(mirror, frozenset(lost)), (told, lost)


def _possible(mirror: Mirror, lost: frozenset[str]) -> bool:
    """Whether there is any way to place what these hosts ran on those that are left, by trying all of them."""
    left = [entry.record for name, entry in sorted(mirror.hosts.items()) if name not in lost]
    workloads = {name: entry.record.workload for name, entry in mirror.workloads.items()}
    stays = {name: entry.record.host for name, entry in mirror.placements.items()}
    moving = [name for name in sorted(workloads) if stays.get(name) in lost or stays.get(name) is None]
    for chosen in product(left, repeat=len(moving)):
        where = {name: mirror.hosts[at].record for name, at in stays.items() if at and at not in lost}
        where |= dict(zip(moving, chosen, strict=True))
        if all(_is_right(workloads, where, name) for name in moving) and _fits(workloads, where):
            return True
    return False


def _fits(workloads: dict[str, Workload], where: dict[str, Host]) -> bool:
    used: dict[str, float] = {}
    for name, at in where.items():
        used[at.name] = used.get(at.name, 0) + workloads[name].resources.cpus
    return all(used.get(at.name, 0) <= at.capacity.cpus for at in where.values())


def _is_right(workloads: dict[str, Workload], where: dict[str, Host], name: str) -> bool:
    rules, at = workloads[name].placement, where[name]
    if (rules.hosts and at.name not in rules.hosts) or (rules.sites and at.site not in rules.sites):
        return False
    if any(where[other].name != at.name for other in rules.together_with):
        return False
    for other, there in where.items():
        mutual = (name, other), (other, name)
        for one, two in mutual:
            own = workloads[one].placement
            near = there.name == at.name or (own.apart is Apart.SITE and there.site == at.site)
            if two in own.apart_from and other != name and near:
                return False
    return True
