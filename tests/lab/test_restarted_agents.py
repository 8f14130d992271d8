"""An agent that dies is not noticed by what it looks after, whatever either was in the middle of.

Its keeper has as long for the next one as the host's claim lasts, which here is long.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from outlive.agent import note
from outlive.cluster.commands import Role
from outlive.lab import machines, ready

from .machine_scene import AGAIN_S, MachineScene, machine_on_stage, nothing_lost
from .scene import on_stage
from .shared import SharedLab

COLD, HOT = machines.Wish(), machines.Wish(protection="hot", disk_on="local")


def another_agent(scene: MachineScene, host: str, before: int) -> None:
    """Wait until a host's agent is another process than this one, and serves."""
    deadline = time.monotonic() + AGAIN_S
    while time.monotonic() < deadline:
        found = [pid for pid in scene.agent_pids(host) if pid != before]
        if found:
            return
        time.sleep(0.1)
    raise AssertionError("no other agent was started")


def test_an_agent_killed_comes_back_and_adopts_what_runs(patient: SharedLab) -> None:
    with on_stage(patient.lab()) as scene:
        [redis] = scene.module_pids()
        os.kill(scene.agent_pid(), signal.SIGKILL)
        scene.until_told("workload.adopted")
        scene.counts_again()
        assert scene.module_pids() == [redis]
        assert scene.generation() == scene.first


def test_a_machine_survives_its_agent_and_is_restored_where_it_died(patient: SharedLab, tmp_path: Path) -> None:
    with machine_on_stage(patient, tmp_path, COLD) as scene:
        before = scene.processes(scene.primary)
        started = scene.starts(scene.primary)
        os.kill(scene.agent_pid(scene.primary), signal.SIGKILL)
        ready.until(scene.lab, "its agent is back", lambda _: scene.starts(scene.primary) > started, AGAIN_S)
        time.sleep(1)
        assert scene.processes(scene.primary) == before
        scene.kill_processes(scene.primary, "vm", signal.SIGKILL)
        assert scene.state()
        assert scene.runs_on() == scene.primary
        assert scene.processes(scene.primary) != before


def test_killed_agents_on_both_sides_are_not_noticed(patient: SharedLab, tmp_path: Path) -> None:
    with machine_on_stage(patient, tmp_path, HOT) as scene:
        with scene.clients() as clients:
            for host in (scene.primary, scene.standby):
                started = scene.starts(host)
                os.kill(scene.agent_pid(host), signal.SIGKILL)
                ready.until(scene.lab, f"the agent of {host} is back", lambda _: scene.starts(host) > started, AGAIN_S)  # noqa: B023
                time.sleep(1)
            # A pair that a busy machine broke meanwhile is for the new agents to decide about.
            pair = scene.followed()
            nothing_lost(clients.stop())
        assert pair == (scene.primary, scene.standby)
        assert "workload.taken_over" not in scene.kinds()


@pytest.mark.soak
def test_an_agent_that_dies_while_its_standby_takes_over_costs_the_guest_nothing(
    patient: SharedLab, tmp_path: Path
) -> None:
    with machine_on_stage(patient, tmp_path, HOT) as scene:
        lab = scene.lab
        # Its journal stays as it was before the takeover: so it dies within that, however quick it was.
        obstacle = lab.plan.host_folder(scene.standby) / "data" / "journal.new"
        agent = scene.agent_pid(scene.standby)
        with scene.clients() as clients:
            time.sleep(1)
            obstacle.mkdir()
            lab.kill(scene.primary)
            said = lab.plan.run_folder(scene.standby) / "modules" / scene.name
            deadline = time.monotonic() + AGAIN_S
            while (left := note.read_note(said)) is None or left.role is not Role.PRIMARY:
                assert time.monotonic() < deadline, "it did not take over"
                time.sleep(0.01)
            os.kill(agent, signal.SIGKILL)
            obstacle.rmdir()
            another_agent(scene, scene.standby, agent)
            assert scene.runs_on(besides=(scene.primary,)) == scene.standby
            nothing_lost(clients.stop())
        scene.followed(besides=(scene.primary,))
