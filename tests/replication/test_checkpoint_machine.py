"""A machine as the runtime makes it, in its sandbox and under another user: Q35, display, two CPUs, UEFI or not."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlive.cluster.machine import Disk, DiskFormat, Firmware, KernelBoot, Machine, MachineType
from outlive.lab.guests.tiny import READY, tiny
from outlive.replication.checkpoint import Hardware
from outlive.replication.checkpoint_disks import Plugged
from outlive.replication.checkpoint_hardware import hardware_of
from outlive.replication.checkpoint_reading import fill_memory, load_devices, prepare_resume
from outlive.replication.checkpoint_writer import CheckpointWriter, Target
from outlive.replication.library import pagewatch_path
from outlive.replication.memory import Memory
from outlive.replication.qmp_line import QmpLine
from outlive.replication.tracking import WriteTracker, read_pagewatch
from outlive.runtime.vm.command_line import command_line
from outlive.runtime.vm.host import HostFacts, find
from outlive.runtime.vm.seat import Seat, SharedMemory, Watched, disk_device

pytestmark = pytest.mark.lab

MIB = 1 << 20
MEMORY_MIB = 256
NOBODY = 65534
WAIT_S = 90.0


@dataclass
class Running:
    """A machine's QEMU. hardware: as a checkpoint tells it."""

    process: "subprocess.Popen[bytes]"
    seat: Seat
    hardware: Hardware
    ram: Path

    def line(self) -> QmpLine:
        assert self.seat.comm_qmp is not None
        return QmpLine(str(self.seat.comm_qmp))

    def writer(self, datastore: Path, generation: int) -> CheckpointWriter:
        memory = Memory.map_file(self.ram, MEMORY_MIB * MIB, writable=False)
        region = read_pagewatch(self.seat.run / "pagewatch", MEMORY_MIB * MIB)
        assert region is not None
        target = Target(
            datastore, "web", "a", generation, self.hardware, self.ram, self.ram.with_name("ram.devices"),
            (Plugged("root", disk_device("root")),),
        )  # fmt: skip
        return CheckpointWriter(target, self.line, memory, WriteTracker(self.process.pid, region, memory))

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not done():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """What it wrote on its console."""
        return self.seat.console_log.read_text(errors="replace") if self.seat.console_log.exists() else ""


@contextmanager
def machine(
    host: HostFacts, firmware: Firmware, disk: Path, disk_format: DiskFormat, *, incoming: bool
) -> Iterator[Running]:
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ocm-", dir=at))) for at in (None, "/dev/shm")
        ]
        for folder in folders:
            os.chown(folder, NOBODY, NOBODY)
        run, ram = folders[0], folders[1] / "ram"
        with ram.open("wb") as file:
            file.truncate(MEMORY_MIB * MIB)
        os.chown(ram, NOBODY, NOBODY)
        if firmware is Firmware.UEFI:
            assert host.firmware_variables is not None
            os.chown(shutil.copy(host.firmware_variables, run / "nvram.fd"), NOBODY, NOBODY)
        guest = tiny()
        made = Machine(
            cpus=2, memory_mib=MEMORY_MIB, type=MachineType.Q35, firmware=firmware,
            boot=KernelBoot(str(guest.kernel), str(guest.initrd), guest.append),
            disks=(Disk("root", format=disk_format, on="shared"),),
        )  # fmt: skip
        memory = SharedMemory(ram, Watched(pagewatch_path(), run / "pagewatch"))
        seat = Seat(run, run, {"root": disk}, {}, memory, incoming, run / "comm.qmp")
        words = command_line("web", made, seat, host)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(pagewatch_path()),
            "OUTLIVE_PAGEWATCH_BYTES": str(MEMORY_MIB * MIB),
            "OUTLIVE_PAGEWATCH_TO": str(run / "pagewatch"),
        }
        process = subprocess.Popen(words, env=environment, user=NOBODY, group=NOBODY)
        running = Running(process, seat, hardware_of(words, host.qemu_version, MEMORY_MIB, 2), ram)
        try:
            running.wait(lambda: (run / "pagewatch").exists() and (run / "comm.qmp").exists())
            yield running
        finally:
            process.kill()
            process.wait(60)


@pytest.fixture
def datastore() -> Iterator[Path]:
    """A folder that other users may pass."""
    with tempfile.TemporaryDirectory(prefix="ocm-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.parametrize("firmware", [Firmware.BIOS, pytest.param(Firmware.UEFI, marks=pytest.mark.soak)])
async def test_a_machine_of_the_runtime_goes_on_elsewhere_and_can_be_reset(datastore: Path, firmware: Firmware) -> None:
    host = await find()
    disk = datastore / "data" / "root.raw"
    disk.parent.mkdir(mode=0o755)
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    os.chown(disk, NOBODY, NOBODY)
    with machine(host, firmware, disk, DiskFormat.RAW, incoming=False) as first:
        first.wait(lambda: READY in first.said())
        writer = first.writer(datastore, 1)
        writer.write("test")
        writer.write("test")
        writer.close()
    resume = prepare_resume(writer.folder, first.hardware, generation=2, host="b")
    layer = resume.disk_files()["root"]
    assert (layer.stat().st_uid, layer.stat().st_mode & 0o777) == (NOBODY, 0o600)
    with machine(host, firmware, layer, DiskFormat.QCOW2, incoming=True) as second:
        assert second.hardware == first.hardware
        fill_memory(resume, second.ram)
        line = second.line()
        load_devices(line, resume)
        line.run("cont")
        assert line.run("query-status")["status"] == "running"
        line.close()
        writer = second.writer(datastore, 2)
        assert writer.write("test").parent is None
        writer.close()
        line = second.line()
        line.run("system_reset")
        line.close()
        second.wait(lambda: READY in second.said())
