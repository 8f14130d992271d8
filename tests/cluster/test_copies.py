"""Which hosts keep which packages: enough of them, in several sites, and no copy is dropped that may be needed."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map
from msgspec.structs import replace as replace_state

from outlive.cluster import copies
from outlive.cluster import records as rec
from outlive.cluster.commands import Purpose, Transact
from outlive.cluster.host import Capacity, Host
from outlive.cluster.leader_state import LeaderState, Turn
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.pushed import DepotRecord, PackageRecord, PackageUse, copies_of, package_problem, use_problem
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import Put
from outlive.cluster.workload import Module, Workload

A, B = "a" * 64, "b" * 64
APP = PackageRecord("app", "1.0.0", A, {"lib": "^1"})
LIB = PackageRecord("lib", "1.0.0", B)


def member(name: str, site: str = "here") -> Host:
    return Host(name, site, "10.0.0.1", 7900, 7901, Capacity(4, 8192))


def entries(*records: Any) -> Any:
    def name(record: Any) -> str:
        match record:
            case Host():
                return record.name
            case PackageRecord():
                return record.key
            case DepotRecord():
                return record.host
            case rec.WorkloadRecord():
                return record.workload.name
            case _:
                return str(record.workload)

    return Map({name(record): Entry(record, 1, 1) for record in records})


def turn_for(mirror: Mirror, **verdicts: rec.Verdict) -> Turn:
    return Turn(LeaderState("a", Timing(), mirror=mirror, verdicts=Map(verdicts)))


def kept_by(turn: Turn, package: PackageRecord) -> tuple[str, ...]:
    return copies.keepers(turn, package, copies.survey(turn))


def test_small_clusters_keep_packages_everywhere_and_large_ones_twice() -> None:
    assert [copies_of(APP, hosts) for hosts in (1, 3, 4, 50)] == [1, 3, 2, 2]
    assert copies_of(replace(APP, copies=5), 50) == 5


def test_copies_are_spread_over_sites_and_stay_where_they_are() -> None:
    hosts = entries(*(member(name, site) for name, site in zip("abcdef", "xxxyyy", strict=True)))
    turn = turn_for(Mirror(hosts=hosts))
    assert kept_by(turn, replace(APP, hosts=("b",))) == ("b", "d")
    assert kept_by(turn, replace(APP, hosts=("c", "f"))) == ("c", "f")


def test_a_dead_hosts_copy_is_replaced_and_a_suspects_is_not() -> None:
    hosts = entries(*(member(name) for name in "abcd"))
    record = replace(APP, hosts=("b", "c"))
    assert kept_by(turn_for(Mirror(hosts=hosts), b=rec.Verdict.SUSPECT), record) == ("b", "c")
    assert kept_by(turn_for(Mirror(hosts=hosts), b=rec.Verdict.DEAD), record) == ("a", "c")


def written(turn: Turn) -> list[str]:
    return [each.purpose.subject for each in turn.commands if isinstance(each, Transact)]


def many(count: int, **changes: Any) -> Any:
    return entries(*(replace(APP, name=f"p{n:03}", id=f"{n:064x}", **changes) for n in range(count)))


LEADS: dict[str, Any] = {
    "leader": Entry(rec.LeaderRecord("a"), 1, 1),
    "hosts": entries(*(member(name) for name in "abcd")),
}


def test_only_so_many_records_are_written_in_a_turn_and_each_has_its_turn() -> None:
    turn = turn_for(Mirror(packages=many(40), **LEADS))
    keys: list[str] = []
    for _ in range(3):
        copies.tend_all(turn)
        assert len(written(turn)) <= copies.SEEN_TO_AT_ONCE
        keys += written(turn)
        assert turn.state.copies_due == (len(keys) < 40)
        turn = Turn(turn.state)
    assert len(keys) == len(set(keys)) == 40


def test_keepers_are_chosen_evenly_within_a_turn() -> None:
    turn = turn_for(Mirror(packages=many(10, copies=1), **LEADS))
    copies.tend_all(turn)
    puts = [
        rec.decode(write.key, write.value)
        for each in turn.commands
        if isinstance(each, Transact)
        for write in each.transaction.writes
        if isinstance(write, Put)
    ]
    chosen = [host for record in puts if isinstance(record, PackageRecord) for host in record.hosts]
    assert sorted(chosen.count(host) for host in "abcd") == [2, 2, 3, 3]


def test_keepers_are_looked_at_again_only_when_something_they_rest_on_has_changed() -> None:
    held = replace(APP, hosts=("a", "b"))
    has = {host: DepotRecord(host, {A: APP.key}) for host in "abc"}
    well = Mirror(packages=entries(held), depots=entries(has["a"], has["b"]), **LEADS)
    turn = turn_for(well)
    copies.tend_all(turn)
    assert (turn.state.unchosen, turn.commands) == ((), [])
    settled = turn.state
    turn = Turn(replace_state(settled, verdicts=Map(b=rec.Verdict.DEAD)))
    copies.tend_all(turn)
    assert written(turn) == [rec.PACKAGES + held.key]
    turn = Turn(replace_state(settled, at=5.0))
    copies.tend_all(turn)
    assert turn.state.chosen_on is settled.chosen_on


def runs_web(*, host: str) -> dict[str, Any]:
    web = Workload("web", (Module("main", ("x",)),), package=PackageUse("app", "", "1.0.0", A))
    return {
        "workloads": entries(rec.WorkloadRecord(web)),
        "placements": entries(rec.PlacementRecord("web", 3, host, 7)),
        "there": Map({host: frozenset({"web"})}),
    }


def test_a_choice_whose_writing_nobody_knows_of_is_written_again() -> None:
    kept = replace(APP, hosts=("a", "b"))
    hosts, has = entries(*(member(name) for name in "abc")), entries(DepotRecord("a", {A: APP.key}, {}))
    leads = Entry(rec.LeaderRecord("a"), 1, 1)
    turn = turn_for(Mirror(leader=leads, hosts=hosts, packages=entries(kept), depots=has), b=rec.Verdict.DEAD)
    written = list[Purpose]()
    for second in range(30):
        turn = Turn(replace_state(turn.state, at=float(second)))
        copies.tend_all(turn)
        written += [each.purpose for each in turn.commands if isinstance(each, Transact)]
    assert len(written) > 1
    assert len(written) < 30, "one that may be under way is waited for"


def test_a_host_keeps_what_it_is_named_for_and_what_runs_there() -> None:
    picture = Mirror(packages=entries(replace(APP, hosts=("b",)), LIB), **runs_web(host="a"))
    assert [each.pinned.key for each in copies.kept_on(picture, "a").kept] == ["app@1.0.0"]
    assert [each.pinned.key for each in copies.kept_on(picture, "b").kept] == ["app@1.0.0"]
    assert copies.kept_on(picture, "c").kept == ()


def test_a_copy_too_many_goes_only_once_all_that_are_named_have_theirs() -> None:
    record = replace(APP, hosts=("b", "c"))
    has = {name: DepotRecord(name, {A: "app@1.0.0"}) for name in "abc"}
    one_lacks_it = Mirror(packages=entries(record), depots=entries(has["a"], has["b"], DepotRecord("c")))
    assert copies.kept_on(one_lacks_it, "a").free == ()
    all_have_it = Mirror(packages=entries(record), depots=entries(*has.values()))
    assert copies.kept_on(all_have_it, "a").free == (A,)
    assert copies.kept_on(all_have_it, "b").free == ()
    used_there = Mirror(packages=entries(record), depots=entries(*has.values()), **runs_web(host="a"))
    assert copies.kept_on(used_there, "a").free == ()


def test_a_package_that_is_being_removed_is_kept_until_its_record_is_gone() -> None:
    has = entries(*(DepotRecord(name, {A: "app@1.0.0"}) for name in "ab"))
    going = Mirror(packages=entries(replace(APP, hosts=("a", "b"), removing=True)), depots=has)
    assert copies.kept_on(going, "a").free == ()
    assert copies.kept_on(Mirror(depots=has), "a").free == (A,)


def test_users_are_workloads_and_packages_that_nothing_else_would_serve() -> None:
    picture = Mirror(packages=entries(APP, LIB), **runs_web(host="a"))
    assert [str(user) for user in copies.users(picture, APP)] == ["workload web"]
    assert [str(user) for user in copies.users(picture, LIB)] == ["package app@1.0.0"]
    newer = replace(LIB, version="1.1.0", id="c" * 64)
    assert copies.users(replace(picture, packages=entries(APP, LIB, newer)), LIB) == ()


def test_records_that_cannot_be_are_refused() -> None:
    assert package_problem(APP) == ""
    assert "no version" not in package_problem(replace(APP, id="../x"))
    assert package_problem(replace(APP, id="../x")) == "it names no content"
    assert package_problem(replace(APP, version="latest"))
    assert package_problem(replace(APP, name="../app"))
    assert use_problem(PackageUse("app")) == "no version of its package app was chosen"
    assert use_problem(PackageUse("app", "", "1.0.0", "x")) == "'app@1.0.0' is no package"
    assert use_problem(PackageUse("app", "", "1.0.0", A)) == ""


@given(
    st.sampled_from(["packages/app@1.0.0", "depots/a", "workloads/web"]),
    st.binary(max_size=200) | st.text().map(str.encode),
)
def test_any_bytes_in_the_store_are_read_or_refused(key: str, value: bytes) -> None:
    with suppress(rec.BadRecord):
        rec.decode(key, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(APP.__slots__)), JSON))
def test_a_package_with_any_values_is_read_or_refused(changes: dict[str, Any]) -> None:
    document = msgspec.to_builtins(APP) | changes
    with suppress(rec.BadRecord):
        rec.decode(f"packages/{APP.key}", msgspec.json.encode(document))
