"""One virtual machine on this host: what the rest of the agent asks of it, and how its rooms come together.

To the agent it is a `Runtime` with one module that can besides be paired, moved and taken over. What runs of it is in
`machine_processes`, its other half in `machine_pairing`, planned moves in `machine_migration`, what is told of it in
`machine_events`: nothing is decided in any of them. The invariant: a manager that held output back is ended, never told
to let go, unless the node said that the store was won.
"""

from collections.abc import Mapping
from pathlib import Path

from outlive.cluster import commands as do
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.replication import control
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.vm.vm import Vm

from .comm import PARTED_PHASES, Ended
from .ground import Ground
from .machine_events import MachineEvents
from .machine_migration import Migration
from .machine_pairing import Pairing
from .machine_processes import Processes
from .machine_start import Starts
from .moves import Move
from .observe import Tell
from .seating import is_followed, is_warm, machine_of
from .standing import Standing


class MachineRuntime:
    """A workload of kind vm here, in one role. data: its data folder in each datastore that its disks are on.

    told: takes its module's status.  tell: whatever else the node must know.
    """

    def __init__(
        self,
        workload: Workload,
        where: Whereabouts,
        role: Role,
        pairing: int,
        data: Mapping[str, Path],
        ground: Ground,
        told: Told,
        tell: Tell,
    ) -> None:
        self._workload = workload
        self._ground = ground
        standing = self._standing = Standing(workload.name, where.generation, pairing, role, ground.floor.address)
        events = self._events = MachineEvents(standing, ground.clock, told, tell)
        starts = Starts(workload, where, data, ground, standing)
        processes = self._processes = Processes(workload, data, ground, standing, starts, events, self._heard)
        self._pairing = Pairing(standing, processes, events)
        self._migration = Migration(workload, data, standing, ground, processes, events)
        self._found: control.Status | None = None
        self._checkpoints: dict[str, do.TakeCheckpoint] = {}
        self.progress: control.Progress | None = None
        self.seeding: control.Seeding | None = None

    # How it stands.

    @property
    def role(self) -> Role:
        """Whether it acts, follows, or is moving here."""
        return self._standing.role

    @property
    def generation(self) -> int:
        """The generation at which it acts, or that it follows."""
        return self._standing.generation

    @property
    def pairing(self) -> int:
        """The latest pairing that it is known to have been in; 0 when nobody knows."""
        return self._standing.pairing

    @property
    def vm(self) -> Vm | None:
        """The machine itself, once it was started or adopted."""
        return self._processes.vm

    @property
    def phase(self) -> str:
        """Where its communication manager stands; '' without one."""
        return self._processes.comm.phase

    @property
    def move(self) -> Move | None:
        """Its move away from here, if one is under way."""
        return self._migration.move

    # As a runtime.

    async def start(self, module: str) -> None:
        """Start the machine anew, and its manager; what becomes of it is told."""
        try:
            await self._processes.start(module)
        except (OutliveError, OSError) as error:
            await self._processes.fail(str(error))

    async def stand_by(self) -> None:
        """Start the machine so that it waits for state; raises OutliveError or OSError when it cannot."""
        assert self.role is not Role.PRIMARY
        await self._processes.start_waiting()
        if self.role is Role.INCOMING:
            await self._migration.await_guest()

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent started."""
        statuses = await self._processes.adopt_vm()
        if not statuses or not is_followed(self._workload) or self.role is Role.INCOMING:
            return statuses
        self._found = await self._processes.comm.adopt()
        if self.role is Role.STANDBY:
            return statuses if self._found is not None and self._found.phase != "failed" else {}
        self._pairing.found(self._found)
        return statuses

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted."""
        if self.vm is not None:
            self.vm.watch_adopted()
        if self._found is not None:
            self._heard(self._found)
            self._processes.comm.follow()
        elif is_followed(self._workload) and self.role is Role.PRIMARY:
            self._pairing.died_unseen()

    async def stop(self) -> None:
        """Stop it; at once where somebody else has its state already, else by its power button.

        Its taps and folders are left to `clearing`, which sees to them however a machine came to be here.
        """
        await self._processes.revive_no_more()
        superseded = self._ground.superseded(self._workload.name, self.generation)
        elsewhere = self.role is not Role.PRIMARY or superseded or self.phase in PARTED_PHASES
        await self._processes.stop(at_once=elsewhere)

    def leave(self) -> None:
        """Let go of nothing but the watching."""
        self._processes.leave()

    # What the node decided.

    async def pair(self, command: do.Pair) -> None:
        """Have a standby seeded; what comes of it is told."""
        await self._pairing.pair(command)

    async def go_alone(self, command: do.GoAlone) -> None:
        """Go on here: let out what is held, or end a move, wherever that had come to."""
        if not self._pairing.ended_by(command.pairing):
            return
        if self._workload.is_hot:
            await self._pairing.let_out()
        else:
            await self._migration.end()

    async def hand_over(self) -> None:
        """Complete a last epoch and leave the guest standing still."""
        await self._pairing.hand_over()

    async def hold_checkpoints(self, pairing: int) -> None:
        """A move begins at this pairing: no checkpoint is taken from now on."""
        await self._migration.hold_checkpoints(pairing)

    def release_checkpoints(self, pairing: int) -> None:
        """No move is meant at this pairing: checkpoints are taken again."""
        self._migration.release_checkpoints(pairing)

    async def migrate(self, command: do.MigrateTo) -> None:
        """Move to another host while it runs; Migrated or MigrationFailed follows."""
        await self._migration.begin(command)

    async def take_over(self, to_generation: int) -> None:
        """Be the primary from now on. Raises OutliveError or TimeoutError; then nothing may be left of it."""
        if self.role is Role.STANDBY:
            await self._pairing.adopt(to_generation)
        else:
            await self._migration.go_on_here()
        self._standing.role, self._standing.generation = Role.PRIMARY, to_generation
        if is_warm(self._workload):
            await self._processes.revive()
        age = (to_generation, self.pairing)
        await self._ground.floor.wires.take(self._workload.name, age, machine_of(self._workload))

    async def checkpoint(self, command: do.TakeCheckpoint) -> None:
        """Have a checkpoint made; CheckpointEnded follows."""
        self._checkpoints[command.name] = command
        try:
            await self._processes.comm.send(control.Checkpoint(command.name, command.operation))
        except OutliveError as error:
            self._checkpoint_ended(command.name, whole=False, reason=str(error))

    # What the manager tells.

    def _heard(self, event: control.Event | Ended) -> None:
        match event:
            case control.Checkpointed(name=checkpoint):
                self._checkpoint_ended(checkpoint, whole=True, reason=f"{event.bytes} bytes")
            case control.CheckpointFailed(name=checkpoint, reason=reason):
                self._checkpoint_ended(checkpoint, whole=False, reason=reason)
            case control.Progress():
                self.progress = event
            case control.Seeding() if self.role is Role.PRIMARY:
                self.seeding = event
            case _:
                self._pairing.heard(event)

    def _checkpoint_ended(self, name: str, *, whole: bool, reason: str) -> None:
        command = self._checkpoints.pop(name, None)
        if command is not None:
            self._events.checkpoint_ended(command.operation, whole=whole, reason=reason)
