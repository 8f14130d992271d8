"""Frames leave when their epoch is acknowledged, and what is repeated after a takeover harms nobody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.replication import ports
from outlive.replication.device_state import DeviceStateUnusable, find_prefix, splice
from outlive.replication.ports import Freedom, Ports, may_repeat, rarp

ETHERNET = b"\x02" * 12


def ipv4(protocol: int) -> bytes:
    return ETHERNET + b"\x08\x00" + bytes([0x45]) + bytes(8) + bytes([protocol]) + bytes(30)


def ipv6(protocol: int) -> bytes:
    return ETHERNET + b"\x86\xdd" + bytes(6) + bytes([protocol]) + bytes(60)


@pytest.mark.parametrize(
    ("frame", "repeated"),
    [
        (ipv4(6), True),
        (ipv6(6), True),
        (ETHERNET + b"\x08\x06" + bytes(28), True),
        (rarp("52:54:00:77:00:10"), True),
        (ipv4(17), False),
        (ipv6(17), False),
        (ipv4(1), False),
        (ETHERNET + b"\x88\xcc" + bytes(50), False),
    ],
)
def test_only_what_bears_repeating_is_repeated(frame: bytes, repeated: bool) -> None:
    assert may_repeat(frame) is repeated


@given(st.binary(max_size=80))
def test_no_frame_is_too_strange_to_judge(frame: bytes) -> None:
    may_repeat(frame)


def test_an_announcement_says_the_cards_own_address() -> None:
    frame = rarp("52:54:00:77:00:10")
    own = bytes.fromhex("525400770010")
    assert (frame[:6], frame[6:12], frame[12:14], len(frame)) == (b"\xff" * 6, own, b"\x80\x35", 60)


class Hold:
    """Stands for one port's frames: remembers what was released."""

    held_frames = 3

    def __init__(self) -> None:
        self.mark = 0
        self.released: list[int] = []

    def hold(self) -> None: ...
    def free(self) -> None: ...
    def copy_inbound(self, on: bool) -> None: ...
    def counts(self) -> "Hold":
        return self

    def cut(self) -> int:
        self.mark += 10
        return self.mark

    def release(self, mark: int) -> None:
        self.released.append(mark)


def held() -> tuple[Ports, Hold]:
    made, hold = Ports([], collect=False), Hold()
    made._holds = [hold]  # type: ignore[list-item]
    made.hold()
    return made, hold


def test_an_acknowledgement_lets_go_of_its_epoch_and_those_before_it() -> None:
    made, hold = held()
    for epoch in (5, 6, 7):
        made.cut(epoch)
    made.acknowledged(6)
    assert hold.released == [30]
    with pytest.raises(AssertionError):
        made.acknowledged(5)


def test_nothing_leaves_that_was_not_acknowledged() -> None:
    made, hold = held()
    made.cut(5)
    with pytest.raises(AssertionError):
        made._release(5)
    with pytest.raises(AssertionError):
        made.acknowledged(6)
    with pytest.raises(AssertionError):
        made.free("because")  # type: ignore[arg-type]
    assert hold.released == []
    assert made.free(Freedom.WON_THE_STORE) == 3
    with pytest.raises(AssertionError):
        made.acknowledged(5)


def test_frames_in_lists_are_counted() -> None:
    assert ports.frame_count([b"\1\0\0\0a\2\0\0\0bc", b""]) == 2


STATE = b"QEVM\0\0\0\3" + bytes(range(64)) + b"the devices"


def test_a_prefix_is_found_and_spliced_before_a_later_state() -> None:
    stream = b"QEVM\0\0\0\3 memory and roms " + STATE[8:] + b" description"
    prefix = find_prefix(stream, STATE)
    later = STATE[:-7] + b"changed"
    assert splice(prefix, later) == prefix + later[8:]


@pytest.mark.parametrize(
    ("stream", "state"),
    [(b"QEVM....", STATE), (b"XXXX" + STATE[8:], STATE), (b"QEVM" + STATE[8:] * 2, STATE), (STATE, b"QEVM short")],
)
def test_what_does_not_look_as_it_must_is_never_spliced(stream: bytes, state: bytes) -> None:
    with pytest.raises(DeviceStateUnusable):
        find_prefix(stream, state)
