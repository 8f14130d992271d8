"""The epoch stream: what is sent arrives as it was, and nothing else is ever taken for a message."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import Failed
from outlive.replication import handshake
from outlive.replication.disk_writes import DiskWrite, pack, unpack
from outlive.replication.handshake import Hello, StepHead, Welcome
from outlive.replication.link import Bandwidth, Link, LinkBroken
from outlive.replication.stream import (
    HEADER_BYTES,
    MOST_BYTES,
    Bytes,
    Kind,
    Message,
    Receiver,
    Reign,
    Sender,
    StreamGarbage,
)

REIGN = Reign("c1", "vm1", 3, 7)


class Tape:
    """Both ends of a connection in memory."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    def send(self, data: Bytes, within_s: float) -> None:
        self.content += data

    def receive_into(self, target: memoryview, within_s: float | None) -> None:
        if len(target) > len(self.content):
            raise LinkBroken("The tape ends here.")
        target[:] = self.content[: len(target)]
        del self.content[: len(target)]


def recorded(*messages: tuple[Kind, bytes, int], reign: Reign = REIGN) -> bytes:
    tape = Tape()
    sender = Sender(tape, reign)
    for kind, payload, epoch in messages:
        sender.send(kind, [payload], epoch=epoch, within_s=1)
    return bytes(tape.content)


def everything(content: bytes, reign: Reign | None = REIGN) -> list[Message]:
    receiver = Receiver(Tape(content), reign)
    messages = []
    try:
        while True:
            messages.append(receiver.receive(1))
    except LinkBroken:
        return messages


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=60), st.integers(0, 2**64 - 1)), max_size=5))
def test_messages_arrive_as_they_were_sent(messages: list[tuple[Kind, bytes, int]]) -> None:
    arrived = everything(recorded(*messages))
    assert [(each.kind, bytes(each.payload), each.epoch) for each in arrived] == messages


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_incomplete(content: bytes) -> None:
    with pytest.raises((StreamGarbage, LinkBroken)):
        Receiver(Tape(content), REIGN).receive(1)


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject) -> None:
    content = bytearray(recorded((Kind.EPOCH, b"state" * 9, 5), (Kind.ACKNOWLEDGED, b"", 6)))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    whole = [(Kind.EPOCH, b"state" * 9, 5), (Kind.ACKNOWLEDGED, b"", 6)]
    receiver = Receiver(Tape(bytes(content)), REIGN)
    arrived: list[tuple[Kind, bytes, int]] = []
    try:
        while len(arrived) < len(whole):
            message = receiver.receive(1)
            arrived.append((message.kind, bytes(message.payload), message.epoch))
    except (StreamGarbage, LinkBroken):
        pass
    assert arrived == whole[: len(arrived)]
    assert len(arrived) < len(whole)


@pytest.mark.parametrize(
    "other",
    [Reign("c1", "vm1", 3, 6), Reign("c1", "vm1", 2, 9), Reign("c1", "vm1", 4, 7), Reign("c1", "vm2", 3, 7)],
)
def test_another_reign_is_refused_whether_older_or_newer(other: Reign) -> None:
    with pytest.raises(StreamGarbage):
        everything(recorded((Kind.ACKNOWLEDGED, b"", 1), reign=other))


def test_a_message_left_out_or_repeated_is_noticed() -> None:
    first, second = (Kind.BYE, b"a", 0), (Kind.BYE, b"b", 0)
    both = recorded(first, second)
    with pytest.raises(StreamGarbage):
        everything(both[len(recorded(first)) :])
    with pytest.raises(StreamGarbage):
        everything(recorded(first) + both[: len(recorded(first))])


def test_a_length_beyond_its_kind_makes_no_room() -> None:
    tape = Tape(recorded((Kind.BYE, b"x", 0)))
    length_at = HEADER_BYTES - 8
    tape.content[length_at : length_at + 4] = (MOST_BYTES[Kind.BYE] + 1).to_bytes(4, "little")
    with pytest.raises(StreamGarbage, match="too long"):
        Receiver(tape, REIGN).receive(1)


