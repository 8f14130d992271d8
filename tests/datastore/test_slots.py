"""A slot is believed when it is whole, this cluster's and not older than what was read before."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.heartbeat import Flags, Heartbeat
from outlive.datastore.block import BLOCK_BYTES, CONTENT_BYTES, untagged, whole
from outlive.datastore.slots import MOST_HOSTS, Slot, SlotReader, SlotRefused, pack_slot, unpack_slot
from outlive.wire.datagram import ProbeAnswer, pack
from outlive.wire.record import Reason
from outlive.wire.seal import Seal, Use

SEAL = Seal("0123456789abcdef", b"k" * 32)
Build = Callable[..., Heartbeat]


def slot_of(sequence: int) -> bytes:
    return pack_slot(Heartbeat(SEAL.cluster, "a", "cd" * 16, sequence, Flags.ISOLATED, 1.5, 3, b"tabledig", ()), SEAL)


def test_a_slot_comes_out_as_it_went_in(seal: Seal, heartbeat: Build) -> None:
    raw = pack_slot(heartbeat(5), seal)
    assert len(raw) == BLOCK_BYTES
    assert unpack_slot("a", raw, seal) == heartbeat(5)


@given(st.integers(0, BLOCK_BYTES * 8 - 1))
def test_no_bit_can_be_changed_not_even_in_the_padding(bit: int) -> None:
    raw = bytearray(slot_of(7))
    raw[bit >> 3] ^= 1 << (bit & 7)
    assert isinstance(unpack_slot("a", bytes(raw), SEAL), SlotRefused)


@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(lambda new: len(set(new)) == 2))
def test_sectors_of_two_writes_are_never_believed(new: list[bool]) -> None:
    older, newer = slot_of(7), slot_of(2**40)
    parts = [(newer if new[n] else older)[n * 512 : n * 512 + 512] for n in range(8)]
    mixed = b"".join(parts)
    answer = unpack_slot("a", mixed, SEAL)
    if mixed in (older, newer):
        assert isinstance(answer, Heartbeat)
    else:
        assert answer == SlotRefused(Reason.HALF_WRITTEN, "the block's checksum does not hold")


@given(st.binary(max_size=200), st.integers(0, BLOCK_BYTES))
def test_garbage_is_refused(data: bytes, at: int) -> None:
    raw = (bytes(at) + data).ljust(BLOCK_BYTES, b"\xa5")[:BLOCK_BYTES]
    assert isinstance(unpack_slot("a", raw, SEAL), SlotRefused)
    assert isinstance(unpack_slot("a", data, SEAL), SlotRefused)


@given(st.binary(max_size=300))
def test_even_a_holder_of_the_key_cannot_break_the_reader(content: bytes) -> None:
    block = untagged(content)
    assert isinstance(unpack_slot("a", block + SEAL.tag(Use.SLOT, block), SEAL), SlotRefused)


@pytest.mark.parametrize("length", [0, 100, BLOCK_BYTES - 1])
def test_a_short_slot_is_refused_as_short(seal: Seal, heartbeat: Build, length: int) -> None:
    assert _reason(unpack_slot("a", pack_slot(heartbeat(), seal)[:length], seal)) is Reason.TOO_SHORT


def test_a_long_slot_is_refused_as_long(seal: Seal, heartbeat: Build) -> None:
    assert _reason(unpack_slot("a", pack_slot(heartbeat(), seal) + b"\0", seal)) is Reason.TOO_LARGE


def test_a_slot_of_another_cluster_is_refused_as_such(seal: Seal, heartbeat: Build) -> None:
    foreign = Seal("fedcba9876543210", b"k" * 32)
    raw = pack_slot(heartbeat(cluster=foreign.cluster), foreign)
    assert unpack_slot("a", raw, seal) == SlotRefused(Reason.FOREIGN_CLUSTER, "of cluster fedcba9876543210")


def test_a_slot_under_another_key_is_refused_as_such(seal: Seal, heartbeat: Build) -> None:
    raw = pack_slot(heartbeat(), Seal(seal.cluster, b"x" * 32))
    assert _reason(unpack_slot("a", raw, seal)) is Reason.WRONG_TAG


def test_a_recorded_datagram_makes_no_slot(seal: Seal, heartbeat: Build) -> None:
    block = untagged(pack(heartbeat(), seal))
    forged = block + seal.tag(Use.DATAGRAM, block)
    assert _reason(unpack_slot("a", forged, seal)) is Reason.WRONG_TAG


def test_a_slot_of_another_version_is_told_by_its_version(seal: Seal, heartbeat: Build) -> None:
    raw = pack_slot(heartbeat(), seal)
    answer = unpack_slot("a", raw[:2] + b"\x07" + raw[3:], seal)
    assert answer == SlotRefused(Reason.OTHER_VERSION, "it speaks version 7, this host version 1")


def test_a_slot_that_was_copied_from_another_host_is_refused(seal: Seal, heartbeat: Build) -> None:
    assert _reason(unpack_slot("b", pack_slot(heartbeat(), seal), seal)) is Reason.OTHER_HOST


def test_a_slot_holds_a_heartbeat_and_nothing_else(seal: Seal) -> None:
    block = untagged(pack(ProbeAnswer(seal.cluster, "a", "ab" * 16, 1, 1, "b"), seal))
    assert _reason(unpack_slot("a", block + seal.tag(Use.SLOT, block), seal)) is Reason.MALFORMED


def test_what_changed_is_told_by_the_sequence_alone(seal: Seal, heartbeat: Build) -> None:
    reader = SlotReader(seal)
    sequences = (5, 5, 6, 2**50, 2**50)
    answers = [reader.read("a", pack_slot(heartbeat(sequence), seal)) for sequence in sequences]
    assert [answer.changed for answer in answers if isinstance(answer, Slot)] == [
        False,  # read for the first time: nobody knows how old it is
        False,
        True,
        True,  # a jump ahead is no matter
        False,
    ]


def test_an_old_copy_of_a_slot_is_refused(seal: Seal, heartbeat: Build) -> None:
    reader = SlotReader(seal)
    reader.read("a", pack_slot(heartbeat(9), seal))
    assert reader.read("a", pack_slot(heartbeat(8), seal)) == SlotRefused(Reason.OLD, "sequence 8 after 9")
    assert isinstance(reader.read("b", pack_slot(heartbeat(8, host="b"), seal)), Slot)


def test_memory_of_hosts_is_bounded(seal: Seal, heartbeat: Build) -> None:
    reader = SlotReader(seal)
    for number in range(MOST_HOSTS + 10):
        name = f"h{number}"
        assert isinstance(reader.read(name, pack_slot(heartbeat(9, host=name), seal)), Slot)
    assert len(reader._seen) == MOST_HOSTS
    reader.forget("h0")
    assert isinstance(reader.read("h0", pack_slot(heartbeat(1, host="h0"), seal)), Slot)


def test_a_block_has_room_for_the_largest_record() -> None:
    assert whole(untagged(os.urandom(CONTENT_BYTES)) + bytes(16))
    with pytest.raises(ValueError, match="do not fit"):
        untagged(bytes(CONTENT_BYTES + 1))


def _reason(answer: Heartbeat | SlotRefused) -> Reason:
    assert isinstance(answer, SlotRefused), answer
    return answer.reason
