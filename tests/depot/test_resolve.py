"""What is chosen suits everybody, whenever anything does; and when nothing does, it is told why."""

from collections.abc import Iterable, Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.package import Manifest
from outlive.cluster.versions import Version, Wanted, parse_range, parse_version, parse_wanted
from outlive.depot.errors import DependencyConflict, DependencyCycle, PackageMissing
from outlive.depot.resolve import MOST_CHOSEN, Known, known, resolve
from outlive.errors import OutliveError


def package(name: str, version: str, *wants: str) -> Known:
    return Known(name, parse_version(version), f"{name}-{version}", tuple(parse_wanted(want) for want in wants))


def chosen(wanted: str, packages: Iterable[Known], **keep: str) -> list[str]:
    wishes = [parse_wanted(each) for each in wanted.split()]
    found = resolve(wishes, packages, keep={name: parse_version(text) for name, text in keep.items()})
    return [f"{one.name}-{one.version}" for one in found]


def refused(wanted: str, packages: Iterable[Known]) -> OutliveError:
    with pytest.raises(OutliveError) as caught:
        chosen(wanted, packages)
    return caught.value


def test_the_newest_that_will_do_is_chosen_with_what_it_needs_before_it() -> None:
    there = [
        package("web", "1.0.0"),
        package("web", "1.1.0", "tls@^2", "lib"),
        package("web", "2.0.0"),
        package("lib", "1.0.0", "tls"),
        package("tls", "2.1.0"),
        package("tls", "3.0.0"),
        package("else", "1.0.0"),
    ]
    assert chosen("web@^1", there) == ["tls-2.1.0", "lib-1.0.0", "web-1.1.0"]
    assert chosen("web", there) == ["web-2.0.0"]
    assert chosen("", there) == []


def test_an_older_version_is_chosen_where_the_newest_does_not_go_together() -> None:
    there = [
        package("web", "1.0.0", "lib@^1"),
        package("web", "1.1.0", "lib@^2", "tls@^1"),
        package("lib", "1.0.0"),
        package("lib", "2.0.0", "tls@^2"),
        package("tls", "1.0.0"),
        package("tls", "2.0.0"),
    ]
    assert chosen("web", there) == ["lib-1.0.0", "web-1.0.0"]


def test_what_is_in_use_is_kept_where_it_will_do() -> None:
    there = [package("web", "1.0.0", "lib"), package("lib", "1.0.0"), package("lib", "1.1.0")]
    assert chosen("web", there, lib="1.0.0") == ["lib-1.0.0", "web-1.0.0"]
    assert chosen("web lib@^1.1", there, lib="1.0.0") == ["lib-1.1.0", "web-1.0.0"]


def test_a_package_that_is_nowhere_is_named_with_who_wants_it() -> None:
    error = refused("web", [package("web", "1.0.0", "lib@^1")])
    assert isinstance(error, PackageMissing)
    assert error.sentence == "There is no package lib."
    assert error.cause == "web 1.0.0 wants lib@^1"
    assert refused("web", []).cause == "web@* is asked for"


def test_a_version_that_is_nowhere_is_named_with_those_that_there_are() -> None:
    error = refused("web", [package("web", "1.0.0", "lib@^3"), package("lib", "1.0.0"), package("lib", "2.0.0")])
    assert isinstance(error, PackageMissing)
    assert error.sentence == "There is no version ^3 of the package lib."
    assert error.cause == "web 1.0.0 wants lib@^3; there are 2.0.0, 1.0.0"


def test_a_conflict_says_who_wants_what() -> None:
    there = [
        package("web", "1.0.0", "a", "b"),
        package("a", "1.0.0", "lib@^1"),
        package("b", "1.0.0", "lib@^2"),
        package("lib", "1.0.0"),
        package("lib", "2.0.0"),
    ]
    error = refused("web", there)
    assert isinstance(error, DependencyConflict)
    assert error.sentence == "No version of the package lib suits everybody who needs it."
    assert error.cause == "a 1.0.0 wants lib@^1; b 1.0.0 wants lib@^2; there are 2.0.0, 1.0.0"


def test_a_conflict_with_what_was_chosen_before_says_so() -> None:
    there = [package("web", "1.0.0", "lib@^1"), package("lib", "1.0.0", "web@^2"), package("web", "2.0.0", "lib@^3")]
    error = refused("web@^1", there)
    assert isinstance(error, OutliveError)
    assert "web@^1 is asked for; lib 1.0.0 wants web@^2" in error.cause or "circle" in error.sentence


def test_a_circle_is_named() -> None:
    there = [package("a", "1.0.0", "b"), package("b", "1.2.0", "c@^1"), package("c", "1.0.0", "a")]
    error = refused("a", there)
    assert isinstance(error, DependencyCycle)
    assert error.sentence == (
        "Packages depend on each other in a circle: c 1.0.0 needs a 1.0.0 needs b 1.2.0 needs c 1.0.0."
    )


