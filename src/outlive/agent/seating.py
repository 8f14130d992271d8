"""Where a virtual machine sits on this host: which files, sockets, taps and memory belong to it.

Everything follows from the workload's name and the host's folders, so that a later agent finds the same seat without
being told. Here is what is named and made ready; what QEMU makes of it is in `outlive.runtime.vm`, and who may sit
there is decided elsewhere. Local disks stay when a machine leaves; all else in a seat ends with it.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outlive.cluster.commands import Role
from outlive.cluster.machine import LOCAL, Disk, HotPolicy, Machine, Nic
from outlive.cluster.machine_rules import datastores_of
from outlive.cluster.workload import Protection, Workload
from outlive.config.agent_file import TlsFiles
from outlive.errors import Failed
from outlive.native import find
from outlive.replication import comm_config, disk_copy
from outlive.runtime.vm import seat as seats
from outlive.runtime.vm.host import HostFacts
from outlive.runtime.vm.seat import Held, PrivateMemory, Seat, SharedMemory, Tap, Watched

MIB = 1 << 20
COMM_QMP = "comm.qmp"
PAGEWATCH = "pagewatch"
MADE = "disks-made"


class Wires(Protocol):
    """What gives network cards their taps on this host."""

    async def plug(self, workload: str, generation: int, nic: Nic, *, live: bool) -> str:
        """Make the card's tap, in its bridge and up; return the tap's name. Raises OutliveError."""
        ...

    async def take(self, workload: str, age: tuple[int, int], machine: Machine) -> None:
        """The machine stood by here, and runs here from now on. age: generation and pairing. Raises OutliveError."""
        ...

    async def unplug(self, workload: str) -> None:
        """Remove all taps of a machine. Raises OutliveError."""
        ...


@dataclass(frozen=True, slots=True)
class Floor:
    """What virtual machines stand on at this host.

    cluster, host, address: this host's place in the cluster.  folder: where local disks are kept.
    ram:   a folder in memory.  run: a folder with a short path, gone with a reboot.
    facts: what QEMU there is; None: none, and `lacking` says why.
    tls:   with which standbys and primaries prove themselves to each other.
    """

    cluster: str
    host: str
    address: str
    folder: Path
    ram: Path
    run: Path
    wires: Wires
    facts: HostFacts | None = None
    lacking: str = ""
    tls: TlsFiles | None = None

    def emulator(self) -> HostFacts:
        """What QEMU there is. Raises Failed."""
        if self.facts is None:
            raise Failed("This host cannot run virtual machines.", cause=self.lacking, id="vm.no-emulator")
        return self.facts

    def run_folder(self, workload: str) -> Path:
        """A machine's own folder for sockets: their paths must be short, and names may be long."""
        return self.run / _short(workload)

    def ram_file(self, workload: str) -> Path:
        """The file that is a machine's memory while it is shared."""
        return self.ram / f"{_short(workload)}.ram"


def is_followed(workload: Workload) -> bool:
    """Whether a communication manager belongs to it."""
    return workload.machine is not None and workload.protection is not Protection.COLD


def is_warm(workload: Workload) -> bool:
    """Whether checkpoints of it are kept."""
    return workload.machine is not None and workload.protection is Protection.WARM


def machine_of(workload: Workload) -> Machine:
    """The machine of a workload of kind vm."""
    assert workload.machine is not None
    return workload.machine


def lock_path(workload: Workload, data: Mapping[str, Path]) -> Path | None:
    """The run lock, beside the first of the workload's data folders; None without any."""
    on = workload.data_on or next(iter(datastores_of(workload)), None)
    return lock_file(data[on], workload.name) if on is not None and data else None


def lock_file(data: Path, workload: str) -> Path:
    """The run lock beside a workload's data folder in a datastore."""
    return data.parent / f"{workload}.lock"


def disk_file(floor: Floor, workload: str, disk: Disk, data: Mapping[str, Path]) -> Path:
    """Where a disk is on this host. data: the workload's data folder in each datastore."""
    file = f"{disk.name}.{disk.format}"
    return (floor.folder / workload / "disks" if disk.on == LOCAL else data[disk.on]) / file


def seat_of(floor: Floor, workload: Workload, role: Role, taps: Mapping[str, str], data: Mapping[str, Path]) -> Seat:
    """The machine's seat here. taps: by the cards' names. Raises Failed when a part of ours is missing."""
    machine, name = machine_of(workload), workload.name
    run = floor.run_folder(name)
    followed, hot = is_followed(workload), workload.is_hot
    watched = Watched(find("libpagewatch.so"), run / PAGEWATCH) if followed else None
    return Seat(
        folder=floor.folder / name,
        run=run,
        disks={disk.name: disk_file(floor, name, disk, data) for disk in machine.disks},
        nics={nic: _held(run, nic, tap) if hot else Tap(tap) for nic, tap in taps.items()},
        memory=SharedMemory(floor.ram_file(name), watched) if followed else PrivateMemory(),
        incoming=role is not Role.PRIMARY,
        comm_qmp=run / COMM_QMP if followed else None,
    )


def _held(run: Path, nic: str, tap: str) -> Held:
    short = _short(nic)
    return Held(local=run / f"{short}.vm", remote=run / f"{short}.px", tap=tap)


