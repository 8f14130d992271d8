"""Neighbour messages of IPv6: what is built reads back, and what is garbled is refused."""

import struct
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outlive.network import neighbour
from outlive.network.errors import PacketRefused
from outlive.network.neighbour import ADVERTISEMENT, ALL_NODES, SOLICITATION, UNSPECIFIED, Neighbour

MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")
IP = IPv6Address("fd00::9:1234")
BODY_AT, CHECKSUM_AT, OPTIONS_AT = 54, 56, 78

macs = st.binary(min_size=6, max_size=6)
unicast = st.ip_addresses(v=6).filter(lambda ip: not ip.is_multicast and ip != UNSPECIFIED)
solicitations = st.builds(
    lambda target, mac, link: Neighbour(SOLICITATION, target, neighbour.solicited_node(target), target, mac, link),
    unicast,
    macs,
    st.none() | macs,
) | st.builds(lambda mac, ip: neighbour.parse(neighbour.probe(mac, ip)), macs, unicast)
advertisements = st.builds(
    Neighbour,
    st.just(ADVERTISEMENT),
    unicast,
    unicast,
    unicast,
    macs,
    st.none() | macs,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
messages = solicitations | advertisements


def resealed(frame: bytes) -> bytes:
    """The frame with the checksum that its content asks for, by the textbook."""
    body = frame[BODY_AT:CHECKSUM_AT] + b"\0\0" + frame[CHECKSUM_AT + 2 :]
    data = frame[22:54] + struct.pack("!II", len(body), 58) + body
    total = 0
    for high, low in zip(data[::2], data[1::2], strict=True):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return frame[:CHECKSUM_AT] + struct.pack("!H", ~total & 0xFFFF) + frame[CHECKSUM_AT + 2 :]


def with_options(frame: bytes, options: bytes) -> bytes:
    body = frame[BODY_AT:OPTIONS_AT] + options
    return resealed(frame[:18] + struct.pack("!H", len(body)) + frame[20:BODY_AT] + body)


@given(messages, st.binary(max_size=64))
def test_message_reads_back_whatever_padding_follows(message: Neighbour, padding: bytes) -> None:
    assert neighbour.parse(neighbour.build(message) + padding) == message


@given(messages)
def test_checksum_is_the_textbook_one(message: Neighbour) -> None:
    frame = neighbour.build(message)
    assert resealed(frame) == frame


@given(messages, st.data())
def test_message_that_was_cut_short_is_refused(message: Neighbour, data: st.DataObject) -> None:
    frame = neighbour.build(message)
    length = data.draw(st.integers(min_value=0, max_value=len(frame) - 1))
    with pytest.raises(PacketRefused, match="cut short"):
        neighbour.parse(frame[:length])


@given(messages, st.data())
def test_message_with_one_altered_bit_is_refused(message: Neighbour, data: st.DataObject) -> None:
    frame = bytearray(neighbour.build(message))
    at = data.draw(st.integers(min_value=22, max_value=len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    with pytest.raises(PacketRefused):
        neighbour.parse(bytes(frame))


@given(messages, st.integers(min_value=0, max_value=254))
def test_message_that_came_through_a_router_is_refused(message: Neighbour, hops: int) -> None:
    frame = bytearray(neighbour.build(message))
    frame[21] = hops
    with pytest.raises(PacketRefused, match="router"):
        neighbour.parse(bytes(frame))


@given(messages, st.binary(max_size=80))
def test_options_are_read_or_refused_and_never_misread(message: Neighbour, options: bytes) -> None:
    frame = with_options(neighbour.build(message), options + bytes(len(options) % 2))
    try:
        read = neighbour.parse(frame)
    except PacketRefused:
        return
    assert replace(read, link_mac=None) == replace(message, link_mac=None)
    assert read.link_mac is None or read.link_mac in options


@pytest.mark.parametrize("options", ["0200", "0202aabbccddeeff", "02", "0201aabbccddeeff0e00000000000000"])
def test_option_of_a_wrong_length_is_refused(options: str) -> None:
    frame = neighbour.announcement(MAC, IP, router=False)
    data = bytes.fromhex(options)
    with pytest.raises(PacketRefused, match="option of a wrong length"):
        neighbour.parse(with_options(frame, data + bytes(len(data) % 2)))


@given(st.binary(max_size=2000))
def test_noise_is_refused(noise: bytes) -> None:
    assume(len(noise) < 58 or noise[12:14] != b"\x86\xdd")
    with pytest.raises(PacketRefused):
        neighbour.parse(noise)


@pytest.mark.parametrize(
    "senseless",
    [
        Neighbour(ADVERTISEMENT, IP, ALL_NODES, IP, MAC, solicited=True),
        Neighbour(ADVERTISEMENT, IP, ALL_NODES, ALL_NODES, MAC),
        Neighbour(SOLICITATION, UNSPECIFIED, neighbour.solicited_node(IP), IP, MAC, link_mac=MAC),
        Neighbour(SOLICITATION, UNSPECIFIED, ALL_NODES, IP, MAC),
    ],
)
def test_message_that_makes_no_sense_is_refused(senseless: Neighbour) -> None:
    with pytest.raises(PacketRefused):
        neighbour.parse(neighbour.build(senseless))


@pytest.mark.parametrize(("at", "value"), [(54, 134), (54, 0), (55, 1)])
def test_other_kind_of_message_is_refused(at: int, value: int) -> None:
    frame = bytearray(neighbour.probe(MAC, IP))
    frame[at] = value
    with pytest.raises(PacketRefused, match="no neighbour message"):
        neighbour.parse(resealed(bytes(frame)))


def test_probe_asks_the_solicited_node_group_from_no_address() -> None:
    probe = neighbour.parse(neighbour.probe(MAC, IP))
    assert probe == Neighbour(SOLICITATION, UNSPECIFIED, IPv6Address("ff02::1:ff09:1234"), IP, MAC)
    assert neighbour.probe(MAC, IP)[:6].hex() == "3333ff091234"


def test_announcement_overrides_at_all_nodes() -> None:
    told = neighbour.parse(neighbour.announcement(MAC, IP, router=True))
    assert told == Neighbour(ADVERTISEMENT, IP, ALL_NODES, IP, MAC, MAC, router=True, override=True)
    assert not neighbour.parse(neighbour.announcement(MAC, IP, router=False)).router


def test_who_answers_or_probes_the_address_claims_it() -> None:
    answer = Neighbour(ADVERTISEMENT, IP, ALL_NODES, IP, OTHER)
    assert neighbour.claimant(answer, IP) == OTHER
    assert neighbour.claimant(replace(answer, link_mac=MAC), IP) == MAC
    assert neighbour.claimant(neighbour.parse(neighbour.probe(OTHER, IP)), IP) == OTHER


def test_who_looks_for_the_address_or_has_another_does_not_claim_it() -> None:
    other = IPv6Address("fd00::1")
    looking = Neighbour(SOLICITATION, other, neighbour.solicited_node(IP), IP, OTHER, link_mac=OTHER)
    assert neighbour.claimant(looking, IP) is None
    assert neighbour.claimant(Neighbour(ADVERTISEMENT, IP, ALL_NODES, other, OTHER), IP) is None
    assert neighbour.claimant(neighbour.parse(neighbour.probe(OTHER, other)), IP) is None
