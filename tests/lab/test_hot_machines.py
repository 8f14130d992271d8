"""A hot machine's clients notice a pause at worst, whatever dies; nothing acknowledged is lost or done twice."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab import machines, ready
from outlive.lab.lab import Lab

from .machine_scene import MachineScene, machine_on_stage, nothing_lost

HOT = machines.Wish(protection="hot", disk_on="local")


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(lab, tmp_path, HOT) as played:
        yield played


def test_power_cut_of_the_primary_and_then_of_its_successor(scene: MachineScene) -> None:
    with scene.clients() as clients, scene.clients("dw", 1) as writing:
        time.sleep(1)
        scene.lab.kill(scene.primary)
        time.sleep(2)
        assert scene.runs_on(besides=(scene.primary,)) == scene.standby
        _, third = scene.followed(besides=(scene.primary,))
        time.sleep(1)
        scene.lab.kill(scene.standby)
        time.sleep(2)
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
        time.sleep(1)
        nothing_lost(clients.stop())


def test_a_killed_communication_manager_of_the_primary(scene: MachineScene) -> None:
    with scene.clients() as clients:
        time.sleep(1)
        scene.kill_processes(scene.primary, "comm", signal.SIGKILL)
        time.sleep(3)
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


def test_killed_agents_on_both_sides_are_not_noticed(scene: MachineScene) -> None:
    with scene.clients() as clients:
        for host in (scene.primary, scene.standby):
            started = scene.starts(host)
            os.kill(scene.agent_pid(host), signal.SIGKILL)
            ready.until(scene.lab, f"the agent of {host} is back", lambda _: scene.starts(host) > started, 30)  # noqa: B023
            time.sleep(1)
        # A pair that a busy machine broke meanwhile is for the new agents to decide about.
        pair = scene.followed()
        nothing_lost(clients.stop())
    assert pair == (scene.primary, scene.standby)
    assert "workload.taken_over" not in scene.kinds()


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
        time.sleep(2)
        scene.lab.resume(scene.primary)
        time.sleep(2)
        nothing_lost(clients.stop())
    assert scene.runs_on() == scene.standby
