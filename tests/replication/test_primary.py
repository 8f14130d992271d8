"""What a primary does with commands and acknowledgements that come at the worst moment; QEMU and standby pretended."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from outlive.replication import feed as feeds
from outlive.replication.comm_config import HotValues
from outlive.replication.control import (
    Alone,
    Command,
    Event,
    HandedOver,
    HandOver,
    Pair,
    Paired,
    PeerLost,
    WentAlone,
)
from outlive.replication.control_server import Wake
from outlive.replication.feed import FINAL, SEEDING
from outlive.replication.link import LinkBroken
from outlive.replication.machine import Machine
from outlive.replication.memory import PAGE_BYTES
from outlive.replication.ports import Ports
from outlive.replication.primary import Primary
from outlive.replication.stream import Kind, Reign

from .pretended_config import primary_config
from .pretended_memory import Written
from .pretended_qemu import PretendedQemu
from .pretended_standby import PretendedStandby, Pulse

PAGES = 64
Told = TypeVar("Told")


class Over(Exception):
    """Ends a primary, which in earnest only the end of its process does."""


class Agent:
    """The agent's side of the control conversation. is_over: the primary that listens is to end."""

    def __init__(self, wake: Wake) -> None:
        self.commands: deque[Command] = deque()
        self.told: list[Event] = []
        self.is_over = False
        self._wake = wake

    def says(self, command: Command) -> None:
        self.commands.append(command)
        self._wake.set()

    def command(self) -> Command | None:
        if self.is_over and not self.commands:
            raise Over
        return self.commands.popleft() if self.commands else None

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def hears(self, kind: type[Told]) -> Told:
        until(lambda: any(isinstance(event, kind) for event in self.told))
        return next(event for event in self.told if isinstance(event, kind))


def until(so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Scene:
    """A primary that runs, paired with the first whole epoch acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.qemu = PretendedQemu(folder / "qmp")
        (folder / "ram").write_bytes(b"a" * PAGES * PAGE_BYTES)
        (folder / f"device-prefix.{os.getpid()}").write_bytes(b"prefix")
        config = primary_config(folder, PAGES, pairing=0, hot=HotValues(silence_ms=60_000, idle_ms=5.0))
        wake = Wake()
        self.agent = Agent(wake)
        told: Any = self.agent
        self.ports = Ports([], collect=False)
        self.machine = Machine(config, self.ports, wake.set)
        self.machine._tracker = Written(self.machine.memory)
        self.primary = Primary(config, told, wake, self.ports, self.machine, 1)
        self._running = threading.Thread(target=self._run, daemon=True)
        self._running.start()
        self.standbys: list[PretendedStandby] = []
        self.pairs(1)

    def _run(self) -> None:
        with contextlib.suppress(Over):
            self.primary.run()

    @property
    def standby(self) -> PretendedStandby:
        """That of the present pairing."""
        return self.standbys[-1]

    def pairs(self, pairing: int) -> None:
        """Have a new standby seeded, and acknowledge its first whole epoch."""
        self.standbys.append(PretendedStandby(Reign("c1", "vm1", 1, pairing)))
        self.agent.told.clear()
        self.agent.says(Pair("b", "127.0.0.1", self.standby.port, 1, pairing))
        while self.acknowledges_next() & SEEDING:
            pass
        self.agent.hears(Paired)

    def acknowledges_next(self) -> int:
        """Read a step and acknowledge it; returns its flags."""
        self.standby.reads_until(Kind.EPOCH)
        self.standby.acknowledges(self.standby.epoch)
        return self.standby.flags

    def reads_the_final_epoch(self) -> int:
        """Acknowledge all before the final epoch, and return its number unacknowledged."""
        while True:
            self.standby.reads_until(Kind.EPOCH)
            if self.standby.flags & FINAL:
                return self.standby.epoch
            self.standby.acknowledges(self.standby.epoch)

    def runs(self) -> bool:
        return self.qemu.running

    def close(self) -> None:
        self.agent.is_over = True
        self.agent.says(Alone(1 << 30))
        self._running.join(60)
        assert not self._running.is_alive()
        self.machine.close()
        for standby in self.standbys:
            standby.close()
        self.qemu.close()
        self.ports.close()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(feeds, "KeepAlive", Pulse)
    made = Scene(tmp_path)
    yield made
    made.close()


def test_a_last_epoch_is_handed_over_when_it_is_acknowledged_and_another_after_it_was_taken_back(scene: Scene) -> None:
    for pairing in (1, 3):
        scene.agent.says(HandOver())
        final = scene.reads_the_final_epoch()
        assert not scene.runs()
        scene.standby.acknowledges(final)
        assert scene.agent.hears(HandedOver).epoch == final
        assert not scene.runs()
        if pairing == 1:
            scene.agent.says(Alone(2))
            until(scene.runs)
            scene.pairs(3)


def test_a_last_epoch_that_was_taken_back_hands_nothing_over_when_its_acknowledgement_comes(scene: Scene) -> None:
    scene.agent.says(HandOver())
    final = scene.reads_the_final_epoch()
    left = scene.standby
    scene.agent.says(Alone(2))
    until(scene.runs)
    with contextlib.suppress(LinkBroken):
        left.acknowledges(final)
    scene.pairs(3)
    for _ in range(5):
        assert not scene.acknowledges_next(), "epochs go on, or the guest would never be heard again"
    assert not any(isinstance(event, HandedOver) for event in scene.agent.told)
    assert scene.primary.status().phase == "paired"


def test_alone_is_obeyed_while_nothing_is_acknowledged_and_the_guest_was_to_be_handed_over(scene: Scene) -> None:
    scene.agent.says(HandOver())
    scene.reads_the_final_epoch()
    scene.agent.says(Alone(2))
    scene.agent.hears(WentAlone)
    until(scene.runs)
    assert scene.primary.status().phase == "free"


def test_a_standby_that_goes_away_is_told_once_and_everything_is_held(scene: Scene) -> None:
    scene.standby.close()
    scene.agent.hears(PeerLost)
    until(lambda: scene.primary.status().phase == "lost")
    time.sleep(0.05)
    assert [type(event) for event in scene.agent.told].count(PeerLost) == 1
    until(scene.runs)


def test_a_thread_of_a_pairing_that_is_over_says_nothing_in_the_next(scene: Scene) -> None:
    late = scene.primary._feed
    assert late is not None
    scene.agent.says(Alone(2))
    scene.agent.hears(WentAlone)
    scene.pairs(3)
    before = scene.primary.status()
    # As if a descriptor had kept it from ending.
    late._lost.clear()
    late._callbacks.acknowledged(before.epoch + 1, True)
    late._callbacks.lost("silence", 1.0)
    after = scene.primary.status()
    assert (after.phase, after.reason) == ("paired", "")
    assert after.epoch == before.epoch
    assert not any(isinstance(event, (HandedOver, PeerLost)) for event in scene.agent.told)
