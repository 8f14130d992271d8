"""The library that deals with repetitions accepts what the plain way would, learns as much, and touches nothing else.

The same tests run once more with the library built with sanitizers, by tests/test_sanitized.py.
"""

import socket
from dataclasses import replace
from hashlib import blake2s

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleStatus
from outlive.wire.datagram import ProbeAnswer, pack
from outlive.wire.receiver import WINDOW, Receiver
from outlive.wire.record import MOST_BYTES, Refused
from outlive.wire.seal import TAG_BYTES, Seal, Use
from outlive.wire.senders import BATCH, Senders

SEAL = Seal("0123456789abcdef", bytes(range(32)))
AT_NAME_LENGTH = 6
HOSTS = ("a", "b-1", "a" * 63)
STATUSES = ((), (ModuleStatus.RUNNING,), (ModuleStatus.RUNNING,) * 100, (ModuleStatus.FAILED,) * 4000)


def beat(sequence: int, host: str = "a", statuses: int = 1, load: float = 0.5, boot: str = "ab") -> bytes:
    said = STATUSES[statuses]
    return pack(Heartbeat(SEAL.cluster, host, boot * 16, sequence, Flags.NONE, load, 7, b"tabledig", said), SEAL)


def sealed(data: bytes) -> bytes:
    """The same with a tag that holds."""
    return data[:-TAG_BYTES] + SEAL.tag(Use.DATAGRAM, data[:-TAG_BYTES])


