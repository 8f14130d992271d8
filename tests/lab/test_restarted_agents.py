"""An agent that dies is not noticed by its machine, whatever either was in the middle of.

Its keeper has as long for the next one as the host's claim lasts, so these are for machines with room to spare.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from outlive.agent import note
from outlive.cluster.commands import Role
from outlive.lab import machines
from outlive.lab.lab import Lab

from .machine_scene import AGAIN_S, MachineScene, machine_on_stage, nothing_lost


def another_agent(scene: MachineScene, host: str, before: int) -> None:
    """Wait until a host's agent is another process than this one, and serves."""
    deadline = time.monotonic() + AGAIN_S
    while time.monotonic() < deadline:
        found = [pid for pid in scene.agent_pids(host) if pid != before]
        if found:
            return
        time.sleep(0.1)
    raise AssertionError("no other agent was started")


@pytest.mark.soak
def test_an_agent_that_dies_while_its_standby_takes_over_costs_the_guest_nothing(lab: Lab, tmp_path: Path) -> None:
    with machine_on_stage(lab, tmp_path, machines.Wish(protection="hot", disk_on="local")) as scene:
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
