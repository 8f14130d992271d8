"""ARP frames: what is built reads back, and what is garbled is refused."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.network import arp
from outlive.network.errors import PacketRefused

MAC = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")
IP = IPv4Address("10.0.0.9")

macs = st.binary(min_size=6, max_size=6)
ips = st.ip_addresses(v=4)
packets = st.builds(arp.Arp, st.sampled_from((arp.REQUEST, arp.REPLY)), macs, ips, macs, ips)


@given(packets, st.binary(max_size=64))
def test_packet_reads_back_whatever_padding_follows(packet: arp.Arp, padding: bytes) -> None:
    assert arp.parse(arp.build(packet) + padding) == packet


@given(packets, st.integers(min_value=0, max_value=41))
def test_packet_that_was_cut_short_is_refused(packet: arp.Arp, length: int) -> None:
    with pytest.raises(PacketRefused, match="cut short"):
        arp.parse(arp.build(packet)[:length])


@given(packets, st.integers(min_value=12, max_value=21), st.integers(min_value=1, max_value=255))
def test_packet_of_another_kind_is_refused(packet: arp.Arp, at: int, bits: int) -> None:
    frame = bytearray(arp.build(packet))
    frame[at] ^= bits
    if at >= 20 and int.from_bytes(frame[20:22], "big") in (arp.REQUEST, arp.REPLY):
        assert arp.parse(bytes(frame)).operation != packet.operation
    else:
        with pytest.raises(PacketRefused):
            arp.parse(bytes(frame))


@given(st.binary(max_size=2000))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    try:
        packet = arp.parse(noise)
    except PacketRefused:
        return
    assert arp.build(packet)[14:] == noise[14:42]


def test_probe_asks_without_claiming() -> None:
    probe = arp.parse(arp.probe(MAC, IP))
    assert probe == arp.Arp(arp.REQUEST, MAC, IPv4Address(0), arp.NO_MAC, IP)
    assert arp.probe(MAC, IP)[:6] == arp.BROADCAST


def test_announcements_are_one_request_and_one_reply_about_oneself() -> None:
    request, reply = map(arp.parse, arp.announcements(MAC, IP))
    assert request == arp.Arp(arp.REQUEST, MAC, IP, arp.NO_MAC, IP)
    assert reply == arp.Arp(arp.REPLY, MAC, IP, MAC, IP)


def test_known_frame_is_built_byte_for_byte() -> None:
    assert arp.probe(MAC, IP).hex() == (
        "ffffffffffff0200000000010806" + "0001080006040001020000000001000000000000000000000a000009"
    )


def test_who_answers_uses_or_probes_the_address_claims_it() -> None:
    answer = arp.Arp(arp.REPLY, OTHER, IP, MAC, IPv4Address(0))
    assert arp.claimant(answer, IP) == OTHER
    assert arp.claimant(replace(answer, operation=arp.REQUEST, target_ip=IPv4Address("10.0.0.1")), IP) == OTHER
    assert arp.claimant(arp.parse(arp.probe(OTHER, IP)), IP) == OTHER


def test_who_looks_for_the_address_or_has_another_does_not_claim_it() -> None:
    neighbour = IPv4Address("10.0.0.1")
    assert arp.claimant(arp.Arp(arp.REQUEST, OTHER, neighbour, arp.NO_MAC, IP), IP) is None
    assert arp.claimant(arp.Arp(arp.REPLY, OTHER, neighbour, MAC, IP), IP) is None
    assert arp.claimant(arp.parse(arp.probe(OTHER, neighbour)), IP) is None
    assert arp.claimant(arp.Arp(arp.REPLY, OTHER, IPv4Address(0), MAC, IP), IP) is None
