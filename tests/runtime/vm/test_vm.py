"""Real QEMU, real guests: started, ready, stopped, adopted, killed, refused."""

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, DiskFormat, MachineType
from outlive.runtime import cgroup
from outlive.runtime.vm.states import GuestState

from .conftest import NOBODY, SHELL, WITHIN_S, Place, disk, let_through, machines

pytestmark = pytest.mark.timeout(300)
RUNNING, FAILED = ModuleStatus.RUNNING, ModuleStatus.FAILED


@pytest.mark.parametrize(
    ("board", "form"),
    [
        pytest.param(MachineType.PC, DiskFormat.RAW, marks=pytest.mark.soak),
        (MachineType.Q35, DiskFormat.QCOW2),
    ],
    ids=["pc-raw", "q35-qcow2"],
)
async def test_a_guest_starts_and_powers_itself_off_when_it_is_stopped(
    place: Place, board: MachineType, form: DiskFormat
) -> None:
    machine = place.machine(type=board, disks=(disk(format=form),))
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        assert vm.state is GuestState.RUNNING
        await place.said(seat, SHELL)
        begun = time.monotonic()
        await vm.stop()
        assert time.monotonic() - begun < machine.stop_s
    assert not cgroup.populated(place.tree.workload("vm"))
    assert b"Power down" in await place.said(seat, b"")
    assert len(place.told) == 1
    assert seat.disks["root"].is_file()
    assert not seat.agents_qmp.exists()


async def test_a_killed_emulator_is_told_with_how_it_ended(place: Place) -> None:
    machine = place.machine(boot=None, disks=(disk(),))
    async with machines(place, (machine, place.seat(machine))) as [vm]:
        await vm.start(MODULE)
        await place.until_told(1)
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGKILL)
        assert await place.until_told(2) == (MODULE, FAILED, "it was ended by SIGKILL")


async def test_a_guest_outlives_the_agent_and_is_adopted_by_the_next(place: Place) -> None:
    machine = place.machine()
    seat = place.seat(machine)
    tasks_of_the_first = asyncio.create_task(_an_agent_that_ends(place, seat))
    pid = await tasks_of_the_first
    assert cgroup.populated(place.tree.workload("vm"))
    async with machines(place, (machine, seat)) as [vm]:
        assert await vm.adopt() == {MODULE: RUNNING}
        vm.watch_adopted()
        assert (vm.pid, vm.state) == (pid, GuestState.RUNNING)
        await place.said(seat, SHELL)
        console = await vm.console.attach()
        await console.write(b"poweroff -f\n")
        assert await place.until_told(2) == (MODULE, FAILED, "the guest powered itself off")
        assert "guest.powered-off" in [noted.what for noted in place.noted]
    assert [status for _, status, _ in place.told] == [RUNNING, FAILED]


async def _an_agent_that_ends(place: Place, seat: object) -> int:
    class Ends(Exception):
        pass

    pid = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            vm = place.vm(place.machine(), seat, tasks)  # type: ignore[arg-type]
            await vm.start(MODULE)
            await place.until_told(1)
            assert vm.pid is not None
            pid = vm.pid
            vm.leave()
            raise Ends
    except* Ends:
        pass
    return pid


async def test_what_ended_while_no_agent_was_there_is_told_to_the_next(place: Place) -> None:
    machine = place.machine(boot=None, disks=(disk(),))
    seat = place.seat(machine)
    pid = await asyncio.create_task(_an_agent_that_ends(place, seat))
    os.kill(pid, signal.SIGKILL)
    assert await cgroup.wait_empty(place.tree.module("vm", MODULE), WITHIN_S)
    async with machines(place, (machine, seat)) as [vm]:
        assert await vm.adopt() == {MODULE: FAILED}
        vm.watch_adopted()
        assert await place.until_told(2) == (MODULE, FAILED, "it was ended by SIGKILL")


