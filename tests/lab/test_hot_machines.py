"""A hot machine's clients notice a pause at worst, whatever dies; nothing acknowledged is lost or done twice."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab import machines, ready

from .machine_scene import AGAIN_S, MachineScene, answered_anew, machine_on_stage, nothing_lost, nothing_lost_by_a_move
from .shared import SharedLab

HOT = machines.Wish(protection="hot", disk_on="local")


@pytest.fixture
def scene(shared: SharedLab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(shared, tmp_path, HOT) as played:
        yield played


def test_power_cut_of_the_primary_and_then_of_its_successor(scene: MachineScene) -> None:
    with scene.clients() as clients, scene.clients("dw", 1) as writing:
        time.sleep(1)
        scene.lab.kill(scene.primary)
        assert scene.runs_elsewhere() == scene.standby
        _, third = scene.followed(besides=(scene.primary,))
        answered_anew(clients)
        scene.lab.kill(scene.standby)
        answered_anew(clients)
        histories = clients.stop(), writing.stop()
    for history in histories:
        nothing_lost(history)
    assert third not in (scene.primary, scene.standby)
    assert scene.state()["written"] == scene.state()["issued"]


def test_a_killed_emulator_is_the_standbys_to_go_on_with(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        scene.kill_processes(scene.primary, "vm", signal.SIGKILL)
        scene.until_told("workload.taken_over")
        answered_anew(clients)
        nothing_lost(clients.stop())


def test_a_killed_communication_manager_of_the_primary(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        # Whether its standby takes over or it goes on alone, it is followed anew.
        pairing = machines.placement(scene.lab, scene.name)["pairing"]
        scene.kill_processes(scene.primary, "comm", signal.SIGKILL)
        ready.until(
            scene.lab,
            "the pair is another",
            lambda _: machines.placement(scene.lab, scene.name)["pairing"] != pairing,
            AGAIN_S,
        )
        answered_anew(clients)
        nothing_lost(clients.stop())
    scene.followed()


@pytest.mark.soak
def test_a_killed_communication_manager_of_the_standby_leaves_the_primary_alone_for_a_while(
    scene: MachineScene,
) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        scene.kill_processes(scene.standby, "comm", signal.SIGKILL)
        scene.until_told("workload.unprotected")
        scene.followed()
        nothing_lost(clients.stop())
    assert scene.runs_on() == scene.primary


@pytest.mark.soak
def test_a_link_cut_between_the_two_leaves_exactly_one(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        scene.lab.isolate(scene.standby)
        scene.until_told("workload.unprotected", besides=(scene.standby,))
        time.sleep(1)
        nothing_lost(clients.stop())
    assert scene.runs_on(besides=(scene.standby,)) == scene.primary


def test_a_paused_primary_is_replaced_and_silent_when_it_wakes(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        scene.lab.pause(scene.primary)
        scene.until_told("workload.taken_over", besides=(scene.primary,))
        answered_anew(clients)
        scene.lab.resume(scene.primary)
        time.sleep(2)
        answered_anew(clients)
        nothing_lost(clients.stop())
    # The host that woke may still tell what it knew before.
    assert scene.runs_on(besides=(scene.primary,)) == scene.standby


def test_a_move_is_a_pause_for_its_clients(scene: MachineScene) -> None:
    nothing_lost_by_a_move(scene)
