"""A real guest with its disk on a datastore, for tests of checkpoints: starts QEMU, asks the guest, kills QEMU."""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from outlive.lab.guests.tiny import SERVER_PORT, tiny
from outlive.replication.checkpoint import Hardware
from outlive.replication.checkpoint_disks import Plugged
from outlive.replication.checkpoint_writer import CheckpointWriter, Target
from outlive.replication.library import pagewatch_path
from outlive.replication.memory import Memory
from outlive.replication.qmp_line import QmpLine
from outlive.replication.tracking import WriteTracker, read_pagewatch

from ..ports import free_port

MEMORY_MIB = 128
WAIT_S = 90.0
HARDWARE = Hardware("7.2.22", "pc-i440fx-7.2", "qemu64", "tcg", 1, MEMORY_MIB, ("virtio-blk-pci,addr=04",))
DISKS = (Plugged("root", "device-root"),)
_LEDGER = b"OUTLIVE-GUEST-LEDGER".ljust(32, b"\0")


class Guest:
    """One QEMU process. disk: the file and format that its disk is started from; port: where its server is reached.

    tracked: its memory is shared and watched for writes, as a warm machine's; else it is QEMU's alone.
    """

    def __init__(
        self,
        folder: Path,
        disk: Path,
        disk_format: str = "raw",
        *,
        port: int,
        incoming: bool = False,
        memory_mib: int = MEMORY_MIB,
        cpus: int = 1,
        tracked: bool = True,
    ) -> None:
        self.hardware = replace(HARDWARE, memory_mib=memory_mib, cpus=cpus)
        found = tiny()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.memory = Path(tempfile.mkdtemp(prefix="outlive-checkpoint-", dir="/dev/shm"))
        self.ram = self.memory / "ram"
        self.scratch = self.memory / "scratch"
        self.monitors = Path(tempfile.mkdtemp(prefix="ocq-"))
        self.port = port
        words = [
            "qemu-system-x86_64", "-accel", "tcg", "-machine", "pc-i440fx-7.2,memory-backend=ram0",
            "-cpu", "qemu64", "-m", f"{memory_mib}", "-smp", f"{cpus}", "-nodefaults", "-display", "none",
            "-object", f"memory-backend-file,id=ram0,size={memory_mib}M,mem-path={self.ram},share=on"
            if tracked else f"memory-backend-ram,id=ram0,size={memory_mib}M",
            "-kernel", str(found.kernel), "-initrd", str(found.initrd), "-append", found.append_for("10.0.2.15/24"),
            "-serial", f"file:{folder / 'console'}",
            "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:{SERVER_PORT}",
            "-device", "virtio-net-pci,netdev=n0,romfile=,addr=03",
            "-blockdev", f"driver=file,node-name=file-root,filename={disk}",
            "-blockdev", f"driver={disk_format},node-name=disk-root,file=file-root",
            "-device", "virtio-blk-pci,id=device-root,drive=disk-root,addr=04",
        ]  # fmt: skip
        for name in ("agent", "manager"):
            words += ["-qmp", f"unix:{self.monitors / name},server=on,wait=off"]
        if incoming:
            words += ["-incoming", "defer", "-S"]
        watch = {
            "LD_PRELOAD": str(pagewatch_path()),
            "OUTLIVE_PAGEWATCH_BYTES": str(memory_mib << 20),
            "OUTLIVE_PAGEWATCH_TO": str(folder / "pagewatch"),
        }
        environment = {**os.environ, **(watch if tracked else {})}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(words, env=environment, stderr=log)
        _until(lambda: (self.monitors / "manager").exists(), self)

    def qmp(self) -> QmpLine:
        return QmpLine(str(self.monitors / "manager"))

    def booted(self) -> "Guest":
        _until(lambda: bool(self.ask("get")), self)
        return self

    def ask(self, line: str) -> str:
        """What the guest answers; '' when it does not."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(line.encode() + b"\n")
                return connection.makefile().readline().strip()
        except OSError:
            return ""

    def numbers(self) -> dict[str, str]:
        """What `get` tells."""
        return dict(pair.split("=") for pair in self.ask("get").split())

    def memory_and_tracker(self) -> tuple[Memory, WriteTracker]:
        size = self.hardware.memory_mib << 20
        memory = Memory.map_file(self.ram, size, writable=False)
        region = read_pagewatch(self.folder / "pagewatch", size)
        assert region is not None
        return memory, WriteTracker(self.process.pid, region, memory)

    def writer(self, datastore: Path, generation: int = 1, **changed: Any) -> CheckpointWriter:
        """A writer for this guest. changed: of its target."""
        target = replace(self.target(datastore, generation), **{k: v for k, v in changed.items() if k != "step"})
        return CheckpointWriter(target, self.qmp, *self.memory_and_tracker(), changed.get("step", lambda step: None))

    def agents_line(self) -> QmpLine:
        """The monitor that the manager does not use."""
        return QmpLine(str(self.monitors / "agent"))

    def runs(self) -> bool:
        """Whether the guest's processor runs, asked over the agent's monitor."""
        line = self.agents_line()
        try:
            return bool(line.run("query-status")["status"] == "running")
        finally:
            line.close()

    def target(self, datastore: Path, generation: int = 1) -> Target:
        return Target(
            datastore, "web", "a", generation, self.hardware, self.ram, self.scratch, DISKS, silent_s=30.0
        )  # fmt: skip

    def kill(self) -> None:
        """As a power cut: QEMU and its memory are gone."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_S)
        for folder in (self.memory, self.monitors):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


def ledger(ram: Path) -> dict[str, int]:
    """What the guest's memory tells of its disk: numbers issued to it, and numbers known to be durable."""
    raw = ram.read_bytes()
    found = [at for at in _positions(raw, _LEDGER) if any(raw[at + 32 : at + 64])]
    assert found, "the guest's ledger is not in its memory"
    numbers = [struct.unpack_from("<4Q", raw, at + 32) for at in found]
    _, _, issued, written = max(numbers)
    return {"issued": issued, "written": written}


def newest_number(disk: Path, disk_format: str, scratch: Path) -> int:
    """The newest number on a disk, all of its layers taken together."""
    subprocess.run(["qemu-img", "convert", "-f", disk_format, "-O", "raw", str(disk), str(scratch)], check=True)
    raw = scratch.read_bytes()
    scratch.unlink()
    return max(int(struct.unpack_from("<Q", raw, at)[0]) for at in range(0, len(raw), 4096))


def _positions(raw: bytes, wanted: bytes) -> Iterator[int]:
    at = raw.find(wanted)
    while at >= 0:
        yield at
        at = raw.find(wanted, at + 1)


def make_disk(datastore: Path, size: int = 64 << 20) -> Path:
    """An empty disk file of the workload `web` on the datastore."""
    disk = datastore / "data" / "web" / "root.raw"
    disk.parent.mkdir(parents=True)
    (datastore / "checkpoints").mkdir()
    with disk.open("wb") as file:
        file.truncate(size)
    return disk


@contextmanager
def guest(folder: Path, disk: Path, disk_format: str = "raw", *, incoming: bool = False) -> Iterator[Guest]:
    """A guest that is gone at the end."""
    with free_port() as port:
        made = Guest(folder, disk, disk_format, port=port, incoming=incoming)
        try:
            yield made
        finally:
            if made.memory.exists():
                made.kill()


def _until(done: object, guest: Guest) -> None:
    assert callable(done)
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert guest.process.poll() is None, (guest.folder / "log").read_text()
        assert time.monotonic() < deadline, "the guest did not get there in time"
        time.sleep(0.05)
