"""Frames of a protected guest: none leaves before its mark is released; none is lost or doubled, either way."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.replication.frames import MOST_FRAME_BYTES, FrameHold, FramesInvalid, join_frames, split_frames
from outlive.replication.library import KernelFailed

from .port_scene import MOMENT_S, PATIENCE_S, Port, readable

Start = Callable[..., Port]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    ports: list[Port] = []

    def make(**how: Any) -> Port:
        folder = tmp_path / str(len(ports))
        folder.mkdir()
        ports.append(Port(folder, **how))
        return ports[-1]

    yield make
    for port in ports:
        port.close()


@pytest.fixture
def port(start: Start) -> Port:
    return start()


def frames(name: str, count: int, size: int = 200) -> list[bytes]:
    return [f"{name} {number} ".encode().ljust(size, b".") for number in range(count)]


# --- outgoing


def test_free_frames_pass_both_ways_in_order(port: Port) -> None:
    port.guest_sends(*frames("out", 50))
    port.outside_sends(*frames("in", 8))
    assert port.outside_gets(50) == frames("out", 50)
    assert port.guest_gets(8) == frames("in", 8)
    counts = port.hold.counts()
    assert (counts.guest_frames, counts.sent_frames, counts.delivered_frames) == (50, 50, 8)
    assert (counts.held_frames, counts.held_bytes) == (0, 0)


def test_held_frames_leave_up_to_the_released_mark_and_no_further(port: Port) -> None:
    port.hold.hold()
    first, second, third = frames("first", 3), frames("second", 40), frames("third", 2)
    port.guest_sends(*first)
    mark = port.hold.cut()
    port.guest_sends(*second)
    later = port.hold.cut()
    port.guest_sends(*third)
    assert port.nothing_comes_out()
    port.hold.release(mark)
    assert port.outside_gets(3) == first
    assert port.nothing_comes_out()
    port.hold.release(mark)
    port.hold.release(later)
    assert port.outside_gets(40) == second
    assert port.nothing_comes_out()
    port.hold.free()
    assert port.outside_gets(2) == third


def test_held_frame_is_told_once_until_the_next_cut(port: Port) -> None:
    port.guest_sends(b"free")
    assert port.outside_gets(1) == [b"free"]
    port.hold.hold()
    assert not readable(port.hold.waiting_fd, MOMENT_S)
    port.guest_sends(b"held")
    assert readable(port.hold.waiting_fd)
    port.hold.cut()
    assert not readable(port.hold.waiting_fd, MOMENT_S)
    port.guest_sends(b"again")
    assert readable(port.hold.waiting_fd)


def test_a_mark_that_is_still_to_come_is_refused(port: Port) -> None:
    port.hold.hold()
    port.guest_sends(b"held")
    with pytest.raises(KernelFailed):
        port.hold.release(port.hold.cut() + 16)
    assert port.nothing_comes_out()


def test_output_between_two_marks_is_told_until_it_left(port: Port) -> None:
    port.hold.hold()
    marks = [port.hold.cut()]
    for name in ("a", "b"):
        port.guest_sends(*frames(name, 5))
        marks.append(port.hold.cut())
    assert split_frames(port.hold.output(marks[0], marks[1])) == frames("a", 5)
    assert split_frames(port.hold.output(marks[0], marks[2])) == [*frames("a", 5), *frames("b", 5)]
    assert port.hold.output(marks[1], marks[1]) == b""
    port.hold.release(marks[1])
    with pytest.raises(KernelFailed):
        port.hold.output(marks[0], marks[1])
    assert split_frames(port.hold.output(marks[1], marks[2])) == frames("b", 5)


def test_what_is_discarded_never_leaves_and_released_frames_do(port: Port) -> None:
    port.hold.hold()
    port.guest_sends(*frames("committed", 200))
    mark = port.hold.cut()
    port.guest_sends(*frames("lost", 5))
    lost = port.hold.cut()
    port.hold.release(mark)
    port.hold.discard()
    port.hold.release(lost)
    port.guest_sends(b"next")
    port.hold.release(port.hold.cut())
    assert port.outside_gets(201) == [*frames("committed", 200), b"next"]
    assert port.nothing_comes_out()


def test_a_full_hold_makes_the_guest_wait_and_loses_nothing(start: Start) -> None:
    port = start(held_bytes=256 << 10)
    port.hold.hold()
    sent = frames("big", 700, 1500)
    sender = threading.Thread(target=port.guest_sends, args=sent)
    sender.start()
    got: list[bytes] = []
    while len(got) < 700:
        assert select.select([port.hold.waiting_fd, port.outside.fileno()], [], [], PATIENCE_S)[0]
        mark = port.hold.cut()
        assert port.hold.counts().held_bytes <= 256 << 10
        port.hold.release(mark)
        while more := port.outside_gets(1000, 0):
            got += more
    sender.join()
    assert got == sent
    assert port.hold.counts().full_times > 0


def test_a_hold_full_of_few_large_frames_goes_on_when_they_left(start: Start) -> None:
    port = start(held_bytes=256 << 10)
    port.hold.hold()
    sent = frames("large", 20, 60_000)
    sender = threading.Thread(target=port.guest_sends, args=sent)
    sender.start()
    got: list[bytes] = []
    while len(got) < 20:
        assert readable(port.hold.waiting_fd)
        # The thread has filled what room there is; what it lacks is told to nobody but by this release.
        threading.Event().wait(0.01)
        port.hold.release(port.hold.cut())
        while more := port.outside_gets(20, 0):
            got += more
    sender.join()
    assert got == sent


def test_frames_of_any_size_and_none_larger(port: Port) -> None:
    sizes = [1, 15, 16, 17, 60, 1514, 9014, 65_000, MOST_FRAME_BYTES]
    port.qemu.sendto(bytes(MOST_FRAME_BYTES + 1), str(port.ours))
    port.qemu.sendto(b"", str(port.ours))
    for size in sizes:
        port.guest_sends(bytes([size % 251]) * size)
        assert port.outside_gets(1) == [bytes([size % 251]) * size]
    assert port.hold.counts().send_dropped == 2


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 30)),
            st.tuples(st.sampled_from(("hold", "free", "cut", "release", "discard")), st.integers(0, 3)),
        ),
        max_size=25,
    )
)
def test_any_course_agrees_with_the_plain_twin(tmp_path_factory: pytest.TempPathFactory, course: list[Any]) -> None:
    port = Port(tmp_path_factory.mktemp("port"), held_bytes=256 << 10)
    try:
        left: list[bytes] = []
        held: list[bytes] = []
        marks, holds, number, taken = [(0, 0)], False, 0, 0
        for do, value in course:
            if do == "send":
                sent = [f"{number + index}".encode().ljust(10 + 700 * (index % 3)) for index in range(value)]
                number += value
                port.guest_sends(*sent)
                mark = port.hold.cut()
                taken += value
                marks.append((mark, taken))
                (held if holds else left).extend(sent)
            elif do == "hold":
                port.hold.hold()
                holds = True
            elif do == "free":
                port.hold.free()
                left, held, holds = left + held, [], False
            elif do == "discard":
                port.hold.discard()
                if holds:
                    held = []
            elif do == "release":
                mark, until = marks[max(0, len(marks) - 1 - value)]
                port.hold.release(mark)
                gone = [frame for frame in held if int(frame) < until]
                left, held = left + gone, held[len(gone) :]
            # What is sent while free may be discarded before it left, so let it leave.
            assert port.outside_gets(len(left)) == left
            left = []
        assert not readable(port.outside.fileno(), 0.001)
        assert port.hold.counts().held_frames == len(held)
    finally:
        port.close()


# --- incoming


def test_a_guest_that_takes_no_frames_loses_none_of_the_taps(port: Port) -> None:
    sent = frames("in", 600, 1500)
    port.outside_sends(*sent)
    wait_for(lambda: port.hold.counts().tap_frames == 600)
    assert port.guest_gets(600) == sent
    assert port.hold.counts().deliver_dropped == 0


def test_frames_for_a_qemu_that_is_not_there_are_dropped_and_counted(start: Start) -> None:
    port = start(connected=False)
    port.outside_sends(b"early")
    wait_for(lambda: port.hold.counts().deliver_dropped > 0)
    port.guest.connect(str(port.theirs))
    port.outside_sends(b"now")
    assert port.guest_gets(1) == [b"now"]


def test_a_standby_keeps_what_comes_and_delivers_it_when_told(start: Start) -> None:
    port = start(collect=True)
    port.outside_sends(*frames("old", 5))
    wait_for(lambda: port.hold.counts().kept_frames == 5)
    port.hold.forget_kept()
    port.outside_sends(*frames("new", 5))
    wait_for(lambda: port.hold.counts().kept_frames == 10)
    assert port.nothing_comes_in()
    port.hold.inject_inbound(join_frames([b"replayed"]))
    port.hold.deliver()
    port.outside_sends(b"live")
    assert port.guest_gets(7) == [b"replayed", *frames("new", 5), b"live"]
    assert port.nothing_comes_in()


def test_kept_frames_that_are_too_old_are_not_delivered(start: Start) -> None:
    port = start(collect=True)
    port.outside_sends(b"old")
    wait_for(lambda: port.hold.counts().kept_frames == 1)
    port.hold.deliver(max_age_s=0)
    port.outside_sends(b"live")
    assert port.guest_gets(1) == [b"live"]


def test_a_full_keeper_forgets_the_oldest(start: Start) -> None:
    port = start(collect=True, inbound_bytes=256 << 10)
    sent = frames("in", 600, 1500)
    port.outside_sends(*sent)
    wait_for(lambda: port.hold.counts().kept_frames == 600)
    port.hold.deliver()
    kept = 600 - port.hold.counts().kept_dropped
    assert 50 < kept < 200
    assert port.guest_gets(kept) == sent[-kept:]
    assert port.nothing_comes_in()


def test_incoming_frames_are_copied_for_the_standby_and_still_delivered(port: Port) -> None:
    port.outside_sends(b"before")
    assert port.guest_gets(1) == [b"before"]
    port.hold.copy_inbound(True)
    assert not readable(port.hold.copied_fd, MOMENT_S)
    port.outside_sends(*frames("in", 3))
    assert port.guest_gets(3) == frames("in", 3)
    assert readable(port.hold.copied_fd)
    assert split_frames(port.hold.take_copied()) == frames("in", 3)
    assert not readable(port.hold.copied_fd, MOMENT_S)
    port.hold.copy_inbound(False)
    port.outside_sends(b"after")
    assert port.guest_gets(1) == [b"after"]
    assert port.hold.take_copied() == b""


def test_copies_that_nobody_takes_are_bounded(start: Start) -> None:
    port = start(copied_bytes=256 << 10)
    port.hold.copy_inbound(True)
    sent = frames("in", 300, 1500)
    sender = threading.Thread(target=port.outside_sends, args=sent)
    sender.start()
    assert port.guest_gets(300) == sent
    sender.join()
    copied = split_frames(port.hold.take_copied())
    assert copied == sent[: len(copied)]
    assert len(copied) + port.hold.counts().copy_dropped == 300
    assert 150 < len(copied) < 180


# --- lists of frames


def test_frames_sent_out_pass_what_is_held(port: Port) -> None:
    port.hold.hold()
    port.guest_sends(b"held")
    port.hold.cut()
    assert port.hold.send_out(join_frames([b"announced", b"again"])) == 2
    assert port.outside_gets(2) == [b"announced", b"again"]
    assert port.nothing_comes_out()


def test_many_injected_frames_wait_for_the_guest_to_take_them(port: Port) -> None:
    sent = frames("replayed", 500)
    port.hold.inject_inbound(join_frames(sent[:300]))
    port.hold.inject_inbound(join_frames(sent[300:]))
    assert port.guest_gets(500) == sent
    with pytest.raises(KernelFailed):
        port.hold.inject_inbound(join_frames([bytes(60_000)] * 150))


@given(st.binary(max_size=60) | st.lists(st.binary(min_size=1, max_size=30)).map(join_frames))
def test_lists_of_frames_are_judged_as_the_plain_twin_judges_them(listed: bytes) -> None:
    port = shared_port()
    try:
        expected = split_frames(listed)
    except FramesInvalid:
        for method in (port.hold.inject_inbound, port.hold.send_out):
            with pytest.raises(KernelFailed):
                method(listed)
        return
    assert join_frames(expected) == listed
    assert port.hold.send_out(listed) == len(expected)
    assert port.outside_gets(len(expected)) == expected


_shared: list[Port] = []


def shared_port() -> Port:
    """One port for all examples of hypothesis."""
    return _shared[0]


@pytest.fixture(autouse=True, scope="module")
def _one_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    _shared.append(Port(tmp_path_factory.mktemp("shared")))
    yield
    _shared.pop().close()


# --- the whole


def test_closing_leaves_no_thread_and_no_descriptor(start: Start) -> None:
    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    port = start()
    before = state()
    for _ in range(10):
        hold = FrameHold(port.tap.fileno(), port.guest.fileno(), held_bytes=256 << 10)
        hold.hold()
        hold.close()
        hold.close()
    assert state() == before


def test_what_cannot_be_watched_is_refused(tmp_path: Path, port: Port) -> None:
    with open(tmp_path / "file", "wb") as file, pytest.raises(KernelFailed):
        FrameHold(file.fileno(), port.guest.fileno())
    with pytest.raises(KernelFailed):
        FrameHold(port.tap.fileno(), port.guest.fileno(), held_bytes=1000)


def test_a_tap_that_is_gone_is_told_and_does_not_spin(start: Start) -> None:
    port = start()
    port.outside.close()
    port.guest_sends(b"lost")
    wait_for(lambda: port.hold.counts().send_dropped == 1)
    assert idle()
    assert port.hold.counts().tap_errno


def test_a_qemu_that_went_and_came_again_gets_frames_once_connected(start: Start) -> None:
    port = start()
    port.hold.hold()
    port.qemu.close()
    port.outside_sends(b"lost")
    wait_for(lambda: port.hold.counts().deliver_dropped == 1)
    assert idle()
    port.theirs.unlink()
    port.qemu = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    port.qemu.bind(str(port.theirs))
    port.guest.connect(str(port.theirs))
    port.outside_sends(b"in")
    assert port.guest_gets(1) == [b"in"]
    port.guest_sends(b"out")
    port.hold.release(port.hold.cut())
    assert port.outside_gets(1) == [b"out"]
    assert port.hold.counts().guest_errno == 0
    assert idle()


def idle() -> bool:
    """Whether this process, frame threads included, hardly computes for a moment."""
    used = time.process_time()
    threading.Event().wait(0.3)
    return time.process_time() - used < 0.2


REAL_TAP = """
import fcntl, os, socket, struct, subprocess, sys, time
from pathlib import Path
from outlive.replication.frames import FrameHold, guest_socket
folder = Path(sys.argv[1])
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22s", b"port0", 0x1002, b""))
run = lambda line: subprocess.run(line.split(), check=True)
run("ip link set port0 address 02:00:00:00:00:01 up")
run("ip address add 10.9.8.1/24 dev port0")
run("ip neighbour add 10.9.8.2 lladdr 02:00:00:00:00:02 dev port0")
qemu = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); qemu.bind(str(folder / "theirs")); qemu.settimeout(60)
guest = guest_socket(folder / "ours"); guest.connect(str(folder / "theirs"))
hold = FrameHold(tap, guest.fileno())
host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); host.bind(("10.9.8.1", 5000)); host.settimeout(60)
host.sendto(b"to the guest", ("10.9.8.2", 6000))
while b"to the guest" not in (frame := qemu.recv(70000)):
    pass
header, ip, udp = frame[:14], bytearray(frame[14:34]), bytearray(frame[34:42])
ip[12:16], ip[16:20] = ip[16:20], ip[12:16]
udp[0:2], udp[2:4], udp[6:8] = udp[2:4], udp[0:2], bytes(2)
hold.hold()
qemu.sendto(header[6:12] + header[:6] + header[12:] + ip + udp + frame[42:], str(folder / "ours"))
mark = hold.cut()
host.settimeout(0.1)
try:
    host.recv(100); raise SystemExit("a held frame left")
except TimeoutError:
    pass
host.settimeout(60)
hold.release(mark)
assert host.recvfrom(100) == (b"to the guest", ("10.9.8.2", 6000))
run("ip link set port0 down")
qemu.sendto(bytes(60), str(folder / "ours")); hold.release(hold.cut())
while hold.counts().send_dropped == 0:
    time.sleep(0.005)
run("ip link delete port0")
while hold.counts().tap_errno == 0:
    time.sleep(0.005)
hold.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_real_tap_carries_frames_and_says_when_it_is_gone(tmp_path: Path) -> None:
    subprocess.run(
        ["unshare", "--net", sys.executable, "-c", REAL_TAP, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=90,
    )


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(4000):
        if holds():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not come about")
