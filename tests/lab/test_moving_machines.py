"""Machines are moved while they run, and clients' connections stay open; a move that fails changes nothing."""

import signal
import time
from pathlib import Path

import pytest

from outlive.lab import machines, ready
from outlive.lab.lab import Lab

from .machine_scene import MachineScene, machine_on_stage, nothing_lost

COLD = machines.Wish()
WARM = machines.Wish(protection="warm", more="[warm]\ninterval_s = 2\n")
HOT = machines.Wish(protection="hot", disk_on="local")


def moved(scene: MachineScene, target: str) -> str:
    """Ask for a move and wait for its end; the state that it ended in."""
    client = ready.any_client(scene.lab)
    asked = client.post("/v1/operations", {"kind": "migrate", "workload": scene.name, "target": target})
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = client.get(f"/v1/operations/{asked['operation']['id']}?wait_s=10")
        if found["state"] not in ("asked", "running"):
            return str(found["state"])
    raise AssertionError("the move does not end")


@pytest.mark.parametrize("wish", [pytest.param(COLD, marks=pytest.mark.soak), WARM, HOT], ids=["cold", "warm", "hot"])
def test_a_move_is_a_pause_for_its_clients(lab: Lab, tmp_path: Path, wish: machines.Wish) -> None:
    with machine_on_stage(lab, tmp_path, wish, moves=True) as scene:
        target = next(host.name for host in lab.plan.hosts if host.name not in (scene.primary, scene.standby))
        with scene.clients() as clients, scene.clients("dw", 1) as writing:
            time.sleep(1)
            assert moved(scene, target) == "done"
            time.sleep(1)
            for history in (clients.stop(), writing.stop()):
                nothing_lost(history)
        assert scene.runs_on() == target


def test_a_move_whose_target_dies_leaves_the_machine_where_it_was(lab: Lab, tmp_path: Path) -> None:
    with machine_on_stage(lab, tmp_path, COLD, moves=True) as scene:
        target = next(host.name for host in lab.plan.hosts if host.name != scene.primary)
        with scene.clients() as clients:
            client = ready.any_client(scene.lab)
            client.post("/v1/operations", {"kind": "migrate", "workload": scene.name, "target": target})
            deadline = time.monotonic() + 30
            while not scene.processes(target) and time.monotonic() < deadline:
                time.sleep(0.01)
            scene.kill_processes(target, "vm", signal.SIGKILL)
            time.sleep(3)
            nothing_lost(clients.stop())
        assert scene.runs_on() == scene.primary