async def test_the_same_disk_is_not_opened_twice(place: Place) -> None:
    machine = place.machine(boot=None, disks=(disk(),), stop_s=0.5)
    seat, other = place.seat(machine), place.seat(machine, "other")
    async with machines(place, (machine, seat), (machine, other)) as [first, second]:
        await first.start(MODULE)
        await place.until_told(1)
        await second.start(MODULE)
        module, status, reason = await place.until_told(2)
        assert (module, status) == (MODULE, FAILED)
        assert "another program holds the lock of the same image" in reason
        assert first.state is GuestState.RUNNING
        from_outside = await _run("qemu-io", "-f", "raw", "-c", "write 0 512", str(seat.disks["root"]))
        assert b'Failed to get "write" lock' in from_outside
    assert len(place.told) == 2


async def _run(*words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_S):
        said, _ = await process.communicate()
    return said


async def test_a_disk_that_is_missing_is_not_made_anew_when_the_machine_ran_before(place: Place) -> None:
    machine = place.machine(boot=None, disks=(disk(),))
    async with machines(place, (machine, place.seat(machine, may_make_disks=False))) as [vm]:
        await vm.start(MODULE)
        _, status, reason = await place.until_told(1)
        assert (status, vm.pid) == (FAILED, None)
        assert "The disk root is missing" in reason


async def test_console_picture_and_pause(place: Place) -> None:
    machine = place.machine(stop_s=0.5)
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        await place.said(seat, b"/ # ")
        first, second = await vm.console.attach(), await vm.console.attach()
        await first.write(b"echo three times $((3 * 7))\n")
        for attachment in (first, second):
            seen = b""
            async with asyncio.timeout(WITHIN_S):
                while b"three times 21" not in seen:
                    seen += await attachment.read()
        await first.close()
        picture = await vm.screenshot()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture.rstrip().endswith(b"IEND\xaeB`\x82")
        await vm.pause()
        await place.until(lambda: vm.state is GuestState.PAUSED)
        await vm.resume()
        await place.until(lambda: vm.state is GuestState.RUNNING)
        await vm.reset()
        await place.until(lambda: "guest.reset" in [noted.what for noted in place.noted])
    async with asyncio.timeout(WITHIN_S):
        while await second.read():
            pass
    assert [noted.what for noted in place.noted][:3] == ["guest.paused", "guest.running", "guest.reset"]
    assert [status for _, status, _ in place.told] == [RUNNING]


async def test_a_panicked_kernel_is_told(place: Place) -> None:
    machine = place.machine()
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        await place.said(seat, b"/ # ")
        console = await vm.console.attach()
        await console.write(b"echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger\n")
        assert await place.until_told(2) == (MODULE, FAILED, "the guest's kernel panicked")
    assert "guest.panicked" in [noted.what for noted in place.noted]


async def test_a_standby_waits_and_is_no_failure_and_is_not_let_go_by_hand(place: Place) -> None:
    machine = place.machine(disks=(disk(),))
    async with machines(place, (machine, place.seat(machine, incoming=True))) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        assert vm.state is GuestState.WAITING
        with pytest.raises(Exception, match="not let go on"):
            await vm.resume()
    assert len(place.told) == 1


async def test_it_runs_as_its_own_user_with_what_is_given_to_it(place: Place, tmp_path: Path) -> None:
    let_through(tmp_path, Path(str(place.kernel.initrd)).parent)
    machine = place.machine(disks=(disk(),))
    seat = place.seat(machine)
    place.facts = replace(place.facts, account=NOBODY)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        status = await asyncio.to_thread(Path(f"/proc/{vm.pid}/status").read_text)
        assert f"Uid:\t{NOBODY.user}\t{NOBODY.user}" in status
        assert "Seccomp:\t2" in status
        assert (await vm.screenshot()).startswith(b"\x89PNG")
        assert seat.folder.stat().st_uid == os.geteuid()


async def test_where_something_is_closed_to_its_own_user_it_runs_as_root(place: Place, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    place.facts = replace(place.facts, account=NOBODY)
    machine = place.machine(boot=None, disks=(disk(),), stop_s=0.0)
    async with machines(place, (machine, place.seat(machine))) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        status = await asyncio.to_thread(Path(f"/proc/{vm.pid}/status").read_text)
        assert f"Uid:\t{os.geteuid()}\t" in status
