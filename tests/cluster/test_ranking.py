"""Who looks at a few hosts of very many chooses as one that looks at all, and says the same where there is none."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.affinity import ALONE, Company
from outlive.cluster.heartbeat import Flags
from outlive.cluster.host import Capacity, Host
from outlive.cluster.placement import Candidate, choose, choose_standby
from outlive.cluster.ranking import Ranking
from outlive.cluster.records import PlacementRecord, Verdict
from outlive.cluster.workload import Apart, PlacementRules, Workload

NAMES = tuple("abcdefgh")
SITES = ("east", "west", "north")
names, sites = st.sampled_from(NAMES), st.sampled_from(SITES)
capacities = st.builds(Capacity, st.integers(0, 4), st.integers(0, 4))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for name in NAMES:
        labels = draw(st.dictionaries(st.just("disk"), st.sampled_from(("fast", "slow"))))
        found.append(
            Candidate(
                Host(name, draw(sites), "::1", 1, 1, Capacity(4, 4), labels),
                draw(st.sampled_from((Verdict.ALIVE, Verdict.ALIVE, Verdict.ALIVE, Verdict.DEAD))),
                draw(st.integers(0, 7)) > 0,
                draw(st.sampled_from((Flags.NONE, Flags.NONE, Flags.NONE, Flags.ISOLATED))),
                draw(capacities),
                draw(st.integers(0, 3)),
                draw(st.integers(0, 7)) == 0,
            )
        )
    return found


some = st.lists(names, max_size=2, unique=True).map(tuple)
rules = st.builds(
    PlacementRules,
    sites=st.one_of(st.just(()), st.lists(sites, max_size=2, unique=True).map(tuple)),
    hosts=st.one_of(st.just(()), st.just(()), some),
    labels=st.one_of(st.just({}), st.just({"disk": "fast"})),
    prefer_sites=st.one_of(st.just(()), st.lists(sites, max_size=2, unique=True).map(tuple)),
    apart=st.sampled_from(Apart),
)
workloads = st.builds(Workload, st.just("w"), st.just(()), resources=capacities, placement=rules)
reasons = st.dictionaries(names, st.sampled_from(("it failed there", "it is starting others")), max_size=4)
numbers = st.dictionaries(names, st.integers(-1, 2), max_size=3)
companies = st.one_of(
    st.just(ALONE),
    st.builds(
        Company,
        waits=st.one_of(st.just(""), st.just(""), st.just("it goes where another is")),
        only=st.one_of(st.none(), st.none(), st.tuples(names, st.just("it goes where another is"))),
        refused=reasons,
        refused_sites=st.dictionaries(sites, st.just("another is in its site"), max_size=1),
        liked=numbers,
        near=numbers,
        near_site=st.dictionaries(sites, st.integers(1, 2), max_size=2),
        escort=st.one_of(st.just(()), st.just(()), st.just(((Workload("x", (), resources=Capacity(1, 1)), "a"),))),
    ),
)
uses = st.lists(st.tuples(names, st.tuples(capacities, st.integers(0, 4))), max_size=4)
asks = st.lists(st.tuples(workloads, reasons, st.one_of(st.none(), names), companies), min_size=1, max_size=5)


@given(candidates(), uses, uses.map(dict), asks)
def test_the_few_have_the_best_of_all_among_them(
    hosts: list[Candidate],
    used: list[tuple[str, tuple[Capacity, int]]],
    seen: dict[str, tuple[Capacity, int]],
    asks: list[tuple[Workload, dict[str, str], str | None, Company]],
) -> None:
    ranking = Ranking(hosts)
    for number, (workload, avoid, prefer, company) in enumerate(asks):
        for name, amount in used[number : number + 1]:
            ranking.use(name, amount)
            hosts = [_using(each, amount) if each.host.name == name else each for each in hosts]
        mine = [_using(each, seen[each.host.name]) if each.host.name in seen else each for each in hosts]
        view = ranking.seen(seen)
        expected = choose(workload, mine, avoid, prefer, (), company)
        assert view.choose(workload, avoid, prefer, (), company).host == expected.host
        if expected.host is None:
            assert view.why_none(workload, avoid, (), company) == expected.told()
        plain = choose(workload, hosts, {})
        assert ranking.seen({}).choose(workload, {}).host == plain.host
        if plain.host is None:
            assert ranking.seen({}).why_none(workload, {}) == plain.told()


def _using(each: Candidate, amount: tuple[Capacity, int]) -> Candidate:
    return replace(each, used=amount[0], workloads=amount[1])


@given(candidates(), uses.map(dict), workloads, some, st.one_of(st.none(), names), companies, names)
def test_the_same_holds_of_standbys(
    hosts: list[Candidate],
    seen: dict[str, tuple[Capacity, int]],
    workload: Workload,
    others: tuple[str, ...],
    prefer: str | None,
    company: Company,
    primary: str,
) -> None:
    placed = PlacementRecord("w", 1, primary, copies=others)
    mine = [_using(each, seen[each.host.name]) if each.host.name in seen else each for each in hosts]
    expected = choose_standby(workload, mine, placed, frozenset(others[:1]), prefer, company)
    found = Ranking(hosts).seen(seen).choose_standby(workload, placed, frozenset(others[:1]), prefer, company)
    assert found.host == expected.host
    assert found.host is not None or found == expected


def test_what_nobody_had_room_for_is_not_held_against_every_host_again_until_there_is_more() -> None:
    hosts = [Host(f"h{number:03}", "s", "::1", 1, 1, Capacity(4, 4)) for number in range(100)]
    full = [Candidate(each, Verdict.ALIVE, True, Flags.NONE, Capacity(3, 0), 1) for each in hosts]
    ranking = Ranking(full)
    small, large = (Workload("w", (), resources=Capacity(cpus, 1)) for cpus in (2, 3))
    assert ranking.seen({}).choose(small, {}).host is None
    looked = ranking.looked
    assert ranking.seen({}).choose(large, {}).host is None
    assert ranking.looked == looked
    ranking.use("h050", (Capacity(2, 0), 1))
    assert ranking.seen({}).choose(small, {}).host == "h050"
    assert ranking.seen({}).choose(large, {}).host is None
