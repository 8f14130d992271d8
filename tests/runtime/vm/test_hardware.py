"""Every kind of device and memory, on real boards: QEMU takes the command line, and a guest finds what it names."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlive import native
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import (
    MODULE,
    CloudInit,
    DiskBus,
    Firmware,
    GuestWatch,
    Machine,
    MachineType,
    Nic,
    NicModel,
)
from outlive.runtime.vm.seat import Held, PrivateMemory, Seat, SharedMemory, Watched
from outlive.runtime.vm.states import GuestState

from .conftest import NOBODY, SHELL, Place, disk, let_through, machines

pytestmark = pytest.mark.timeout(300)
RUNNING = ModuleStatus.RUNNING


def everything(place: Place, board: MachineType) -> Machine:
    return place.machine(
        type=board,
        cpus=2,
        disks=(disk("root"), disk("data", bus=DiskBus.SCSI), disk("old", bus=DiskBus.SATA), disk("more")),
        nics=(
            Nic("lan", "52:54:00:12:34:56", bridge="br0"),
            Nic("e", "52:54:00:12:34:57", network="n", model=NicModel.E1000E),
        ),
        guest_agent=True,
        cloud_init=CloudInit(user_data="#cloud-config\n{}\n"),
        watch=GuestWatch(enabled=True),
    )


def held(seat: Seat, machine: Machine) -> Seat:
    return replace(
        seat, nics={nic.name: Held(seat.run / f"{nic.name}.vm", seat.run / f"{nic.name}.cm") for nic in machine.nics}
    )


@pytest.mark.parametrize("board", [pytest.param(MachineType.PC, marks=pytest.mark.soak), MachineType.Q35])
async def test_a_machine_with_every_kind_of_device_boots_and_they_are_where_they_belong(
    place: Place, board: MachineType
) -> None:
    machine = everything(place, board)
    seat = held(place.seat(machine), machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        async with vm.monitored() as monitor:
            found = await monitor.call("query-named-block-nodes")
            version = await monitor.call("qom-get", {"path": "/machine", "property": "type"})
        assert {"disk-root", "file-root", "disk-data", "disk-old", "disk-more", "seed"} <= {
            node["node-name"] for node in found
        }
        assert version == f"{place.facts.newest[board]}-machine"
        await place.said(seat, SHELL)
        console = await vm.console.attach()
        await console.write(b"cat /sys/block/*/serial; ls /sys/bus/pci/devices; nproc; echo all $((40 + 2))\n")
        said = await place.said(seat, b"all 42")
    assert b"root" in said
    assert b"more" in said
    assert b"cloud-init" in said


async def test_uefi_keeps_its_variables_in_the_machines_folder(place: Place) -> None:
    machine = place.machine(type=MachineType.Q35, firmware=Firmware.UEFI, boot=None, disks=(disk(),), stop_s=0.0)
    seat = place.seat(machine)
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
    variables = place.facts.firmware_variables
    assert variables is not None
    assert (seat.folder / "nvram.fd").stat().st_size == variables.stat().st_size


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="outlive-test-", dir="/dev/shm"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "account", [pytest.param(None, marks=pytest.mark.soak), NOBODY], ids=["as root", "as its own user"]
)
async def test_watched_memory_goes_together_with_the_sandbox(
    place: Place, memory_folder: Path, account: object, tmp_path: Path
) -> None:
    let_through(tmp_path, Path(str(place.kernel.initrd)).parent)
    place.facts = replace(place.facts, account=account)  # type: ignore[arg-type]
    machine = place.machine()
    seat = place.seat(machine)
    ram = memory_folder / "ram"
    output = seat.run / "pagewatch"
    seat = replace(seat, memory=SharedMemory(ram, Watched(native.find("libpagewatch.so"), output)))
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        start, size = (await asyncio.to_thread(output.read_text)).split()
        assert int(size, 16) == ram.stat().st_size == machine.memory_mib << 20
        maps = await asyncio.to_thread(Path(f"/proc/{vm.pid}/maps").read_text)
        assert any(line.startswith(start) and str(ram) in line for line in maps.splitlines())
        assert "Seccomp:\t2" in await asyncio.to_thread(Path(f"/proc/{vm.pid}/status").read_text)
        await place.said(seat, SHELL)
    assert not ram.exists()
    assert not output.exists()


async def test_a_machine_in_epochs_is_looked_at_now_and_then_and_told_all_the_same(place: Place) -> None:
    machine = place.machine(nics=(Nic("lan", "52:54:00:12:34:56", bridge="br0"),))
    seat = held(place.seat(machine), machine)
    seat = replace(seat, comm_qmp=seat.run / "manager.sock", memory=PrivateMemory())
    async with machines(place, (machine, seat)) as [vm]:
        await vm.start(MODULE)
        assert await place.until_told(1) == (MODULE, RUNNING, "")
        assert seat.comm_qmp is not None
        assert seat.comm_qmp.is_socket()
        await place.said(seat, b"/ # ")
        with pytest.raises(Exception, match="neither paused"):
            await vm.pause()
        assert (await vm.screenshot()).startswith(b"\x89PNG")
        console = await vm.console.attach()
        await console.write(b"poweroff -f\n")
        assert await place.until_told(2) == (MODULE, ModuleStatus.FAILED, "the guest powered itself off")
        assert vm.state is GuestState.POWERED_OFF
