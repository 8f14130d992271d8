"""Where a machine begins is found out anew for each start, and an agent that adopts one begins nothing."""

from dataclasses import replace

import pytest

from outlive.agent import warm_start
from outlive.cluster.machine import WarmPolicy
from outlive.cluster.workload import Protection
from outlive.replication import control
from outlive.replication.checkpoint import Hardware

from .machine_scene import HOT, FakeComm, Scene

HARDWARE = Hardware("7.2", "pc", "qemu64", "tcg", 1, 64, ())


async def test_a_new_agent_knows_what_to_tell_a_warm_machines_next_manager(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = replace(HOT, protection=Protection.WARM, warm=WarmPolicy(on="shared"))
    data = {"shared": scene.folder / "data" / "web"}
    machine = scene.machine(FakeComm(found=control.Status("free", 7, 0)), workload=warm, data=data)
    monkeypatch.setattr(warm_start, "_hardware", lambda *_: HARDWARE)
    monkeypatch.setattr(warm_start, "lock_path", lambda *_: None)
    assert await machine.adopt()
    start = machine._processes._starts._warm
    assert start is not None
    assert (start.values.datastore, start.values.hardware) == (str(scene.folder), HARDWARE)
    assert (start.values.resume, start.resumes) == (None, False)