beats = st.builds(
    beat,
    st.integers(1, 3 * WINDOW),
    st.sampled_from(HOSTS),
    st.sampled_from((1, 1, 1, 1, 0, 2, 3)),
    st.sampled_from((0.5, 0.5, 0.0, 1e300)),
    st.sampled_from(("ab", "ab", "ab", "cd")),
)
answers = st.builds(
    lambda sequence, host: pack(ProbeAnswer(SEAL.cluster, host, "ab" * 16, sequence, 1, "me"), SEAL),
    st.integers(1, 3 * WINDOW),
    st.sampled_from(HOSTS),
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A heartbeat with some bytes changed, cut or added, and mostly a tag that holds nevertheless."""
    data = bytearray(draw(beats))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3)):
        data[at % len(data)] = value
    change = draw(st.sampled_from(("", "", "cut", "add", "length")))
    if change == "cut":
        del data[draw(st.integers(0, len(data))) :]
    elif change == "add":
        data += bytes(draw(st.integers(0, 40)))
    if change != "length":
        data[4:6] = len(data).to_bytes(2, "big")[: max(0, len(data) - 4)]
    whole = bytes(data)
    return sealed(whole) if len(whole) > TAG_BYTES and draw(st.booleans()) else whole


@settings(max_examples=100)
@given(st.lists(st.one_of(beats, beats, answers, spoilt()), max_size=40))
def test_a_repetition_is_what_the_plain_way_accepts_and_learns_nothing_from(datagrams: list[bytes]) -> None:
    plain, quick = Receiver(SEAL, "me"), Receiver(SEAL, "me")
    said: dict[str, Heartbeat] = {}
    for now, datagram in enumerate(datagrams, start=1):
        expected = plain.accept(datagram, float(now))
        if quick.senders.repeats(datagram, float(now)):
            assert isinstance(expected, Heartbeat)
            same = replace(expected, sequence=0, load=0.0)
            assert same == replace(said[expected.host], sequence=0, load=0.0)
        else:
            assert quick.accept(datagram, float(now)) == expected
        if isinstance(expected, Heartbeat):
            said[expected.host] = expected
        for host in HOSTS:
            assert remembered(quick.senders, host) == remembered(plain.senders, host)


def remembered(senders: Senders, host: str) -> tuple[int | float, ...] | None:
    sender = senders.get(host)
    if sender is None:
        return None
    return (sender.highest, sender.seen, sender.heartbeat, sender.floor, sender.next_floor, sender.at)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Use), st.binary(min_size=1, max_size=1100))
def test_the_tag_of_a_repetition_is_the_one_that_python_makes(key: bytes, use: Use, junk: bytes) -> None:
    # The library has the one use; that its hash is right for data of any length is what a repetition shows.
    seal = Seal(SEAL.cluster, key)
    statuses = tuple(ModuleStatus(byte & 3) for byte in junk)
    first = Heartbeat(SEAL.cluster, "a", "ab" * 16, 1, Flags.NONE, 0.0, 7, b"tabledig", statuses)
    receiver = Receiver(seal, "me")
    assert receiver.accept(pack(first, seal), 0.0) == first
    again = pack(replace(first, sequence=2, load=1.0), seal)
    body = again[:-TAG_BYTES]
    wrong = body + blake2s(body, key=key, digest_size=TAG_BYTES, person=use.value).digest()
    assert receiver.senders.repeats(wrong, 1.0) is (use is Use.DATAGRAM)
    assert receiver.senders.repeats(again, 1.0) is (use is not Use.DATAGRAM)


@pytest.mark.parametrize("bit", range(TAG_BYTES * 8))
def test_no_bit_of_the_tag_may_be_wrong(bit: int) -> None:
    receiver = Receiver(SEAL, "me")
    receiver.accept(beat(1), 0.0)
    again = bytearray(beat(2))
    again[len(again) - TAG_BYTES + bit // 8] ^= 1 << bit % 8
    assert not receiver.senders.repeats(bytes(again), 0.0)
    assert receiver.senders.repeats(beat(2), 0.0)


def test_what_is_below_the_floor_is_no_repetition() -> None:
    receiver = Receiver(SEAL, "me")
    receiver.accept(beat(5), 0.0)
    receiver.raise_floor("a", 8)
    receiver.raise_floor("a", 9)
    assert not receiver.senders.repeats(beat(8), 0.0)
    assert isinstance(receiver.accept(beat(8), 0.0), Refused)
    assert receiver.senders.repeats(beat(9), 0.0)


def test_a_host_that_was_forgotten_repeats_nothing_and_its_place_is_used_again() -> None:
    receiver = Receiver(SEAL, "me")
    for number in range(50):
        receiver.accept(beat(1, f"h{number}"), 0.0)
    for number in range(0, 50, 2):
        receiver.forget(f"h{number}")
    for number in range(50):
        assert receiver.senders.repeats(beat(2, f"h{number}"), 0.0) is (number % 2 == 1)
    assert isinstance(receiver.accept(beat(1, "new"), 0.0), Heartbeat)
    assert receiver.senders.repeats(beat(2, "new"), 0.0)


def test_what_is_shown_is_the_newest_of_each_host_and_never_changes_afterwards() -> None:
    receiver = Receiver(SEAL, "me")
    receiver.accept(beat(1, "a"), 1.0)
    receiver.accept(beat(4, "b-1"), 1.5)
    assert receiver.senders.shown() is None, "nothing was repeated"
    receiver.senders.repeats(beat(2, "a"), 2.0)
    shown = receiver.senders.shown()
    assert shown is not None
    receiver.senders.repeats(beat(3, "a"), 3.0)
    receiver.forget("b-1")
    receiver.accept(beat(9, "c"), 3.0)
    assert shown.of("a") == (2, 2.0)
    assert shown.of("b-1") == (4, 1.5)
    assert shown.of("c") is None
    assert shown.latest_at() == 2.0
    later = receiver.senders.shown()
    assert later is not None
    assert (later.of("a"), later.of("b-1"), later.of("c")) == ((3, 3.0), None, (9, 3.0))
    assert receiver.senders.shown() is None


def test_datagrams_are_taken_in_order_and_what_needs_to_be_read_comes_with_its_source() -> None:
    receiver = Receiver(SEAL, "me")
    receiver.accept(beat(1), 0.0)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
    ):
        here.bind(("127.0.0.1", 0))
        there.bind(("127.0.0.1", 0))
        for sequence in range(2, 2 + 2 * BATCH):
            there.sendto(beat(sequence), here.getsockname())
        for other in (beat(900, statuses=2), b"", bytes(5000), beat(901, "b-1")):
            there.sendto(other, here.getsockname())
        taken = receiver.senders.take(here.fileno(), 10_000, 4.0)
        assert (taken.count, taken.drained, receiver.senders.repeated) == (2 * BATCH + 4, False, 2 * BATCH)
        assert [data for data, _ in taken.left] == [beat(900, statuses=2), b"", bytes(MOST_BYTES + 1), beat(901, "b-1")]
        assert {source[2:4] for _, source in taken.left} == {there.getsockname()[1].to_bytes(2, "big")}
        assert receiver.senders.take(here.fileno(), 10_000, 4.0).drained
        there.sendto(beat(300), here.getsockname())
        assert receiver.senders.drop(here.fileno(), 10) == 1


def test_a_header_that_lies_about_the_name_is_left_to_the_plain_way() -> None:
    receiver = Receiver(SEAL, "me")
    receiver.accept(beat(1), 0.0)
    for length in range(256):
        lying = bytearray(beat(2))
        lying[AT_NAME_LENGTH] = length
        assert not receiver.senders.repeats(sealed(bytes(lying)), 0.0) or length == 1
