"""A cold virtual machine goes on from its disk wherever its host's fate takes it; what was synced is there."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab import machines, ready
from outlive.lab.guests.history import judge

from .machine_scene import AGAIN_S, MachineScene, machine_on_stage, nothing_lost, nothing_lost_by_a_move
from .shared import SharedLab

COLD = machines.Wish()
SWITCHED_OFF = "vm.power_button_ignored"


@pytest.fixture
def scene(shared: SharedLab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(shared, tmp_path, COLD) as played:
        yield played


@pytest.fixture
def moving(shared: SharedLab, tmp_path: Path) -> Iterator[MachineScene]:
    with machine_on_stage(shared, tmp_path, COLD, moves=True) as played:
        yield played


def test_its_disk_cannot_be_opened_a_second_time_from_outside_the_cluster(scene: MachineScene) -> None:
    disk = scene.lab.plan.datastore / "data" / scene.name / "data.raw"
    second = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 4096", str(disk)], capture_output=True, text=True, check=False
    )
    assert second.returncode != 0
    assert "lock" in second.stderr


def test_told_to_stop_it_shuts_down_by_its_power_button_and_starts_again_from_its_disk(scene: MachineScene) -> None:
    with scene.server() as server:
        written = int(server.ask(f"dw {scene.fresh_id()} 1").split()[0])
    console = scene.lab.plan.host_folder(scene.primary) / "console.log"
    before = console.read_text(errors="replace").count(SWITCHED_OFF)
    scene.set_desired("stopped")
    assert console.read_text(errors="replace").count(SWITCHED_OFF) == before
    scene.set_desired("running")
    assert int(scene.state()["written"]) >= written


def test_a_move_whose_target_dies_leaves_the_machine_where_it_was(moving: MachineScene) -> None:
    scene = moving
    target = scene.another_host()
    with scene.clients() as clients:
        client = ready.any_client(scene.lab)
        client.post("/v1/operations", {"kind": "migrate", "workload": scene.name, "target": target})
        deadline = time.monotonic() + AGAIN_S
        while not scene.processes(target):
            assert time.monotonic() < deadline, "nothing of it comes to the target"
            time.sleep(0.01)
        scene.kill_processes(target, "vm", signal.SIGKILL)
        time.sleep(3)
        nothing_lost(clients.stop())
    assert scene.runs_on() == scene.primary


@pytest.mark.soak
def test_a_move_is_a_pause_for_its_clients(moving: MachineScene) -> None:
    scene = moving
    nothing_lost_by_a_move(scene)


def test_after_a_power_cut_it_boots_elsewhere_and_every_synced_number_is_there(scene: MachineScene) -> None:
    with scene.clients("dw", 2, think_ms=5) as clients:
        scene.lab.kill(scene.primary)
        history = clients.so_far()
    outcome = judge(history, alone=False)
    assert outcome.answered > 20
    highest = max(each.value for each in history.answers)
    assert scene.runs_elsewhere() != scene.primary
    assert int(scene.state()["written"]) >= highest