def test_a_version_without_the_circle_is_chosen_instead() -> None:
    there = [package("a", "1.0.0", "b"), package("b", "1.0.0"), package("b", "1.1.0", "a")]
    assert chosen("a", there) == ["b-1.0.0", "a-1.0.0"]


def test_a_pre_release_is_chosen_only_when_it_is_asked_for() -> None:
    there = [package("web", "1.0.0"), package("web", "2.0.0-rc.1")]
    assert chosen("web", there) == ["web-1.0.0"]
    assert chosen("web@>=2.0.0-rc.1", there) == ["web-2.0.0-rc.1"]


def test_a_manifest_is_known_by_what_it_wants() -> None:
    manifest = Manifest(format=1, name="web", version="1.2.0", dependencies={"lib": "^1"})
    assert known("id", manifest) == Known("web", Version(1, 2, 0), "id", (Wanted("lib", parse_range("^1")),))


def test_a_conflict_far_from_its_cause_is_found_without_trying_everything() -> None:
    """Fifteen packages with ten versions each lie between the two that do not go together: 10^15 combinations."""
    between = [f"m{number:02}" for number in range(15)]
    there = [package(name, f"1.{minor}.0") for name in between for minor in range(10)]
    there += [package("first", f"1.{minor}.0", f"last@1.{minor}") for minor in range(10)]
    there += [package("last", "1.0.0")]
    assert chosen(f"first {' '.join(between)} last", there)[:2] == ["last-1.0.0", "first-1.0.0"]


def test_a_chain_without_end_is_refused_and_not_followed() -> None:
    there = [package(f"p{number}", "1.0.0", f"p{number + 1}") for number in range(5000)]
    error = refused("p0", there)
    assert isinstance(error, DependencyConflict)
    assert str(MOST_CHOSEN) in error.sentence


# --- against all there is

RANGES = st.sampled_from(["*", "^1", "^2", "1.0.0", "1.1", ">=1.1", "<2", "3"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Wanted], list[Known]]:
    names = ["a", "b", "c", "d"]
    wish = st.builds(lambda name, text: Wanted(name, parse_range(text)), st.sampled_from(names), RANGES)
    packages = [
        Known(name, parse_version(version), f"{name}{version}", tuple(draw(st.lists(wish, max_size=2))))
        for name in names
        for version in draw(st.lists(st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]), max_size=3, unique=True))
    ]
    packages = [
        Known(
            one.name,
            one.version,
            one.id,
            tuple({want.name: want for want in one.wants if want.name != one.name}.values()),
        )
        for one in packages
    ]
    return draw(st.lists(wish, min_size=1, max_size=2)), draw(st.permutations(packages))


def answers(wanted: list[Wanted], packages: list[Known]) -> Iterator[dict[str, Known]]:
    """Every set of packages that suits everybody in it, by trying all."""
    names = sorted({one.name for one in packages})
    choices = [[None, *(one for one in packages if one.name == name)] for name in names]
    for choice in product(*choices):
        there = {one.name: one for one in choice if one is not None}
        wishes = [*wanted, *(want for one in there.values() for want in one.wants)]
        suits = all(want.name in there and there[want.name].version in want.range for want in wishes)
        if suits and {want.name for want in wishes} == there.keys() and is_ordered(there):
            yield there


def is_ordered(there: dict[str, Known]) -> bool:
    """Whether nothing depends on itself."""
    placed: set[str] = set()
    while True:
        ready = [one.name for one in there.values() if all(want.name in placed for want in one.wants)]
        if len(ready) == len(placed):
            return len(placed) == len(there)
        placed = set(ready)


@settings(max_examples=120)
@given(worlds())
def test_an_answer_is_found_just_when_there_is_one_and_the_best_for_what_is_asked_first(
    world: tuple[list[Wanted], list[Known]],
) -> None:
    wanted, packages = world
    possible = list(answers(wanted, packages))
    reachable = [there for there in possible if needed(wanted, there) == there.keys()]
    try:
        found = resolve(wanted, packages)
    except (PackageMissing, DependencyConflict, DependencyCycle):
        assert reachable == []
        return
    there = {one.name: one for one in found}
    assert there in reachable
    first = wanted[0].name
    assert there[first].version == max(each[first].version for each in reachable)
    for place, one in enumerate(found):
        assert {want.name for want in one.wants} <= {earlier.name for earlier in found[:place]}


def needed(wanted: list[Wanted], there: dict[str, Known]) -> set[str]:
    """The names that follow from what is wanted."""
    waiting, found = [want.name for want in wanted], set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [want.name for want in there[name].wants]
    return found
