"""Pages tell each thing once, whatever comes and goes between them; a cursor of another list is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.api.paging import CursorInvalid, Page, ascending, backwards

from ..one_host import OneHost, workload

names = st.sets(st.text("abc-", min_size=1, max_size=4), max_size=20)


@given(
    stays=names, comes_and_goes=st.lists(names, min_size=1, max_size=6), limit=st.integers(1, 5), ahead=st.booleans()
)
def test_what_is_there_throughout_is_told_exactly_once(
    stays: set[str], comes_and_goes: list[set[str]], limit: int, ahead: bool
) -> None:
    told: list[str] = []
    cursor: str | None = ""
    number = 0
    while cursor is not None:
        there = stays | comes_and_goes[number % len(comes_and_goes)]
        page = Page(limit, cursor)
        found, cursor = ascending("x", there, page) if ahead else backwards("x", sorted(there), page)
        assert len(found) <= limit
        told += found if ahead else found[::-1]
        number += 1
    assert told == sorted(told, reverse=not ahead)
    assert len(set(told)) == len(told)
    assert stays <= set(told)


@given(st.text(max_size=40))
def test_whatever_is_given_as_a_cursor_is_one_or_is_refused(text: str) -> None:
    for page_of in (ascending, backwards):
        try:
            page_of("x", ["a"], Page(1, text))
        except CursorInvalid:
            continue
        assert text == ""


def test_a_cursor_is_good_for_its_own_list_alone() -> None:
    _, cursor = ascending("hosts", "ab", Page(1))
    assert cursor is not None
    with pytest.raises(CursorInvalid):
        ascending("workloads", "ab", Page(1, cursor))


def test_lists_are_paged_and_the_command_line_pages_by_itself(one_host: OneHost) -> None:
    made = [f"page-{letter}" for letter in "abcde"]
    for name in made:
        one_host.client.put(f"/v1/workloads/{name}", workload(name, "/usr/bin/sleep", "3600").encode())
    try:
        client = one_host.client
        first = client.get("/v1/workloads?limit=2")
        assert (len(first["workloads"]), bool(first["next"])) == (2, True)
        client.delete(f"/v1/workloads/{first['workloads'][-1]['name']}")
        after = client.get(f"/v1/workloads?limit=500&cursor={first['next']}")
        assert ([each["name"] for each in after["workloads"]], after["next"]) == (made[2:], None)
        whole = [each["id"] for each in client.get("/v1/events?limit=5000")["events"]]
        newest_first = [each["id"] for each in client.pages("/v1/events?limit=5000", "events")]
        assert set(whole) <= set(newest_first)
        pages = [client.get("/v1/events?limit=3")]
        while pages[-1]["next"] and len(pages) < 3:
            pages.append(client.get(f"/v1/events?limit=3&cursor={pages[-1]['next']}"))
        told = [each["id"] for page in reversed(pages) for each in page["events"]]
        assert told == sorted(set(told), key=told.index)
        assert set(made[1:]) >= {each["name"] for each in one_host.run("ps", "--json").json["workloads"]} - {made[0]}
    finally:
        one_host.forget(*made)
