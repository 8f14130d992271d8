"""A datastore answers within its limit, says what is wrong, and is used again when it is well."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import outlive
from outlive.cluster.heartbeat import Heartbeat, ModuleKey, ModuleTable
from outlive.datastore.datastore import Datastore, Limits, open_datastore
from outlive.datastore.errors import (
    DatastoreDamaged,
    DatastoreError,
    DatastoreForeign,
    DatastoreFull,
    DatastoreReadOnly,
    DatastoreTimeout,
    DatastoreVanished,
    RecordRefused,
)
from outlive.datastore.formatting import format_datastore
from outlive.datastore.process import WorkerProcess
from outlive.datastore.protected import ProtectedList, ProtectedWorkload
from outlive.datastore.slots import Slot, SlotRefused, unpack_slot
from outlive.errors import UsageInvalid
from outlive.wire.record import Reason
from outlive.wire.seal import Seal

Build = Callable[..., Heartbeat]
PATIENT = Limits(call_s=30.0, abandon_s=60.0)
TABLE = ModuleTable((ModuleKey("web", 3, "redis"),))


@pytest.fixture
async def datastore(folder: Path, seal: Seal) -> AsyncIterator[Datastore]:
    async with open_datastore("shared", folder, "a", seal, PATIENT) as opened:
        yield opened


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """The loop's heart: the times at which it beat, while the block runs."""
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.005)

    task = asyncio.create_task(beat())
    try:
        yield beats
    finally:
        task.cancel()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)


async def until_it_works(call: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await call()
                return
            except DatastoreError:
                await asyncio.sleep(0.01)


def state(datastore: Datastore) -> tuple[bool, str | None]:
    """Whether it is reachable, and the id of its trouble."""
    return datastore.reachable, None if datastore.trouble is None else datastore.trouble.id


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def kernel_state(pid: int) -> str:
    """One letter; D is for what waits in the kernel and cannot be killed."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def states(workers: list[WorkerProcess]) -> set[str]:
    return {kernel_state(worker.pid) for worker in workers}


def kill_and_wait(pid: int | None) -> None:
    """Without letting the loop do anything meanwhile, such as starting the next worker."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while is_there(pid) and kernel_state(pid) != "Z":
        time.sleep(0.001)


def slot_in(folder: Path, seal: Seal) -> Heartbeat | SlotRefused:
    return unpack_slot("a", (folder / "heartbeats/a.slot").read_bytes(), seal)


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True)


async def test_each_call_does_what_it_says(datastore: Datastore, folder: Path, heartbeat: Build) -> None:
    protected = ProtectedList("a", 9, (ProtectedWorkload("web", 3, "a"),))
    assert await datastore.read_slots() == {}
    assert await datastore.read_protected() is None
    assert await datastore.read_table("a", TABLE.digest()) is None
    await datastore.write_table(TABLE)
    await datastore.write_slot(heartbeat(1))
    await datastore.write_slot(heartbeat(2))
    await datastore.write_protected(protected)
    assert await datastore.read_slots() == {"a": Slot(heartbeat(2), changed=False)}
    assert await datastore.read_table("a", TABLE.digest()) == TABLE
    assert await datastore.read_protected() == protected
    assert await datastore.ensure_data_folder("web") == folder / "data/web"
    space = await datastore.space()
    assert 0 < space.free_bytes <= space.total_bytes
    assert state(datastore) == (True, None)


async def test_a_wrong_slot_is_told_beside_the_right_ones(datastore: Datastore, folder: Path, heartbeat: Build) -> None:
    await datastore.write_slot(heartbeat(1))
    (folder / "heartbeats/b.slot").write_bytes((folder / "heartbeats/a.slot").read_bytes())
    (folder / "heartbeats/c.slot").write_bytes(b"x" * 4096)
    (folder / "heartbeats/d.slot").mkdir()
    slots = await datastore.read_slots()
    reasons = {host: slot.reason for host, slot in slots.items() if isinstance(slot, SlotRefused)}
    assert slots["a"] == Slot(heartbeat(1), changed=False)
    assert reasons == {"b": Reason.OTHER_HOST, "c": Reason.HALF_WRITTEN, "d": Reason.UNREADABLE}


