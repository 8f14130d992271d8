"""What one machine is started from on this host, found out anew for each start: its seat, its disks, its checkpoint.

Whether its disks may still be made, which layers a warm machine's disks consist of and what it goes on from are seen
to here, and what its communication manager is told of all that. Nothing runs yet: see `machine_processes`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload
from outlive.replication.comm_config import CommConfig
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.vm.seat import Seat
from outlive.runtime.vm.vm import Noted, Vm

from .ground import Ground
from .seating import (
    comm_config_of,
    is_warm,
    machine_of,
    make_room,
    make_startable,
    mark_made,
    seat_of,
    were_made,
)
from .standing import Standing
from .warm_start import WarmStart, adopted_start, same_disks, warm_start


class Starts:
    """The starts of one machine. data: its data folder in each datastore that its disks are on."""

    def __init__(
        self, workload: Workload, where: Whereabouts, data: Mapping[str, Path], ground: Ground, standing: Standing
    ) -> None:
        self._workload = workload
        self._where = where
        self._data = data
        self._ground = ground
        self._standing = standing
        self._warm: WarmStart | None = None
        self._began = False

    @property
    def resumes(self) -> bool:
        """Whether the guest goes on from a checkpoint, which its manager loads."""
        return self._warm is not None and self._warm.resumes

    async def seat(self) -> Seat:
        """Make the machine's seat ready, as it was before any layers. Raises OutliveError, OSError."""
        floor, workload, standing = self._ground.floor, self._workload, self._standing
        floor.emulator()
        await make_room(floor, workload, standing.role)
        seat = await self._plugged_seat()
        fresh = standing.role is Role.PRIMARY and not self._ground.ran_before(workload.name, standing.generation)
        if fresh and not await were_made(floor, workload, self._data):
            return replace(seat, may_make_disks=True)
        return seat

    async def _plugged_seat(self) -> Seat:
        """The machine's seat, with its taps made or found."""
        floor, workload, standing = self._ground.floor, self._workload, self._standing
        live = standing.role is Role.PRIMARY
        taps = {
            nic.name: await floor.wires.plug(workload.name, standing.generation, nic, live=live)
            for nic in machine_of(workload).nics
        }
        return seat_of(floor, workload, standing.role, taps, self._data)

    async def on_layers(self, seat: Seat) -> Seat:
        """The seat with the disks' layers of now, and for a checkpoint to go on from. Raises OutliveError, OSError."""
        if not is_warm(self._workload):
            return seat
        ground, name, generation = self._ground, self._workload.name, self._standing.generation
        # What an operator chose counts until the machine has begun from it once, however often that is tried.
        at = "" if self._began else ground.resume_at(name, generation)
        self._warm = await warm_start(
            self._workload,
            seat,
            ground.floor.emulator(),
            self._data,
            generation=generation,
            host=ground.floor.host,
            at=at,
            incoming=self._standing.role is not Role.PRIMARY,
        )
        self._began = True
        return self._warm.seat

    async def layers_stand(self) -> bool:
        """Whether no checkpoint gave the disks new layers since; there is none but a warm machine's."""
        return self._warm is None or await same_disks(self._workload, self._data, self._ground.floor.host)

    async def finish_disks(self) -> None:
        """Make a standby's disks a hot machine's own to start from. Raises Failed, OSError."""
        if self._workload.is_hot:
            await make_startable(self._ground.floor, self._workload)

    async def mark_made(self) -> None:
        """The machine's disks have been made: one that is missing from now on is lost. Raises OSError."""
        await mark_made(self._ground.floor, self._workload, self._data)

    def vm(self, seat: Seat, told: Told, noted: Callable[[Noted], None]) -> Vm:
        """The machine on its seat. Raises Failed without an emulator."""
        ground, workload = self._ground, self._workload
        if self._warm is not None:
            workload = replace(workload, machine=self._warm.machine)
        emulator = ground.floor.emulator()
        return Vm(workload, self._where, ground.premises, seat, emulator, told, ground.tasks, ground.may_act, noted)

    async def adopted_vm(self, told: Told, noted: Callable[[Noted], None]) -> Vm:
        """The machine that an earlier agent started. Raises OutliveError."""
        self._began = True
        vm = self.vm(await self._plugged_seat(), told, noted)
        if is_warm(self._workload):
            self._warm = adopted_start(self._workload, vm.seat, self._ground.floor.emulator(), self._data)
        return vm

    async def comm_config(self, seat: Seat, state_dir: Path, qemu_pid: int) -> CommConfig:
        """What the machine's communication manager is told. Raises OSError."""
        standing = self._standing
        at = (standing.generation, standing.pairing)
        about = self._ground.floor, self._workload, standing.role, seat, state_dir, at, qemu_pid
        config = await asyncio.to_thread(comm_config_of, *about)
        return msgspec.structs.replace(config, warm=self._warm.values) if self._warm is not None else config
