"""What a warm machine needs beside a cold one on this host: its checkpoints' folder, and how a reign begins.

Which checkpoint is gone on from is `outlive.replication.beginning`'s to say; how it is loaded, its manager's. Here the
two meet the machine's seat: the layers that its disks consist of, and the hardware that QEMU would make of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from outlive.cluster.machine import DiskFormat, Machine
from outlive.cluster.machine_rules import datastores_of
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.replication import checkpoint_inquiry as inquiry
from outlive.replication.beginning import Beginning
from outlive.replication.checkpoint import Hardware
from outlive.replication.checkpoint_folder import folder_of
from outlive.replication.checkpoint_hardware import hardware_of
from outlive.replication.checkpoint_values import WarmDisk, WarmValues
from outlive.runtime.vm import seat as seats
from outlive.runtime.vm.command_line import command_line
from outlive.runtime.vm.host import HostFacts
from outlive.runtime.vm.seat import Seat

from .seating import lock_path, machine_of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How a machine is started: as which machine, on which seat, and what its manager is told."""

    machine: Machine
    seat: Seat
    values: WarmValues
    resumes: bool


def datastore_folder(workload: Workload, data: Mapping[str, Path]) -> Path:
    """The folder of the datastore that the workload's checkpoints are on. data: its data folder in each datastore."""
    on = workload.warm.on or datastores_of(workload)[0]
    return data[on].parent.parent


def _checkpoints(workload: Workload, data: Mapping[str, Path]) -> Path:
    return folder_of(datastore_folder(workload, data), workload.name)


async def warm_start(
    workload: Workload,
    seat: Seat,
    facts: HostFacts,
    data: Mapping[str, Path],
    *,
    generation: int,
    host: str,
    at: str,
    incoming: bool = False,
) -> WarmStart:
    """Decide how the machine begins, and make that ready. Raises OutliveError, OSError.

    at: the checkpoint that an operator chose to begin from; '' for none.
    incoming: its state comes from another host, so it begins from nothing here; its disks are as they are there.
    """
    machine = machine_of(workload)
    hardware = _hardware(workload, seat, facts)
    folder = _checkpoints(workload, data)
    run_lock, owner = lock_path(workload, data), _owner(facts)

    if incoming:
        begun = Beginning("", await inquiry.incoming(folder, host))
    else:
        begun = await inquiry.begun(
            folder, hardware, generation=generation, host=host, at=at, run_lock=run_lock, owner=owner
        )
    for passed in begun.skipped:
        log.error("checkpoint.passed_over", workload=workload.name, checkpoint=passed.name, reason=passed.reason)
    if begun.checkpoint:
        log.info("checkpoint.chosen", workload=workload.name, checkpoint=begun.checkpoint)
    disks = tuple(
        replace(disk, format=DiskFormat.QCOW2) if disk.name in begun.disks else disk for disk in machine.disks
    )
    files = {name: Path(path) for name, path in begun.disks.items()}
    seat = replace(seat, disks={**seat.disks, **files}, incoming=incoming or bool(begun.checkpoint))
    if begun.disks:
        seat = replace(seat, may_make_disks=False)
    values = _values(workload, data, hardware, begun, facts)
    return WarmStart(replace(machine, disks=disks), seat, values, bool(begun.checkpoint))


def adopted_start(workload: Workload, seat: Seat, facts: HostFacts, data: Mapping[str, Path]) -> WarmStart:
    """What a manager is told of a machine that an earlier agent started: it runs, or waits, and begins from nothing.

    seat: as before any layers, by which its hardware is known.
    """
    hardware = _hardware(workload, seat, facts)
    values = _values(workload, data, hardware, Beginning("", {}), facts)
    return WarmStart(machine_of(workload), seat, values, resumes=False)


def _hardware(workload: Workload, seat: Seat, facts: HostFacts) -> Hardware:
    machine = machine_of(workload)
    words = command_line(workload.name, machine, seat, facts)
    return hardware_of(words, facts.qemu_version, machine.memory_mib, machine.cpus)


def _values(
    workload: Workload, data: Mapping[str, Path], hardware: Hardware, begun: Beginning, facts: HostFacts
) -> WarmValues:
    policy, run_lock = workload.warm, lock_path(workload, data)
    user, group = _owner(facts) or (None, None)
    writable = [disk for disk in machine_of(workload).disks if not disk.read_only]
    return WarmValues(
        datastore=str(datastore_folder(workload, data)),
        hardware=hardware,
        disks=tuple(WarmDisk(disk.name, seats.disk_device(disk.name)) for disk in writable),
        run_lock=str(run_lock) if run_lock is not None else None,
        user=user,
        group=group,
        interval_s=policy.interval_s,
        keep=policy.keep,
        base_every=policy.base_every,
        resume=begun.checkpoint or None,
    )


def _owner(facts: HostFacts) -> tuple[int, int] | None:
    return (facts.account.user, facts.account.group) if facts.account is not None else None


async def note_shut_down(workload: Workload, data: Mapping[str, Path]) -> None:
    """The guest ended by its own will: the next reign boots it."""
    try:
        await inquiry.shut_down(_checkpoints(workload, data))
    except OutliveError as error:
        log.error("shutdown.not_noted", workload=workload.name, reason=str(error))


async def same_disks(workload: Workload, data: Mapping[str, Path], target: str) -> bool:
    """Whether the target of a move opened the disks' layers as they are now; no checkpoint may be taken after this."""
    return await inquiry.opened_the_same(_checkpoints(workload, data), target)