async def test_a_garbled_table_or_list_is_refused_and_concerns_nothing_else(
    datastore: Datastore, folder: Path, heartbeat: Build
) -> None:
    await datastore.write_table(TABLE)
    (folder / f"tables/a-{TABLE.digest().hex()}").write_bytes(b"x" * 100)
    (folder / "protected.json").write_bytes(b"{}")
    with pytest.raises(RecordRefused) as table:
        await datastore.read_table("a", TABLE.digest())
    with pytest.raises(RecordRefused) as protected:
        await datastore.read_protected()
    assert "module table of a" in table.value.cause
    assert "protected list" in protected.value.cause
    assert state(datastore) == (True, None)


async def test_names_are_checked_before_anything_is_asked(datastore: Datastore, heartbeat: Build) -> None:
    with pytest.raises(UsageInvalid):
        await datastore.ensure_data_folder("../web")
    with pytest.raises(UsageInvalid):
        await datastore.read_table("../a", TABLE.digest())
    with pytest.raises(ValueError, match="writes no slot"):
        await datastore.write_slot(heartbeat(host="b"))
    assert datastore.worker_pid is None


async def test_many_calls_at_once_are_all_answered(datastore: Datastore, heartbeat: Build) -> None:
    await datastore.write_slot(heartbeat(1))
    answers = await asyncio.gather(*(datastore.read_slots() for _ in range(100)))
    assert all(answer == answers[0] for answer in answers)


async def test_a_call_that_is_cancelled_confuses_no_later_one(datastore: Datastore, heartbeat: Build) -> None:
    await datastore.write_slot(heartbeat(1))
    for _ in range(20):
        call = asyncio.create_task(datastore.space())
        await asyncio.sleep(0)
        call.cancel()
        assert await datastore.read_slots() == {"a": Slot(heartbeat(1), changed=False)}


async def test_a_stopped_worker_is_noticed_in_time_and_used_again_when_it_goes_on(
    folder: Path, seal: Seal, heartbeat: Build
) -> None:
    limits = Limits(call_s=0.3, abandon_s=60.0)
    async with open_datastore("shared", folder, "a", seal, limits) as datastore, ticking() as beats:
        await until_it_works(lambda: datastore.write_slot(heartbeat(1)))
        pid = datastore.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        before = len(beats)
        with pytest.raises(DatastoreTimeout, match="does not answer"):
            await datastore.write_slot(heartbeat(2))
        assert len(beats) > before + 2
        assert state(datastore) == (False, "datastore.timeout")
        os.kill(pid, signal.SIGCONT)
        await until_it_works(lambda: datastore.write_slot(heartbeat(3)))
        assert state(datastore) == (True, None)
        assert datastore.worker_pid == pid


async def test_a_worker_that_stays_stopped_is_replaced(folder: Path, seal: Seal, heartbeat: Build) -> None:
    limits = Limits(call_s=0.3, abandon_s=0.6)
    async with open_datastore("shared", folder, "a", seal, limits) as datastore:
        await until_it_works(lambda: datastore.write_slot(heartbeat(1)))
        pid = datastore.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DatastoreTimeout):
            await datastore.write_slot(heartbeat(2))
        await until_it_works(lambda: datastore.write_slot(heartbeat(3)))
        assert datastore.worker_pid != pid
    assert not is_there(pid)


