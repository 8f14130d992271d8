"""A warm machine goes on from its newest whole checkpoint: memory and disk of one moment, wherever it was."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab import machines
from outlive.lab.guests.clients import GuestSilent

from .machine_scene import MachineScene, machine_on_stage, nothing_lost_by_a_move
from .shared import SharedLab

WARM = machines.Wish(protection="warm", more="[warm]\ninterval_s = 2\n")


@pytest.fixture
def scene(shared: SharedLab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(shared, tmp_path, WARM) as played:
        yield played


def checkpoints(scene: MachineScene) -> list[Path]:
    folder = scene.lab.plan.datastore / "checkpoints" / scene.name
    return sorted(path.parent for path in folder.glob("g*/manifest.json"))


def until_checkpointed(scene: MachineScene, more: int = 1) -> list[Path]:
    """Wait for so many checkpoints that were begun from now on."""
    newest = checkpoints(scene)[-1:]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        later = [path for path in checkpoints(scene) if [path] > newest]
        if len(later) > more:  # one may have been under way
            return later
        time.sleep(0.1)
    raise AssertionError("no checkpoint was taken")


def counted(scene: MachineScene, numbers: int) -> dict[str, str]:
    """Let the guest count in memory and on its disk; what it says of itself then."""
    client = scene.fresh_id()
    with scene.server() as server:
        for number in range(numbers):
            server.ask(f"inc {client} {number + 1}")
            server.ask(f"dw {client + 1} {number + 1}")
        return server.state()


def until_another(scene: MachineScene, instances: set[str]) -> dict[str, str]:
    """Wait until a guest that is none of these answers; what it says of itself."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # One that is just ending takes a connection, and never answers on it.
        with contextlib.suppress(GuestSilent), scene.server() as server:
            found = dict(word.split("=", 1) for word in server.ask("get", 1.0).split())
            if found["instance"] not in instances:
                return found
        time.sleep(0.2)
    raise AssertionError("it is not booted anew")


def test_after_a_power_cut_memory_and_disk_are_as_at_the_newest_checkpoint(scene: MachineScene) -> None:
    before = counted(scene, 30)
    until_checkpointed(scene)
    scene.lab.kill(scene.primary)
    scene.runs_elsewhere()
    after = scene.state()
    assert after["instance"] == before["instance"]
    assert (after["counter"], after["written"]) == (before["counter"], before["written"])
    # The disk was taken back with the memory: what the guest writes next fits what it knows.
    assert int(counted(scene, 5)["written"]) == int(before["written"]) + 5


@pytest.mark.soak
def test_a_damaged_newest_checkpoint_is_passed_over(scene: MachineScene) -> None:
    before = counted(scene, 10)
    newest = until_checkpointed(scene)[-1]
    scene.lab.kill(scene.primary)
    newest = checkpoints(scene)[-1]
    pages = next(path for path in newest.iterdir() if path.suffix == ".state")
    pages.write_bytes(pages.read_bytes()[:-100] + bytes(100))
    scene.runs_elsewhere()
    after = scene.state()
    assert after["instance"] == before["instance"]
    assert int(after["counter"]) <= int(before["counter"])


@pytest.mark.soak  # one that powers itself off stays
def test_one_that_was_shut_down_in_order_is_booted_and_keeps_all_that_is_on_its_disk(scene: MachineScene) -> None:
    until_checkpointed(scene)
    before = counted(scene, 20)
    scene.set_desired("stopped")
    scene.set_desired("running")
    after = scene.state()
    assert after["instance"] != before["instance"]
    assert int(after["written"]) == int(before["written"])
    # Nor is it taken back to before that when its host dies soon after.
    scene.primary = scene.runs_on()
    scene.lab.kill(scene.primary)
    scene.runs_elsewhere()
    assert int(scene.state()["written"]) == int(before["written"])


def test_one_that_powers_itself_off_is_booted_and_not_taken_back_to_before_that(scene: MachineScene) -> None:
    until_checkpointed(scene)
    before = counted(scene, 20)
    with scene.server() as server:
        server.tell("poweroff")
    booted = until_another(scene, {before["instance"]})
    assert int(booted["written"]) == int(before["written"])
    # In the same reign, before it was checkpointed again or soon after: what it did before it shut down is over.
    scene.kill_processes(scene.primary, "vm", signal.SIGKILL)
    after = scene.state()
    assert after["instance"] != before["instance"]
    assert int(after["written"]) == int(before["written"])


@pytest.mark.soak  # a datastore that is full stays
def test_a_datastore_that_hangs_costs_checkpoints_and_not_the_guest(scene: MachineScene) -> None:
    until_checkpointed(scene)
    with scene.clients("inc", 2) as clients:
        scene.lab.slow_datastore(scene.primary, 1)
        time.sleep(6)
        scene.lab.heal(scene.primary)
        history = clients.stop()
    answered = [each.received_ns for each in history.answers]
    assert max(answered) - min(answered) > 5e9
    until_checkpointed(scene)


def test_a_move_is_a_pause_for_its_clients(shared: SharedLab, tmp_path: Path) -> None:
    with machine_on_stage(shared, tmp_path, WARM, moves=True) as scene:
        nothing_lost_by_a_move(scene)
