"""The communication manager of a warm machine, as an agent meets it: a process, a socket, checkpoints."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlive.replication import control
from outlive.replication.checkpoint_folder import folder_of, list_checkpoints
from outlive.replication.checkpoint_reading import prepare_resume
from outlive.replication.checkpoint_values import WarmDisk, WarmValues
from outlive.replication.comm_config import CommConfig, control_socket, write_config

from .checkpoint_scene import HARDWARE, MEMORY_MIB, Guest, guest, make_disk

pytestmark = pytest.mark.lab

WAIT_S = 60.0


def config_of(running: Guest, datastore: Path, generation: int, **changed: Any) -> CommConfig:
    values = WarmValues(str(datastore), HARDWARE, (WarmDisk("root", "device-root"),), keep=2, slack=1)
    return CommConfig(
        role="primary",
        cluster="0123456789abcdef",
        host="a",
        workload="web",
        generation=generation,
        pairing=0,
        state_dir=str(running.folder / "state"),
        qmp=str(running.monitors / "manager"),
        qemu_pid=running.process.pid,
        ram_path=str(running.ram),
        ram_bytes=MEMORY_MIB << 20,
        pagewatch=str(running.folder / "pagewatch"),
        warm=msgspec.structs.replace(values, **changed),
    )


def start(config: CommConfig) -> "subprocess.Popen[bytes]":
    state = Path(config.state_dir)
    state.mkdir(exist_ok=True)
    write_config(state / "comm.json", config)
    with (state / "log").open("ab") as log:
        return subprocess.Popen(control.command_line(sys.executable, state / "comm.json"), stderr=log)


@asynccontextmanager
async def manager(config: CommConfig) -> AsyncIterator[tuple[control.Manager, "subprocess.Popen[bytes]"]]:
    """A manager's process, and an agent's connection to it."""
    process = start(config)
    try:
        socket = control_socket(Path(config.state_dir))
        async with await control.Manager.connect(socket, within_s=WAIT_S) as agent:
            yield agent, process
    finally:
        process.kill()
        process.wait(60)


async def told(agent: control.Manager, *kinds: type[Any]) -> Any:
    """The next event of one of these kinds."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        event = await agent.event(within_s=60)
        if isinstance(event, kinds):
            return event
    raise AssertionError(f"none of {kinds} was told")


async def test_a_warm_machine_is_checkpointed_as_asked_and_at_its_interval_and_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    datastore = tmp_path / "ds"
    datastore.mkdir()
    folder = folder_of(datastore, "web")
    either = (control.Checkpointed, control.CheckpointFailed)
    with guest(tmp_path / "a", make_disk(datastore)) as first:
        first.booted()
        first.ask("dirty 500 1000")
        async with manager(config_of(first, datastore, 1, interval_s=3600.0)) as (agent, _):
            assert agent.first_status.phase == "free"
            await agent.send(control.Checkpoint("before-upgrade", "operation-1"))
            done = await told(agent, *either)
            assert isinstance(done, control.Checkpointed), done
            assert (done.name, done.bytes > 1 << 20, done.pause_ms > 0) == ("before-upgrade", True, True)
            assert (await told(agent, control.Progress)).epochs == 1
            await agent.send(control.Checkpoint("before-upgrade", "operation-1"))
            assert (await told(agent, *either)).bytes == 0
            await agent.send(control.Checkpoint("../x"))
            assert isinstance(await told(agent, *either), control.CheckpointFailed)
            await agent.send(control.HandOver())
            assert (await told(agent, control.Refused)).command == "HandOver"
        assert [entry.checkpoint.label for entry in list_checkpoints(folder) if entry.checkpoint] == ["before-upgrade"]
        counted = first.ask("inc 1 1").split()[0]
        async with manager(config_of(first, datastore, 1, interval_s=0.2)) as (agent, _):
            for _ in range(6):
                assert isinstance(await told(agent, *either), control.Checkpointed)
            first.kill()
            assert isinstance(await told(agent, control.BecameFailed), control.BecameFailed)
    kept = list_checkpoints(folder)
    assert len(kept) <= 6
    assert kept[-1].checkpoint is not None
    assert kept[-1].checkpoint.label == "before-upgrade"

    resume = prepare_resume(folder, HARDWARE, generation=2, host="b")
    with guest(tmp_path / "b", resume.disk_files()["root"], "qcow2", incoming=True) as second:
        config = config_of(second, datastore, 2, interval_s=3600.0, resume=resume.checkpoint.name)
        async with manager(config) as (agent, process):
            adopted = await told(agent, control.Adopted, control.Status)
            assert second.numbers()["counter"] == counted
            if isinstance(adopted, control.Adopted):
                assert adopted.generation == 2
            process.kill()
            process.wait(60)
        # Another manager of the same machine leaves the guest's memory alone.
        second.ask("inc 1 2")
        async with manager(config) as (agent, _):
            await agent.send(control.Checkpoint("later"))
            assert isinstance(await told(agent, *either), control.Checkpointed)
        assert second.numbers()["counter"] == str(int(counted) + 1)
