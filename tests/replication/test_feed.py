"""The primary's end of a pairing, with a standby whose every word and silence is the test's."""

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlive.replication import feed as feeds
from outlive.replication.comm_config import HotValues
from outlive.replication.control import Pair
from outlive.replication.control_server import Wake
from outlive.replication.feed import Callbacks, Feed, Step
from outlive.replication.keepalive import SIZE
from outlive.replication.kernels import Staging
from outlive.replication.memory import PAGE_BYTES, Memory, Runs
from outlive.replication.ports import Ports
from outlive.replication.stream import Kind, Reign

from .pretended_config import primary_config
from .pretended_qemu import STATE
from .pretended_standby import PretendedStandby, Pulse

PAGES = 512
FULL_PAGES = 250
REIGN = Reign("c1", "vm1", 1, 1)
PATIENT = HotValues(silence_ms=60_000, progress_s=60.0)


class Scene:
    """A connected feed, the standby's end of its stream, and what the feed told."""

    def __init__(self, folder: Path, hot: HotValues) -> None:
        self.acknowledged: list[int] = []
        self.lost: list[str] = []
        self.told = threading.Event()
        self.standby = PretendedStandby(REIGN)
        self.ports = Ports([], collect=False)
        self.wake = Wake()
        pair = Pair("b", "127.0.0.1", self.standby.port, 1, 1)
        config = primary_config(folder, PAGES, hot=hot)
        self.feed = Feed(config, pair, self.ports, Callbacks(self._acknowledged, self._lost), self.wake)
        self.feed.connect()
        keepalive: Any = self.feed._keepalive
        self.pulse: Pulse = keepalive

    def step(self, number: int, pages: int = 1, *, seeding: bool = False) -> Step:
        source = Memory.allocate(PAGES * PAGE_BYTES)
        source.view[: pages * PAGE_BYTES] = os.urandom(pages * PAGE_BYTES)
        staging = Staging(PAGES)
        staging.copy_out(source, Runs.of([(0, pages)]))
        return Step(number, [staging], state=STATE, seeding=seeding)

    def until(self, so: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not so():
            assert time.monotonic() < deadline, (self.acknowledged, self.lost)
            time.sleep(0.002)

    def until_acknowledged(self, number: int) -> None:
        self.until(lambda: number in self.acknowledged)

    def close(self) -> None:
        self.feed.close()
        self.standby.close()
        self.ports.close()

    def _acknowledged(self, number: int, final: bool) -> None:
        self.acknowledged.append(number)

    def _lost(self, reason: str, silent_s: float) -> None:
        self.lost.append(reason)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[HotValues], Scene]]:
    monkeypatch.setattr(feeds, "KeepAlive", Pulse)
    made: list[Scene] = []

    def make(hot: HotValues) -> Scene:
        made.append(Scene(tmp_path, hot))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


def test_handing_over_never_stands_behind_a_standby_that_does_not_read(scenes: Callable[[HotValues], Scene]) -> None:
    scene = scenes(PATIENT)
    scene.feed.start(b"prefix")
    began = time.monotonic()
    scene.feed.put(scene.step(1))
    for number in range(2, 42):
        scene.feed.put(scene.step(number, FULL_PAGES))
    assert time.monotonic() - began < PATIENT.progress_s / 2
    assert not scene.feed.lost
    assert scene.standby.reads_until(Kind.EPOCH) == [Kind.PREFIX, Kind.PAGES, Kind.EPOCH]


def test_a_limited_bandwidth_is_kept_by_somebody_else_than_who_hands_over(
    scenes: Callable[[HotValues], Scene],
) -> None:
    scene = scenes(HotValues(silence_ms=60_000, progress_s=60.0, bandwidth_mib_s=0.25))
    began = time.monotonic()
    scene.feed.start(os.urandom(8 << 20))
    scene.feed.put(scene.step(1, FULL_PAGES))
    assert time.monotonic() - began < 15, "32 s of prefix and 4 s of pages"


def test_the_prefix_is_the_first_thing_that_a_standby_gets(scenes: Callable[[HotValues], Scene]) -> None:
    scene = scenes(PATIENT)
    scene.feed.start(os.urandom(1 << 20))
    scene.feed.put(scene.step(1))
    assert scene.standby.reads_until(Kind.EPOCH) == [Kind.PREFIX, Kind.PAGES, Kind.EPOCH]


def test_steps_arrive_in_their_order_whoever_sends_them(scenes: Callable[[HotValues], Scene]) -> None:
    scene = scenes(PATIENT)
    scene.feed.start(b"prefix")
    arrived: list[tuple[Kind, int]] = []
    ended = threading.Event()

    def follow() -> None:
        while not ended.is_set():
            message = scene.standby.receiver.receive(30)
            arrived.append((message.kind, message.epoch))
            if message.kind is Kind.EPOCH:
                scene.standby.acknowledges(message.epoch)
                if message.epoch == 300:
                    return

    standby = threading.Thread(target=follow, daemon=True)
    standby.start()
    for number in range(1, 301):
        step = scene.step(number, 3)
        if number % 7 == 0:
            scene.feed.put_pages(number, step.pages)
            step = scene.step(number, 2)
        scene.feed.put(step)
        scene.until(lambda: scene.feed.room(3))
    standby.join(60)
    ended.set()
    scene.until(lambda: len(scene.acknowledged) == 300)
    assert arrived.pop(0) == (Kind.PREFIX, 0)
    parts = [[Kind.PAGES] * (2 if number % 7 == 0 else 1) + [Kind.EPOCH] for number in range(1, 301)]
    assert arrived == [(kind, number) for number, kinds in enumerate(parts, 1) for kind in kinds]
    assert scene.acknowledged == list(range(1, 301))
    assert not scene.lost


@pytest.mark.parametrize("before", [0, 1])
def test_what_is_acknowledged_while_this_manager_stood_still_is_no_leave_to_speak(
    scenes: Callable[[HotValues], Scene], before: int
) -> None:
    scene = scenes(HotValues(silence_ms=5000.0))
    scene.feed.start(b"prefix")
    for number in range(1, 2 + before):
        scene.feed.put(scene.step(number, seeding=number == 1))
        scene.standby.acknowledges(number)
        scene.until_acknowledged(number)
    scene.feed.put(scene.step(2 + before))
    scene.pulse.stood_s = 5.001
    scene.standby.acknowledges(2 + before)
    scene.until(lambda: scene.lost)
    assert scene.acknowledged == list(range(1, 2 + before))
    assert scene.lost == ["this manager itself stood still"]


@pytest.mark.parametrize("_", range(5))
def test_that_it_is_lost_is_said_once_whoever_finds_out(scenes: Callable[[HotValues], Scene], _: int) -> None:
    scene = scenes(PATIENT)
    scene.feed.start(b"prefix")
    scene.standby.close()
    for number in range(1, 9):
        scene.feed.put(scene.step(number))
    scene.until(lambda: scene.lost)
    assert len(scene.lost) == 1


def test_a_feed_that_ended_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "KeepAlive", Pulse)

    def once() -> int:
        scene = Scene(tmp_path, PATIENT)
        scene.feed.start(b"prefix")
        scene.feed.put(scene.step(1))
        scene.close()
        del scene
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = once()
    for _ in range(5):
        after = once()
    assert after <= before


def test_a_standby_hears_its_primary_from_its_welcome_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, PATIENT)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", scene.standby.port))
            datagrams.settimeout(60)
            assert len(datagrams.recv(1000)) == SIZE
    finally:
        scene.close()
