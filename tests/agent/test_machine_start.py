"""Where a machine begins is found out anew for each start, and an agent that adopts one begins nothing."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent import machine_start, warm_start
from outlive.agent.ground import Ground
from outlive.cluster.machine import WarmPolicy
from outlive.cluster.workload import Protection
from outlive.errors import Failed
from outlive.replication import control
from outlive.replication.checkpoint import Hardware

from .machine_scene import HOT, FakeComm, Scene

WARM = replace(HOT, protection=Protection.WARM, warm=WarmPolicy(on="shared"))
HARDWARE = Hardware("7.2", "pc", "qemu64", "tcg", 1, 64, ())


async def test_a_new_agent_knows_what_to_tell_a_warm_machines_next_manager(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"shared": scene.folder / "data" / "web"}
    machine = scene.machine(FakeComm(found=control.Status("free", 7, 0)), workload=WARM, data=data)
    monkeypatch.setattr(warm_start, "_hardware", lambda *_: HARDWARE)
    monkeypatch.setattr(warm_start, "lock_path", lambda *_: None)
    assert await machine.adopt()
    start = machine._processes._starts._warm
    assert start is not None
    assert (start.values.datastore, start.values.hardware) == (str(scene.folder), HARDWARE)
    assert (start.values.resume, start.resumes) == (None, False)


async def test_the_checkpoint_that_an_operator_chose_is_begun_from_once_and_tried_until_then(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat: Any = object()
    tried: list[str] = []

    async def begin(*_: object, at: str, **more: object) -> Any:
        tried.append(at)
        if len(tried) == 1:
            raise Failed("The datastore does not answer.")
        return SimpleNamespace(seat=seat)

    monkeypatch.setattr(machine_start, "warm_start", begin)
    monkeypatch.setattr(Ground, "resume_at", lambda *_: "before-upgrade")
    starts = scene.machine(FakeComm(), workload=WARM)._processes._starts
    with pytest.raises(Failed):
        await starts.on_layers(seat)
    for _ in range(2):
        assert await starts.on_layers(seat) is seat
    assert tried == ["before-upgrade", "before-upgrade", ""]
