"""Planned moves of one machine by live migration: begun and ended at the source, awaited at the target.

What each step asks of QEMU is in `moves`. Here is what a move means for the machine's manager and its checkpoints, and
what is told of it. Whether and where to move is the node's to decide, and who goes on, the store's.
"""

from collections.abc import Mapping
from pathlib import Path

import structlog

from outlive.cluster import commands as do
from outlive.cluster.commands import Role
from outlive.cluster.machine import LOCAL
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.replication import control
from outlive.runtime.vm.moving import Sent, Tls

from . import moves
from .ground import Ground
from .machine_events import MachineEvents
from .machine_processes import Processes
from .seating import is_warm, machine_of
from .standing import Standing
from .warm_start import same_disks

log = structlog.get_logger()


class Migration:
    """The moves of one machine. data: its data folder in each datastore.  move: the one under way from here."""

    def __init__(
        self,
        workload: Workload,
        data: Mapping[str, Path],
        standing: Standing,
        ground: Ground,
        processes: Processes,
        events: MachineEvents,
    ) -> None:
        self._workload = workload
        self._data = data
        self._standing = standing
        self._ground = ground
        self._processes = processes
        self._events = events
        self._held_for: int | None = None
        self.move: moves.Move | None = None

    # At the source.

    async def hold_checkpoints(self, pairing: int) -> None:
        """A move begins: no checkpoint is taken from now on, since it would change what the target has to open.

        pairing: that of the move. One that is known here already has begun, or is over: then the news is old.
        """
        acts = is_warm(self._workload) and self._standing.role is Role.PRIMARY
        if not acts or pairing <= self._standing.pairing:
            return
        self._held_for = pairing
        await self._processes.unmanage()
        if self._held_for != pairing:  # that took so long that it is over
            self._processes.revive_soon()

    def release_checkpoints(self, pairing: int) -> None:
        """No move is meant at this pairing: one that never began is over. One that did is ended by its own order."""
        if self._held_for is not None and self._held_for < pairing:
            self._held_for = None
            self._processes.revive_soon()

    async def begin(self, command: do.MigrateTo) -> None:
        """Move to another host while it runs; Migrated or MigrationFailed follows."""
        at = (self._standing.generation, command.pairing)
        self._standing.pairing = command.pairing
        if self.move is not None:
            return
        vm = self._processes.vm
        if vm is None:
            self._events.migration_failed(at, "the machine is not running here")
            return
        # A checkpoint in the middle of a move would be of neither host.
        self._held_for = None
        if not await self._processes.unmanage():
            self._events.migration_failed(at, "the machine is still being started")
            return
        try:
            lacking = await self._lacking(command.target)
            tls = await self._tls(command.target)
        except (OutliveError, OSError) as error:
            lacking, tls = str(error), None
        if lacking:
            self._events.migration_failed(at, lacking)
            if is_warm(self._workload):
                await self._processes.revive()
            return

        def sent(how: Sent) -> None:
            about = {"stood_still_ms": how.downtime_ms, "took_s": round(how.took_s, 2), "bytes": how.bytes}
            log.info("machine.sent", workload=self._workload.name, target=command.target, **about)
            self._events.migrated(at, how.downtime_ms)

        def failed(reason: str) -> None:
            log.warning("machine.not_sent", workload=self._workload.name, generation=at[0], reason=reason)
            self._events.migration_failed(at, reason)

        self.move = moves.Move(vm, self._ground.tasks, sent, failed)
        self.move.begin(moves.Route(command.address, command.port, self._local_disks, tls))

    async def end(self) -> None:
        """Nobody takes the machine over: the guest goes on here, wherever the move had come to."""
        move, self.move = self.move, None
        if move is None:
            if is_warm(self._workload) and not self._processes.comm.runs:
                await self._processes.revive()
            return
        try:
            await move.end()
        except OutliveError as error:
            log.error("machine.not_rolled_back", workload=self._workload.name, reason=str(error))
            await self._processes.fail(f"it could not go on after a move that failed: {error}")
            return
        if is_warm(self._workload):
            await self._processes.revive()

    async def _lacking(self, target: str) -> str:
        """Why the machine cannot go to the target now; '' when it can. Raises OutliveError."""
        if is_warm(self._workload) and not await same_disks(self._workload, self._data, target):
            return "a checkpoint gave its disks new layers meanwhile; try again"
        return ""

    # At the target.

    async def await_guest(self) -> None:
        """Listen for the guest, in a machine that waits for state, and tell where. Raises OutliveError, OSError."""
        assert self._processes.vm is not None
        address, tls = self._ground.floor.address, await self._tls()
        port = await moves.await_guest(self._processes.vm, address, self._local_disks, tls)
        self._events.news(control.Listening(port))

    async def go_on_here(self) -> None:
        """The store has the machine here: let its guest run. Raises OutliveError."""
        if self._processes.vm is not None:
            await moves.go_on_here(self._processes.vm)

    @property
    def _local_disks(self) -> tuple[str, ...]:
        disks = machine_of(self._workload).disks
        return tuple(disk.name for disk in disks if disk.on == LOCAL and not disk.read_only)

    async def _tls(self, peer: str | None = None) -> Tls | None:
        floor = self._ground.floor
        account = floor.emulator().account
        return await moves.credentials(floor.tls, floor.run_folder(self._workload.name), account, peer)
