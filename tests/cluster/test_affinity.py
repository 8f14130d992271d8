"""Rules between workloads: what they make of hosts, in which order things go, and when they contradict each other."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from outlive.cluster import mirror, ordering
from outlive.cluster import records as rec
from outlive.cluster.affinity import ALONE, Company, Neighbours, Relations, contradiction
from outlive.cluster.heartbeat import Flags
from outlive.cluster.host import Capacity, Host
from outlive.cluster.placement import Candidate, Choice, choose, choose_standby
from outlive.cluster.workload import Apart, Module, PlacementRules, Workload

from .small_world import SmallWorld, machine, service

SITES = {"a": "north", "b": "north", "c": "south", "d": "south"}


def workload(name: str, *, cpus: float = 1, after: tuple[str, ...] = (), priority: int = 100, **rules: Any) -> Workload:
    return Workload(
        name,
        (Module("main", ("/bin/true",)),),
        resources=Capacity(cpus, 0),
        after=after,
        priority=priority,
        placement=PlacementRules(**rules),
    )


def placed(name: str, host: str | None, **more: Any) -> rec.PlacementRecord:
    return rec.PlacementRecord(name, 1, host, **more)


def candidate(
    name: str, *, free: float = 4, site: str | None = None, labels: dict[str, str] | None = None
) -> Candidate:
    host = Host(name, site or SITES[name], f"10.0.0.{ord(name)}", 1, 2, Capacity(free, 100), labels or {}, ("shared",))
    return Candidate(host, rec.Verdict.ALIVE, True, Flags.DATASTORE_REACHABLE, Capacity(), 0)


HOSTS = [candidate(name) for name in SITES]


def company_of(one: Workload, others: list[Workload], *places: rec.PlacementRecord, standby: bool = False) -> Company:
    known = {each.name: each for each in (one, *others)}
    where = {each.workload: each for each in places}
    hosts = {each.host.name: each.host for each in HOSTS}
    around = Neighbours(Relations(known), known, lambda name: name in known, where.get, hosts.get)
    return around.company(one, standby=standby)


def chosen(one: Workload, others: list[Workload], *places: rec.PlacementRecord) -> Choice:
    return choose(one, HOSTS, {}, company=company_of(one, others, *places))


def test_who_has_no_rules_about_others_is_alone() -> None:
    assert company_of(workload("one"), [workload("other")], placed("other", "a")) is ALONE


def test_apart_from_keeps_away_from_where_the_other_runs_follows_and_moves_to() -> None:
    one, other = workload("one", apart_from=("other",)), workload("other")
    there = placed("other", "a", standby="b", moving_to="c")
    assert chosen(one, [other], there).host == "d"


def test_apart_from_binds_the_one_that_does_not_say_it_as_well() -> None:
    one, other = workload("one"), workload("other", apart_from=("one",))
    choice = chosen(one, [other], placed("other", "a"))
    assert choice.host == "b"
    assert choice.passed_over == {"a": "other is there, and it is to be apart from it"}


def test_apart_by_a_site_keeps_away_from_the_whole_site() -> None:
    one, other = workload("one", apart_from=("other",), apart=Apart.SITE), workload("other")
    choice = chosen(one, [other], placed("other", "a"))
    assert choice.host == "c"
    assert choice.passed_over["b"] == "other is in its site north, and it is to be apart from it"


def test_together_with_goes_where_the_other_is_and_nowhere_else() -> None:
    one, other = workload("one", together_with=("other",)), workload("other")
    choice = chosen(one, [other], placed("other", "c"))
    assert choice.host == "c"
    assert choice.passed_over["a"] == "it goes where other is, on c"


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (None, "it goes where other is, which has no place"),
        (placed("other", "c", order=rec.Order.STOP), "it goes where other is, which is being stopped"),
    ],
)
def test_together_with_waits_while_the_other_has_no_place(there: rec.PlacementRecord | None, why: str) -> None:
    one, other = workload("one", together_with=("other",)), workload("other")
    choice = chosen(one, [other], *([there] if there else []))
    assert (choice.host, choice.told()) == (None, why)


def test_together_with_two_that_are_parted_has_no_place_and_says_why() -> None:
    one = workload("one", together_with=("x", "y"))
    choice = chosen(one, [workload("x"), workload("y")], placed("x", "a"), placed("y", "b"))
    assert choice.told() == "it goes where y is, on b; but it goes where x is, on a"


def test_together_with_one_that_is_not_meant_to_run_binds_to_nothing() -> None:
    assert chosen(workload("one", together_with=("unknown",)), []).host == "a"


def test_who_others_must_follow_is_put_where_there_is_room_for_all() -> None:
    one = workload("one", cpus=3)
    follower = workload("follower", cpus=3, together_with=("one",), sites=("south",))
    hosts = [candidate("a", free=8), candidate("b"), candidate("c"), candidate("d", free=6)]
    assert choose(one, hosts, {}, company=company_of(one, [follower])).host == "d"
    # Where they cannot all be, it does not wait for them.
    assert choose(one, hosts[1:3], {}, company=company_of(one, [follower])).host == "b"


def test_preferences_decide_between_hosts_but_keep_from_none() -> None:
    liked, shunned = workload("liked"), workload("shunned")
    one = workload("one", prefer_together_with=("liked",), prefer_apart_from=("shunned",))
    assert chosen(one, [liked, shunned], placed("liked", "c"), placed("shunned", "a")).host == "c"
    company = company_of(one, [liked, shunned], placed("shunned", "a"))
    assert choose(one, HOSTS[:1], {}, company=company).host == "a"


def test_a_preferred_site_counts_more_than_preferred_company() -> None:
    one, liked = workload("one", prefer_sites=("south",), prefer_together_with=("liked",)), workload("liked")
    assert chosen(one, [liked], placed("liked", "a")).host == "c"


def test_a_group_is_spread_over_sites_first_and_then_over_hosts() -> None:
    group = [workload(f"web{number}", group="web") for number in range(4)]
    places: list[rec.PlacementRecord] = []
    for each in group:
        places.append(placed(each.name, chosen(each, group, *places).host))
    assert [each.host for each in places] == ["a", "c", "b", "d"]


def test_a_standby_keeps_the_rules_of_its_primary() -> None:
    one = workload("one", apart_from=("other",), together_with=("anchor",), prefer_sites=("south",))
    others = [workload("other"), workload("anchor")]
    places = (placed("other", "c"), placed("anchor", "a", standby="d"), placed("one", "a"))
    company = company_of(one, others, *places, standby=True)
    choice = choose_standby(one, HOSTS, placed("one", "a"), company=company)
    assert choice.host == "d"
    assert choice.passed_over["b"] == "it is kept with the standby of anchor, on d"


def test_a_standby_prefers_the_preferred_sites_and_is_only_in_those_that_are_required() -> None:
    one = workload("one", sites=("south", "north"), prefer_sites=("south",))
    assert choose_standby(one, HOSTS, placed("one", "a")).host == "c"
    assert (
        choose_standby(replace(one, placement=PlacementRules(sites=("north",))), HOSTS, placed("one", "a")).host == "b"
    )


def test_what_the_important_need_is_as_important() -> None:
    relations = Relations(
        {
            "db": workload("db", priority=1),
            "app": workload("app", priority=5, after=("db",)),
            "web": workload("web", priority=900, after=("app",)),
            "cache": workload("cache", priority=2, together_with=("db",)),
        }
    )
    ranks = {name: relations.important(workload(name, priority=1)) for name in ("db", "app", "web", "cache")}
    assert ranks == {"db": 900, "app": 900, "web": 1, "cache": 1}


def test_a_circle_of_after_and_together_with_is_found() -> None:
    def entry(each: Workload) -> mirror.Entry[rec.WorkloadRecord]:
        return mirror.Entry(rec.WorkloadRecord(each), 1, 1)

    picture = mirror.Mirror(
        workloads=Map(
            {"one": entry(workload("one", together_with=("two",))), "two": entry(workload("two", after=("one",)))}
        )
    )
    assert ordering.cycle(picture, "one") == ("one", "two", "one")
    assert ordering.waits_for(picture, "one") == "workloads wait for each other: one → two → one"
    assert ordering.looked_at(picture, workload("one", together_with=("two",))) == ("two",)


@pytest.mark.parametrize(
    ("one", "others", "why"),
    [
        (
            workload("a1", together_with=("b1",), apart_from=("c1",)),
            [workload("b1"), workload("c1", together_with=("b1",))],
            "a1 and c1 are to be apart, and rules of a1 and b1 and c1 join them",
        ),
        (
            workload("a1", together_with=("b1",)),
            [workload("b1", apart_from=("a1",))],
            "a1 and b1 are to be apart, and rules of a1 and b1 join them",
        ),
        (
            workload("a1", together_with=("b1",), sites=("north",)),
            [workload("b1", sites=("south",))],
            "there is no site where all of a1, b1 may be",
        ),
        (
            workload("a1", together_with=("b1",), labels={"disk": "fast"}),
            [workload("b1", labels={"disk": "slow"})],
            "no host's label disk can be both fast and slow",
        ),
        (workload("a1", together_with=("b1",), apart_from=("c1",)), [workload("b1"), workload("c1")], None),
        (workload("a1", together_with=("unknown",)), [], None),
    ],
)
def test_what_can_never_be_is_found_when_it_is_said(one: Workload, others: list[Workload], why: str | None) -> None:
    assert contradiction(one, {each.name: each for each in others}) == why


NAMES = tuple(f"w{number}" for number in range(5))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Workload], list[Candidate]]:
    def rules(number: int) -> dict[str, Any]:
        others = draw(st.lists(st.sampled_from([*NAMES[:number], *NAMES[number + 1 :]]), max_size=2, unique=True))
        key = draw(st.sampled_from(("together_with", "apart_from", "prefer_together_with", "prefer_apart_from")))
        return {
            key: tuple(others),
            "apart": draw(st.sampled_from(Apart)),
            "sites": draw(st.sampled_from([(), ("north",)])),
            "labels": draw(st.sampled_from([{}, {"disk": "fast"}])),
            "group": draw(st.sampled_from(["", "g"])),
        }

    names = draw(st.permutations(range(len(NAMES))))
    workloads = [workload(NAMES[n], cpus=draw(st.integers(0, 3)), **rules(n)) for n in names]
    label = st.sampled_from([{}, {"disk": "fast"}])
    hosts = [candidate(name, free=draw(st.integers(0, 6)), labels=draw(label)) for name in SITES]
    return workloads, hosts


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_no_placement_ever_breaks_a_required_rule(cluster: tuple[list[Workload], list[Candidate]]) -> None:
    workloads, hosts = cluster
    places: dict[str, str] = {}
    for each in workloads:
        records = [placed(name, host) for name, host in places.items()]
        company = company_of(each, workloads, *records)
        free = [replace(host, used=_used(workloads, places, host)) for host in hosts]
        host = choose(each, free, {}, company=company).host
        if host is not None:
            places[each.name] = host
    by_name = {each.name: each for each in workloads}
    for name, host in places.items():
        rules = by_name[name].placement
        there = next(each.host for each in hosts if each.host.name == host)
        assert not rules.sites or there.site in rules.sites
        assert rules.labels.items() <= there.labels.items()
        assert _used(workloads, places, candidate(host)).cpus <= there.capacity.cpus
        for other in rules.apart_from:
            near = {host} if rules.apart is Apart.HOST else {each for each in SITES if SITES[each] == SITES[host]}
            assert places.get(other) not in near
        # Who goes where another is was placed after it, unless that one was not there to be followed.
        for anchor in rules.together_with:
            assert places.get(anchor) == host


def _used(workloads: list[Workload], places: dict[str, str], host: Candidate) -> Capacity:
    here = [each.resources for each in workloads if places.get(each.name) == host.host.name]
    return sum(here, Capacity())


def test_who_is_to_be_apart_from_one_whose_placement_nobody_can_read_is_placed_all_the_same() -> None:
    world = SmallWorld("a", "b")
    world.run(2)
    world.store.put(rec.PLACEMENTS + "vm", b"?")
    world.apply(machine("vm"))
    world.apply(service("web", placement=PlacementRules(apart_from=("vm",))))
    world.run(8)
    assert len(world.runs_on("web")) == 1
    told = [event.text for event in world.happened if event.kind == "record.unreadable"]
    assert told[-1] == "its placement is lost, and nobody remembers which host has its disks"
    assert len(told) <= 4, "not again and again"
