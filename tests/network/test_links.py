"""What the kernel tells about interfaces: read or refused, and told on only where a link came or went."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.network.errors import PacketRefused
from outlive.network.links import Link, LinkChange, LinkState, LinkTable, parse

NEW_LINK, DELETED_LINK, DONE, ERROR = 16, 17, 3, 2
DOWN, RUNNING, GONE = LinkState.DOWN, LinkState.RUNNING, LinkState.GONE

links = st.builds(
    Link,
    st.integers(min_value=1, max_value=2**31 - 1),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=15),
    st.sampled_from(LinkState),
    st.binary(max_size=8),
    st.integers(min_value=0, max_value=2**32 - 1),
)


def message(link: Link, family: int = 0) -> bytes:
    """The notice in which the kernel tells of an interface."""
    attributes = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in ((3, link.name.encode() + b"\0"), (1, link.mac), (47, struct.pack("=I", link.returns)))
    )
    body = struct.pack("=BxHiII", family, 1, link.index, 0x41 if link.state is RUNNING else 0x01, 0) + attributes
    return framed(DELETED_LINK if link.state is GONE else NEW_LINK, body)


def framed(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


@given(st.lists(links, max_size=5), st.booleans())
def test_notices_read_back(told: list[Link], ends: bool) -> None:
    datagram = b"".join(map(message, told)) + (framed(DONE, bytes(4)) if ends else b"")
    assert parse(datagram) == (tuple(told), ends)


@given(links, st.data())
def test_notice_that_was_cut_short_is_refused(link: Link, data: st.DataObject) -> None:
    whole = message(link)
    length = data.draw(st.integers(min_value=1, max_value=len(whole) - 1))
    with pytest.raises(PacketRefused):
        parse(whole[:length])


@given(links, st.data())
def test_garbled_notice_is_read_or_refused(link: Link, data: st.DataObject) -> None:
    garbled = bytearray(message(link))
    for _ in range(3):
        garbled[data.draw(st.integers(min_value=0, max_value=len(garbled) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(garbled))
    except PacketRefused as refused:
        assert refused.sentence  # noqa: PT017


@given(st.binary(max_size=300))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    try:
        parse(noise)
    except PacketRefused as refused:
        assert refused.sentence  # noqa: PT017


def test_error_of_the_kernel_is_no_empty_list() -> None:
    with pytest.raises(PacketRefused, match="error"):
        parse(framed(ERROR, bytes(20)))


def test_what_a_bridge_tells_of_its_ports_is_not_the_end_of_a_link() -> None:
    assert parse(message(Link(2, "eth0", GONE), family=7)) == ((), False)


ETH0 = Link(2, "eth0", RUNNING, b"\2\0\0\0\0\1", 5)


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        ([ETH0], []),
        ([replace(ETH0, state=DOWN)], [("eth0", DOWN)]),
        ([replace(ETH0, state=DOWN), replace(ETH0, returns=6)], [("eth0", DOWN), ("eth0", RUNNING)]),
        ([replace(ETH0, returns=6)], [("eth0", RUNNING)]),
        ([replace(ETH0, mac=b"\2\0\0\0\0\2")], [("eth0", RUNNING)]),
        ([replace(ETH0, state=DOWN), replace(ETH0, state=DOWN, returns=9)], [("eth0", DOWN)]),
        ([replace(ETH0, state=GONE)], [("eth0", GONE)]),
        ([replace(ETH0, state=GONE), replace(ETH0, state=GONE)], [("eth0", GONE)]),
        ([replace(ETH0, name="lan0")], [("eth0", GONE), ("lan0", RUNNING)]),
        ([Link(3, "eth1", DOWN)], [("eth1", DOWN)]),
        ([Link(3, "eth1", RUNNING)], [("eth1", RUNNING)]),
    ],
)
def test_only_changes_that_matter_are_told_on(told: list[Link], changes: list[tuple[str, LinkState]]) -> None:
    table = LinkTable([ETH0])
    assert table.learn(told) == [LinkChange(*change) for change in changes]


def test_complete_list_tells_what_was_missed() -> None:
    table = LinkTable([ETH0, Link(3, "eth1", RUNNING), Link(4, "eth2", DOWN)])
    changes = table.replace([replace(ETH0, returns=7), Link(4, "eth2", RUNNING)])
    assert changes == [LinkChange("eth1", GONE), LinkChange("eth0", RUNNING), LinkChange("eth2", RUNNING)]
    assert table.replace([replace(ETH0, returns=7), Link(4, "eth2", RUNNING)]) == []


@given(st.lists(links, max_size=20))
def test_what_is_told_twice_changes_nothing_the_second_time(told: list[Link]) -> None:
    table = LinkTable()
    table.learn(told)
    last = {link.index: link for link in told}
    assert table.learn(last.values()) == []
