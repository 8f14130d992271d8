"""Messages about forwarding tables: what is written reads back, and no bytes break the reader."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.network.errors import PacketRefused
from outlive.network.fdb import ALL_MACS, Change, message, parse, read_error, read_row

MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ADDRESSES = (st.ip_addresses(v=4) | st.ip_addresses(v=6)).map(str)


@given(st.booleans(), st.integers(1, 2**31 - 1), MACS, ADDRESSES, st.integers(0, 63))
def test_a_change_reads_back(put: bool, index: int, mac: str, address: str, sequence: int) -> None:
    [(kind, number, body)] = parse(message(Change(put, index, mac, address), sequence))
    assert (kind, number) == (28 if put else 29, sequence)
    assert read_row(body) == (index, mac, address)


def test_an_entry_for_everybody_stands_beside_others_and_one_for_a_card_replaces() -> None:
    flags = [
        struct.unpack_from("=IHH", message(Change(True, 1, mac, "10.0.0.1"), 0))[2]
        for mac in (ALL_MACS, "52:54:00:00:00:01")
    ]
    assert [flag & 0x800 for flag in flags] == [0x800, 0]
    assert [flag & 0x100 for flag in flags] == [0, 0x100]


def test_an_entry_that_sends_nowhere_is_none() -> None:
    body = struct.pack("=BxxxiHBB", 7, 3, 0, 0, 0)
    assert read_row(body) is None
    assert read_row(body + struct.pack("=HH", 10, 2) + bytes(8)) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (lambda: list(parse(data)), lambda: read_row(data), lambda: read_error(data)):
        try:
            read()
        except PacketRefused:
            continue


@given(MACS, ADDRESSES, st.integers(1, 60))
def test_a_message_that_was_cut_short_is_refused(mac: str, address: str, left_out: int) -> None:
    whole = message(Change(True, 5, mac, address), 0)
    with pytest.raises(PacketRefused):
        list(parse(whole[: -min(left_out, len(whole) - 1)]))