async def test_hung_storage_holds_a_bounded_number_of_workers_and_never_the_loop(
    folder: Path, seal: Seal, heartbeat: Build, hang: Callable[[Path], Any]
) -> None:
    limits = Limits(call_s=0.15, abandon_s=0.2, most_stuck=2)
    async with open_datastore("shared", folder, "a", seal, limits) as datastore, ticking() as beats:
        await until_it_works(lambda: datastore.write_slot(heartbeat(1)))
        storage = hang(folder)
        asyncio.get_running_loop().add_reader(storage._device, storage.take_requests)
        before = len(beats)
        async with asyncio.timeout(60):
            while len(datastore._stuck) < limits.most_stuck or states(datastore._stuck) != {"D"}:
                with pytest.raises(DatastoreTimeout):
                    await datastore.write_slot(heartbeat(2))
        for sequence in range(3, 6):
            with pytest.raises(DatastoreTimeout):
                await datastore.write_slot(heartbeat(sequence))
            assert datastore.worker_pid is None
        assert len(datastore._stuck) == limits.most_stuck
        assert len(beats) > before + 10
        asyncio.get_running_loop().remove_reader(storage._device)
        storage.end()
        await until_it_works(lambda: datastore.write_slot(heartbeat(20)))
        assert state(datastore) == (True, None)
        await until(lambda: datastore._still_stuck() == 0)
    assert slot_in(folder, seal) == heartbeat(20)


async def test_an_agent_can_leave_while_its_worker_is_held_by_the_kernel(
    folder: Path, seal: Seal, heartbeat: Build, hang: Callable[[Path], Any]
) -> None:
    storage = hang(folder)
    asyncio.get_running_loop().add_reader(storage._device, storage.take_requests)
    async with asyncio.timeout(60):
        async with open_datastore("shared", folder, "a", seal, Limits(call_s=0.2)) as datastore:
            with pytest.raises(DatastoreTimeout):
                await datastore.write_slot(heartbeat(1))
            await until(lambda: storage.taken > 0)
            pid = datastore.worker_pid
    assert pid is not None
    assert kernel_state(pid) == "D"
    asyncio.get_running_loop().remove_reader(storage._device)
    storage.end()
    await until(lambda: datastore._still_stuck() == 0)


async def test_a_worker_that_was_killed_is_replaced_without_a_word(datastore: Datastore, heartbeat: Build) -> None:
    await datastore.write_slot(heartbeat(1))
    assert datastore.worker_pid is not None
    os.kill(datastore.worker_pid, signal.SIGKILL)
    await datastore.write_slot(heartbeat(2))
    assert await datastore.read_slots() == {"a": Slot(heartbeat(2), changed=False)}


async def test_a_kill_in_the_middle_of_writing_leaves_the_old_slot_or_the_new_one(
    datastore: Datastore, folder: Path, seal: Seal, heartbeat: Build
) -> None:
    await datastore.write_slot(heartbeat(1))
    written = 1
    for round_ in range(12):
        kill_at = time.monotonic() + 0.001 * round_
        while time.monotonic() < kill_at:
            written += 1
            await datastore.write_slot(heartbeat(written))
        writing = asyncio.create_task(datastore.write_slot(heartbeat(written + 1)))
        for _ in range(round_ % 4):
            await asyncio.sleep(0)
        kill_and_wait(datastore.worker_pid)
        assert slot_in(folder, seal) in (heartbeat(written), heartbeat(written + 1))
        await writing
        written += 1
        assert slot_in(folder, seal) == heartbeat(written)


