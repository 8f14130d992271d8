"""However a cut ends, every later answer of QEMU is that of its own command, and the guest runs if it ran before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.replication.device_state import DeviceStateUnusable
from outlive.replication.kernels import Staging
from outlive.replication.machine import Cut, Machine, StandbyLost
from outlive.replication.memory import PAGE_BYTES
from outlive.replication.ports import Ports
from outlive.replication.qmp_line import QemuRefused
from outlive.replication.tracking import TrackingFailed

from .pretended_config import primary_config
from .pretended_memory import Written
from .pretended_qemu import STATE, PretendedQemu

PAGES = 64


class Scene:
    """A machine whose QEMU is pretended."""

    def __init__(self, folder: Path) -> None:
        self.qemu = PretendedQemu(folder / "qmp")
        (folder / "ram").write_bytes(bytes(PAGES * PAGE_BYTES))
        self.ports = Ports([], collect=False)
        self.ports.hold()
        self.machine = Machine(primary_config(folder, PAGES), self.ports, lambda: None)
        self.tracker = self.machine._tracker = Written(self.machine.memory)
        self.epoch = 0
        self.room = Staging(PAGES)
        self.taken: list[bytes] = []

    def staging(self, _: list[Staging]) -> Staging:
        return self.room

    def take(self, cut: Cut) -> None:
        self.taken.append(cut.state)

    def cut(self, *, waited_for: bool = True, final: bool = False) -> Cut:
        self.epoch += 1
        return self.machine.cut(self.epoch, self.staging, self.take, waited_for=waited_for, final=final)

    def runs(self) -> bool:
        return self.qemu.running

    def is_in_step(self) -> bool:
        """Whether QEMU's answers are those of their commands, through a whole cut and after it."""
        cut = self.cut()
        running = self.machine.qmp.run("query-status")["running"] is self.qemu.running
        return running and cut.state == STATE and cut.page_count == self.tracker.pages

    def close(self) -> None:
        self.machine.close()
        self.qemu.close()
        self.ports.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_a_cut_is_one_stop_of_the_guest(scene: Scene) -> None:
    scene.qemu.said.clear()
    cut = scene.cut()
    assert scene.qemu.said == ["query-status", "stop", "xen-save-devices-state", "cont"]
    assert scene.taken == [STATE]
    assert 0 < cut.pause_s < 10
    assert scene.runs()


def test_the_devices_are_saved_while_memory_is_copied(scene: Scene) -> None:
    scene.qemu.answering["xen-save-devices-state"] = 0.2
    assert scene.cut().save_s > 0.1


@pytest.mark.parametrize(("waited_for", "is_cheap", "scans"), [(True, True, 1), (False, True, 2), (False, False, 1)])
def test_pages_are_copied_ahead_when_nobody_waits_and_looking_for_them_costs_little(
    scene: Scene, *, waited_for: bool, is_cheap: bool, scans: int
) -> None:
    scene.tracker.is_cheap = is_cheap
    before = scene.tracker.scans
    scene.cut(waited_for=waited_for)
    assert scene.tracker.scans - before == scans


def test_a_guest_that_somebody_else_stopped_stays_stopped_and_a_final_cut_leaves_it_standing(scene: Scene) -> None:
    scene.qemu.running = False
    scene.cut()
    assert not scene.runs()
    scene.machine.go_on()
    assert not scene.runs()
    scene.qemu.running = True
    scene.cut(final=True)
    assert not scene.runs()
    scene.machine.go_on()
    assert scene.runs()
    assert scene.is_in_step()


def test_a_standby_that_is_lost_in_the_middle_of_a_cut_costs_the_guest_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: list[Staging]) -> Staging:
        raise StandbyLost("It is gone.")

    with monkeypatch.context() as lossy:
        lossy.setattr(scene, "staging", lost)
        with pytest.raises(StandbyLost):
            scene.cut()
    assert scene.runs()
    assert scene.is_in_step()


def test_answers_stay_in_step_after_memory_could_not_be_tracked(scene: Scene) -> None:
    scene.tracker.fails_at = scene.tracker.scans + 1
    with pytest.raises(TrackingFailed):
        scene.cut()
    scene.machine.go_on()
    assert scene.runs()
    assert scene.is_in_step()


@pytest.mark.parametrize("command", ["stop", "xen-save-devices-state", "cont"])
def test_answers_stay_in_step_after_a_command_was_refused(scene: Scene, command: str) -> None:
    scene.qemu.refuses = {command}
    with pytest.raises(QemuRefused):
        scene.cut()
    scene.qemu.refuses = set()
    scene.machine.go_on()
    assert scene.runs()
    assert scene.is_in_step()


def test_answers_stay_in_step_after_a_moment_could_not_be_taken(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable(_: Cut) -> None:
        raise DeviceStateUnusable("It cannot be handed over.")

    with monkeypatch.context() as unlucky:
        unlucky.setattr(scene, "take", unusable)
        with pytest.raises(DeviceStateUnusable):
            scene.cut()
    scene.machine.go_on()
    assert scene.runs()
    assert scene.is_in_step()
