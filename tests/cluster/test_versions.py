"""Versions are ordered as semver.org says, and a range has just those that its signs say."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.versions import ANY, Range, Version, Wanted, parse_range, parse_version, parse_wanted
from outlive.errors import UsageInvalid

NUMBERS = st.integers(0, 3)
LABELS = st.lists(st.one_of(st.integers(0, 20), st.from_regex("[a-zA-Z-][0-9a-z-]{0,3}", fullmatch=True)), max_size=3)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, NUMBERS, LABELS.map(tuple))
RELEASES = st.builds(Version, NUMBERS, NUMBERS, NUMBERS)


def version(text: str) -> Version:
    return parse_version(text)


def test_versions_are_ordered_as_semver_org_says() -> None:
    written = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1"
    versions = [version(text) for text in [*written.split(), "1.2.0", "1.10.0", "2.0.0"]]
    assert versions == sorted(sorted(versions, key=str))
    assert all(one < next_one and next_one > one for one, next_one in pairwise(versions))


@given(VERSIONS)
def test_a_version_that_is_written_reads_back_the_same(one: Version) -> None:
    assert version(str(one)) == one


@pytest.mark.parametrize(
    "text",
    [*("", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3+build", "01.2.3", "1.2.3-", "1.2.3-a..b", "1.2.3-01", "1.2.-3"),
     *("1.2.3\n", " 1.2.3", "1.2.1234567890", "1.2.3-" + "a" * 60, "١.٢.٣", "1.2.3/../..")],
)  # fmt: skip
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageInvalid, match="is no version"):
        parse_version(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", "0.0.0 1.2.3 99.0.0", "1.0.0-rc.1"),
        ("1.2.3", "1.2.3", "1.2.2 1.2.4 1.2.3-rc.1"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("1.2.*", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("1.*", "1.0.0 1.9.9", "0.9.0 2.0.0"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-rc.1"),
        ("^1.2", "1.2.0 1.9.0", "1.1.9 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0 1.0.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.0 0.9.9", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.9", "2.0.0"),
        (">1.2.3", "1.2.4 2.0.0", "1.2.3"),
        (">1.2", "1.3.0", "1.2.9"),
        (">=1.2", "1.2.0 5.0.0", "1.1.9"),
        ("<1.2", "1.1.9 0.0.0", "1.2.0 1.2.0-rc.1"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        (">=1.2, <2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
        (">= 1.2 ,< 2", "1.2.0 1.9.9", "2.0.0"),
        (">=1.0.0-rc.2", "1.0.0-rc.2 1.0.0-rc.10 1.0.0 3.0.0", "1.0.0-rc.1 1.0.1-rc.5"),
        ("^1.0.0-rc.2", "1.0.0-rc.3 1.0.0 1.9.0", "1.0.0-rc.1 1.1.0-rc.3 2.0.0"),
    ],
)
def test_a_range_has_what_its_signs_say(text: str, inside: str, outside: str) -> None:
    read = parse_range(text)
    assert [each for each in inside.split() if version(each) not in read] == []
    assert [each for each in outside.split() if version(each) in read] == []
    assert str(read) == text or text == "*"


@pytest.mark.parametrize(
    "text",
    [*("", ",", "1,", "latest", "^", "^*", "^1.*", "1.2-rc.1", "1.2.3.*", "1.2.3-rc.1.*", ">1.2,", "1 2", "1||2"),
     *("==1", "!=1", "^1.2.3+b", "x", "1.x", ",".join(["1"] * 9), ">=" + "1" * 300, "*,1", "01")],
)  # fmt: skip
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageInvalid, match="is no range"):
        parse_range(text)


@given(st.text(max_size=30))
def test_any_text_is_read_as_a_range_or_refused(text: str) -> None:
    try:
        read = parse_range(text)
    except UsageInvalid:
        return
    assert isinstance(version("1.0.0") in read, bool)


@given(RELEASES, RELEASES)
def test_a_caret_allows_what_leaves_the_first_number_that_is_not_nought_alone(least: Version, other: Version) -> None:
    place = next((place for place, number in enumerate(least.base) if number), 2)
    same = other.base[: place + 1] == least.base[: place + 1]
    assert (other in parse_range(f"^{least}")) == (same and other >= least)


@given(RELEASES, st.lists(VERSIONS))
def test_the_newest_of_a_range_is_in_it_and_nothing_in_it_is_newer(least: Version, versions: list[Version]) -> None:
    read = parse_range(f">={least}")
    newest = read.newest(versions)
    inside = [one for one in versions if one in read]
    assert newest == (sorted(inside)[-1] if inside else None)
    assert all(not one.early for one in inside)


def test_a_package_is_asked_for_with_or_without_a_range() -> None:
    assert parse_wanted("web") == Wanted("web", ANY)
    assert str(parse_wanted("web@^1.2")) == "web@^1.2"
    assert Range("*") == ANY


@pytest.mark.parametrize("text", ["", "@", "Web", "web@", "web@x", "we/b", "../x@1", "web@1@2"])
def test_what_cannot_be_asked_for_is_refused(text: str) -> None:
    with pytest.raises(UsageInvalid):
        parse_wanted(text)