def comm_config_of(
    floor: Floor, workload: Workload, role: Role, seat: Seat, state_dir: Path, at: tuple[int, int], qemu_pid: int
) -> comm_config.CommConfig:
    """What the machine's communication manager is told. at: generation and pairing. It blocks."""
    machine = machine_of(workload)
    assert isinstance(seat.memory, SharedMemory)
    assert seat.memory.watched is not None
    assert seat.comm_qmp is not None
    return comm_config.CommConfig(
        role="primary" if role is Role.PRIMARY else "standby",
        cluster=floor.cluster,
        host=floor.host,
        workload=workload.name,
        generation=at[0],
        pairing=at[1],
        state_dir=str(state_dir),
        qmp=str(seat.comm_qmp),
        qemu_pid=qemu_pid,
        ram_path=str(seat.memory.file),
        ram_bytes=machine.memory_mib * MIB,
        pagewatch=str(seat.memory.watched.output),
        nics=tuple(_held_nic(nic, end) for nic in machine.nics if isinstance(end := seat.nics.get(nic.name), Held)),
        disks=tuple(_replicated(disk, seat.disks[disk.name]) for disk in machine.disks if not disk.read_only)
        if workload.is_hot
        else (),
        hot=_hot_values(workload.hot) if workload.is_hot else None,
        listen_address=floor.address,
        tls=None
        if floor.tls is None
        else comm_config.TlsFiles(str(floor.tls.ca), str(floor.tls.certificate), str(floor.tls.key)),
    )


def _held_nic(nic: Nic, end: Held) -> comm_config.Held:
    return comm_config.Held(nic.name, end.tap, str(end.remote), str(end.local), nic.mac)


def _replicated(disk: Disk, path: Path) -> comm_config.ReplicatedDisk:
    return comm_config.ReplicatedDisk(disk.name, seats.node(disk.name), str(path), path.stat().st_size)


def _hot_values(policy: HotPolicy) -> comm_config.HotValues:
    return comm_config.HotValues(
        floor_ms=policy.floor_ms,
        idle_ms=policy.idle_ms,
        silence_ms=policy.silence_ms,
        overhead=policy.overhead,
        bandwidth_mib_s=policy.bandwidth_mib_s,
    )


async def make_room(floor: Floor, workload: Workload, role: Role) -> None:
    """Make the folders of a seat, and for a standby the disks that it is going to be sent. Raises Failed, OSError."""
    await asyncio.to_thread(_make_room, floor, workload, role)


def _make_room(floor: Floor, workload: Workload, role: Role) -> None:
    name = workload.name
    for folder in (floor.folder / name / "disks", floor.ram, floor.run_folder(name)):
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    if role is not Role.STANDBY:
        return
    for disk in machine_of(workload).disks:
        path = disk_file(floor, name, disk, {})
        if path.exists() or disk.read_only:
            continue
        if disk.size_mib is None:
            raise Failed(
                f"The standby's disk {disk.name} cannot be made.",
                cause="how large it is is not known here",
                remedy="write size_mib for the disk in the workload's file",
            )
        beside = path.with_name(path.name + ".new")
        with beside.open("wb") as file:
            file.truncate(disk.size_mib * MIB)
        beside.rename(path)


def _startable(disks: Sequence[comm_config.ReplicatedDisk]) -> None:
    label = disk_copy.make_startable(disks)
    if label is not None and not label.whole:
        raise Failed(
            "The machine's disks on this host are a standby's that was not finished.",
            cause=f"they were being copied in pairing {label.pairing} of generation {label.generation}",
            remedy="start it on the host that has them whole",
            id="vm.disk-not-whole",
        )


async def make_startable(floor: Floor, workload: Workload) -> None:
    """Before a hot machine is started from its disks: finish what it was as a standby. Raises Failed, OSError."""
    disks = machine_of(workload).disks
    files = {disk.name: disk_file(floor, workload.name, disk, {}) for disk in disks if not disk.read_only}
    there = [_replicated(disk, files[disk.name]) for disk in disks if disk.name in files and files[disk.name].exists()]
    await asyncio.to_thread(_startable, there)


def _marks(floor: Floor, workload: Workload, data: Mapping[str, Path]) -> list[Path]:
    """One beside the disks in each place that has any."""
    places = {disk.on for disk in machine_of(workload).disks}
    return [(floor.folder / workload.name if place == LOCAL else data[place]) / MADE for place in sorted(places)]


async def were_made(floor: Floor, workload: Workload, data: Mapping[str, Path]) -> bool:
    """Whether the machine's disks were made once; one that is missing then is lost, and no empty one hides that."""
    marks = _marks(floor, workload, data)
    return await asyncio.to_thread(lambda: any(mark.exists() for mark in marks))


async def mark_made(floor: Floor, workload: Workload, data: Mapping[str, Path]) -> None:
    """Note that the machine's disks have been made. Raises OSError."""

    def mark_all() -> None:
        for mark in _marks(floor, workload, data):
            mark.touch(exist_ok=True)

    await asyncio.to_thread(mark_all)


def forget(floor: Floor, workload: str) -> None:
    """Remove what ends with a machine's stay here; its disks stay. It blocks."""
    shutil.rmtree(floor.run_folder(workload), ignore_errors=True)
    floor.ram_file(workload).unlink(missing_ok=True)


def _short(name: str) -> str:
    return hashlib.blake2s(name.encode(), digest_size=4).hexdigest()