async def test_a_worker_ends_when_its_agent_dies(folder: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "sys.path.append(sys.argv[2])\n"
        "from outlive.datastore.datastore import Limits, open_datastore\n"
        "from outlive.wire.seal import Seal\n"
        "async def main():\n"
        "    seal = Seal('0123456789abcdef', b'k' * 32)\n"
        "    async with open_datastore('shared', Path(sys.argv[1]), 'a', seal, Limits(30, 60)) as datastore:\n"
        "        await datastore.space()\n"
        "        print(datastore.worker_pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    source = str(Path(outlive.__file__).parent.parent)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(folder), source, stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    worker = int(await agent.stdout.readline())
    assert is_there(worker)
    agent.kill()
    await agent.wait()
    await until(lambda: not is_there(worker) or kernel_state(worker) == "Z")


async def test_a_read_only_datastore_is_told_and_still_read(
    folder: Path, seal: Seal, heartbeat: Build, mounts: Any
) -> None:
    mounts.mount("--bind", folder, folder)
    async with open_datastore("shared", folder, "a", seal, PATIENT) as datastore:
        await datastore.write_slot(heartbeat(1))
        run("mount", "-o", "remount,bind,ro", folder)
        with pytest.raises(DatastoreReadOnly, match="read-only"):
            await datastore.write_slot(heartbeat(2))
        assert await datastore.read_slots() == {"a": Slot(heartbeat(1), changed=False)}
        assert state(datastore) == (False, "datastore.read-only")
        run("mount", "-o", "remount,bind,rw", folder)
        await datastore.write_slot(heartbeat(3))
        assert state(datastore) == (True, None)


async def test_a_full_datastore_is_told_and_still_takes_signs_of_life(
    tmp_path: Path, seal: Seal, heartbeat: Build, mounts: Any
) -> None:
    mounts.mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path)
    format_datastore("shared", tmp_path, seal.cluster)
    async with open_datastore("shared", tmp_path, "a", seal, PATIENT) as datastore:
        await datastore.write_slot(heartbeat(1))
        with pytest.raises(OSError, match="No space"):
            (tmp_path / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(DatastoreFull, match="is full"):
            await datastore.write_table(TABLE)
        await datastore.write_slot(heartbeat(2))
        assert state(datastore) == (True, "datastore.full")
        assert (await datastore.space()).free_bytes == 0
        (tmp_path / "filler").unlink()
        await datastore.write_table(TABLE)
        assert state(datastore) == (True, None)
        assert {path.name for path in (tmp_path / "tables").iterdir()} == {f"a-{TABLE.digest().hex()}"}


async def test_a_vanished_mount_is_told_and_its_mount_point_stays_empty(
    folder: Path, tmp_path: Path, seal: Seal, heartbeat: Build, mounts: Any
) -> None:
    point = tmp_path / "point"
    point.mkdir()
    mounts.mount("--bind", folder, point)
    async with open_datastore("shared", point, "a", seal, PATIENT) as datastore:
        await datastore.write_slot(heartbeat(1))
        mounts.vanish(point)
        with pytest.raises(DatastoreVanished, match="is not at"):
            await datastore.write_slot(heartbeat(2))
        with pytest.raises(DatastoreVanished):
            await datastore.read_slots()
        assert os.listdir(point) == []
        assert state(datastore) == (False, "datastore.vanished")
        mounts.mount("--bind", folder, point)
        await datastore.write_slot(heartbeat(3))
        assert state(datastore) == (True, None)


async def test_storage_that_broke_under_the_mount_is_told_as_vanished(
    folder: Path, seal: Seal, heartbeat: Build, hang: Callable[[Path], Any]
) -> None:
    storage = hang(folder)
    os.close(storage._device)
    storage._device = -1
    try:
        async with open_datastore("shared", folder, "a", seal, PATIENT) as datastore:
            with pytest.raises(DatastoreVanished):
                await datastore.write_slot(heartbeat(1))
    finally:
        run("umount", "-l", folder)


async def test_another_clusters_datastore_and_a_garbled_marker_are_told(
    folder: Path, heartbeat: Build, seal: Seal
) -> None:
    foreign = Seal("fedcba9876543210", b"k" * 32)
    async with open_datastore("shared", folder, "a", foreign, PATIENT) as datastore:
        with pytest.raises(DatastoreForeign, match="another cluster"):
            await datastore.write_slot(heartbeat(1, cluster=foreign.cluster))
    (folder / "outlive-datastore.json").write_text("{")
    async with open_datastore("shared", folder, "a", seal, PATIENT) as datastore:
        with pytest.raises(DatastoreDamaged, match="marker"):
            await datastore.write_slot(heartbeat(1))


async def test_a_worker_that_cannot_be_started_is_an_error_in_time(
    folder: Path, seal: Seal, heartbeat: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "no-python"))
    async with open_datastore("shared", folder, "a", seal, PATIENT) as datastore:
        with pytest.raises(DatastoreError, match="failed") as raised:
            await datastore.write_slot(heartbeat(1))
        assert "No such file" in raised.value.cause