def test_a_first_message_that_contradicts_its_header_is_refused() -> None:
    receiver = Receiver(Tape(recorded((Kind.HELLO, b"{}", 0))))
    receiver.receive(1)
    receiver.bind(REIGN)
    with pytest.raises(StreamGarbage):
        receiver.bind(Reign("c1", "vm1", 3, 8))


@given(st.binary(max_size=200))
def test_first_words_and_ends_of_steps_refuse_garbage(content: bytes) -> None:
    with pytest.raises(StreamGarbage):
        handshake.unpack(memoryview(content), Hello)
    with pytest.raises(StreamGarbage):
        handshake.unpack(memoryview(content), Welcome)
    try:
        head, state, output = handshake.unpack_step(memoryview(content), 2)
    except Failed:
        return
    assert len(state) == head.state_bytes
    assert [len(frames) for frames in output] == list(head.output)


def test_the_end_of_a_step_comes_apart_as_it_was_put_together() -> None:
    head = StepHead(3, 4, 5, (2, 0))
    payload = memoryview(handshake.pack_head(head) + b"state" + b"ab")
    assert handshake.unpack_step(payload, 2) == (head, memoryview(b"state"), [b"ab", b""])
    with pytest.raises(StreamGarbage):
        handshake.unpack_step(payload, 1)


writes = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 90), st.integers(1, 10), st.booleans()), min_size=1, max_size=8
)


@given(writes)
def test_disk_writes_travel_unchanged(drawn: list[tuple[int, int, int, bool]]) -> None:
    sent = [DiskWrite(disk, at, size, bytearray(b"d" * size) if data else None) for disk, at, size, data in drawn]
    arrived = [each for parts in pack(sent) for each in unpack(memoryview(b"".join(parts)), (100, 100))]
    assert [(w.disk, w.offset, w.length, w.data and bytes(w.data)) for w in arrived] == [
        (w.disk, w.offset, w.length, w.data and bytes(w.data)) for w in sent
    ]


@given(st.binary(max_size=120))
def test_disk_writes_stay_within_their_disks(content: bytes) -> None:
    try:
        arrived = unpack(memoryview(content), (100, 50))
    except StreamGarbage:
        return
    assert all(write.offset + write.length <= (100, 50)[write.disk] for write in arrived)


def linked() -> tuple[Link, Link]:
    first, second = socket.socketpair()
    return Link(first), Link(second)


def test_a_link_carries_large_messages_both_ways_at_once() -> None:
    ours, theirs = linked()
    data = bytes(range(256)) * 20_000
    got = [bytearray(len(data)), bytearray(len(data))]
    with ours, theirs:
        threads = [
            threading.Thread(target=ours.send, args=(data, 10)),
            threading.Thread(target=theirs.send, args=(data, 10)),
            threading.Thread(target=ours.receive_into, args=(memoryview(got[0]), 10)),
            threading.Thread(target=theirs.receive_into, args=(memoryview(got[1]), 10)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [data, data]


def test_a_silent_peer_ends_a_wait_and_closing_ends_it_at_once() -> None:
    ours, theirs = linked()
    with ours, theirs:
        with pytest.raises(LinkBroken, match="too long"):
            ours.receive_into(memoryview(bytearray(1)), 0.05)
        closing = threading.Timer(0.05, ours.close)
        closing.start()
        with pytest.raises(LinkBroken):
            ours.receive_into(memoryview(bytearray(1)), None)
        closing.join()
        with pytest.raises(LinkBroken):
            theirs.receive_into(memoryview(bytearray(1)), 5)


def test_bandwidth_is_kept_over_time() -> None:
    now = [10.0]
    bandwidth = Bandwidth(1000.0, lambda: now[0])
    waited = 0.0
    for _ in range(100):
        wait_s = bandwidth.wait_s(100)
        now[0] += wait_s
        waited += wait_s
    assert 9.5 <= waited <= 10.0
    assert Bandwidth(None).wait_s(1 << 40) == 0.0
