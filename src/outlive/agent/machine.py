"""One virtual machine on this host, with its communication manager: started, followed, handed on, taken over.

To the rest of the agent it is a `Runtime` with one module. Besides, it carries out what the node decided about its
pairing, and tells the node what the manager tells: it decides nothing itself. The invariant: a manager that held
output back is ended, never told to let go, unless the node said that the store was won.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import LOCAL, MODULE
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.replication import control
from outlive.runtime import cgroup
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.vm.moving import Sent, Tls
from outlive.runtime.vm.seat import Seat
from outlive.runtime.vm.states import GuestState
from outlive.runtime.vm.vm import Noted, Vm

from . import moves
from .comm import Comm, CommFailed, Ended
from .ground import Ground
from .machine_news import About, missed, news_of
from .observe import Tell
from .seating import (
    comm_config_of,
    is_followed,
    is_warm,
    lock_path,
    machine_of,
    make_room,
    make_startable,
    mark_made,
    seat_of,
    were_made,
)
from .warm_start import WarmStart, adopted_start, note_shut_down, same_disks, warm_start

WAITS_WITHIN_S = 60.0
ADOPTED_WITHIN_S = 10.0
RESUMED_POLL_S = 0.05
OPENED_TRIES = 3
HELD_PHASES = ("paired", "lost", "handed-over")
PRIMARY_PHASES = ("free", "seeding", *HELD_PHASES)

log = structlog.get_logger()


class MachineRuntime:
    """A workload of kind vm here, in one role. data: its data folder in each datastore that its disks are on.

    told: takes its module's status.  tell: whatever else the node must know.

    _bound: its manager may hold output for a standby, so that after its death none is let out before GoAlone.
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
        self._where = where
        self._data = data
        self._ground = ground
        self._told = told
        self._tell_node = tell
        self.role = role
        self.pairing = pairing
        self.generation = where.generation
        self._vm: Vm | None = None
        self._comm = Comm(workload.name, ground.premises, ground.tasks, self._heard)
        self._waits = asyncio.Event()
        self._withheld = False
        self._bound = False
        self._stopped = False
        self._revival: asyncio.Task[None] | None = None
        self._adopted: asyncio.Future[control.Adopted] | None = None
        self.move: moves.Move | None = None
        self._found: control.Status | None = None
        self.progress: control.Progress | None = None
        self.seeding: control.Seeding | None = None
        self._checkpoints: dict[str, do.TakeCheckpoint] = {}
        self._warm: WarmStart | None = None
        self._began = False
        self._noting: asyncio.Task[None] | None = None

    @property
    def vm(self) -> Vm | None:
        """The machine itself, once it was started or adopted."""
        return self._vm

    @property
    def phase(self) -> str:
        """Where its communication manager stands; '' without one."""
        return self._comm.phase

    # As a runtime.

    async def start(self, module: str) -> None:
        """Start the machine anew, and its manager; what becomes of it is told."""
        try:
            seat = await self._seat()
            await self._comm.end()
            await self._leave_vm()
            self._withheld = is_followed(self._workload)
            if is_warm(self._workload):
                self._warm = await self._warm_start(seat)
                seat = self._warm.seat
            elif self._workload.is_hot:
                await make_startable(self._ground.floor, self._workload)
            self._vm = self._make(seat)
            await self._vm.start(module)
            if self._vm.pid is not None:
                await mark_made(self._ground.floor, self._workload, self._data)
            if self._withheld and self._vm.pid is not None:
                await self._start_comm(seat, self._vm.pid)
        except (OutliveError, OSError) as error:
            await self._end_both()
            self._told(MODULE, ModuleStatus.FAILED, str(error))

    async def _warm_start(self, seat: Seat) -> WarmStart:
        ground, name, generation = self._ground, self._workload.name, self.generation
        await self._shut_down_noted()
        at = "" if self._began else ground.resume_at(name, generation)
        self._began = True
        return await warm_start(
            self._workload, seat, ground.floor.emulator(), self._data, generation=generation,
            host=ground.floor.host, at=at, run_lock=lock_path(self._workload, self._data),
            incoming=self.role is not Role.PRIMARY,
        )  # fmt: skip

    async def _leave_vm(self) -> None:
        """Let go of the run before this one, of which nothing may be left."""
        if self._vm is not None:
            self._kill()
            await self._vm.stop()
            self._vm = None

    async def stand_by(self) -> None:
        """Start the machine so that it waits for state; raises OutliveError or OSError when it cannot."""
        assert self.role is not Role.PRIMARY
        for _ in range(OPENED_TRIES):
            seat = await self._until_waiting()
            if self._warm is None or await same_disks(self._workload, self._data, self._ground.floor.host):
                break
            # A checkpoint that was under way gave the disks new layers.
            await self._leave_vm()
        assert self._vm is not None
        if self._vm.pid is None:
            raise CommFailed("The standby's machine ended before it could wait for state.")
        if self.role is Role.STANDBY:
            await self._start_comm(seat, self._vm.pid)
        else:
            port = await moves.await_guest(self._vm, self._ground.floor.address, self._local_disks, await self._tls())
            self._tell(news_of(control.Listening(port), self._about, self._ground.clock()))

    async def _until_waiting(self) -> Seat:
        """Start the machine on its seat, and wait until it waits for state."""
        seat = await self._seat()
        if is_warm(self._workload):
            self._warm = await self._warm_start(seat)
            seat = self._warm.seat
        self._waits.clear()
        self._vm = self._make(seat)
        await self._vm.start(MODULE)
        async with asyncio.timeout(WAITS_WITHIN_S):
            await self._waits.wait()
        return seat

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent started."""
        self._began = True
        self._vm = self._make(await self._plugged_seat())
        if is_warm(self._workload):
            self._warm = adopted_start(
                self._workload, self._vm.seat, self._ground.floor.emulator(), self._data,
                run_lock=lock_path(self._workload, self._data),
            )  # fmt: skip
        statuses = await self._vm.adopt()
        if not statuses or not is_followed(self._workload) or self.role is Role.INCOMING:
            return statuses
        self._found = await self._comm.adopt()
        if self.role is Role.STANDBY:
            return statuses if self._found is not None and self._found.phase != "failed" else {}
        self._bound = self._found is None or self._found.phase != "free"
        return statuses

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted."""
        if self._vm is not None:
            self._vm.watch_adopted()
        if self._found is not None:
            self._heard(self._found)
            self._comm.follow()
        elif is_followed(self._workload) and self.role is Role.PRIMARY:
            # It ended while nobody watched: what it held is lost with it, as frames on a wire may be. Nor does
            # anybody know any more in which pairing it was; the note tells the one in which this machine came here.
            self.pairing = 0
            self._heard(Ended("it ended while no agent ran", "paired"))

    async def stop(self) -> None:
        """Stop it; at once where somebody else has its state already, else by its power button.

        Its taps and folders are left to `clearing`, which sees to them however a machine came to be here.
        """
        await self._revive_no_more()
        runs = self._vm is not None and self._vm.state is GuestState.RUNNING
        superseded = self._ground.superseded(self._workload.name, self.generation)
        if self.role is not Role.PRIMARY or superseded or self._comm.phase in HELD_PHASES[1:]:
            self._kill()
            runs = False
        if is_warm(self._workload):
            # A checkpoint under way would hold the guest up, and be of a guest that is shutting down.
            await self._comm.end()
        if self._vm is not None:
            await self._vm.stop()
        await self._comm.end()
        if runs and is_warm(self._workload):
            await note_shut_down(self._workload, self._data)
        await self._shut_down_noted()

    def leave(self) -> None:
        """Let go of nothing but the watching."""
        self._comm.leave()
        if self._vm is not None:
            self._vm.leave()

    # What the node decided.

    async def pair(self, command: do.Pair) -> None:
        """Have a standby seeded; what comes of it is told."""
        self.pairing = command.pairing
        self._bound = True
        order = control.Pair(command.standby, command.address, command.port, command.generation, command.pairing)
        await self._order(order)

    async def go_alone(self, command: do.GoAlone) -> None:
        """Let out what is held, and go on; a manager that died meanwhile is started anew."""
        if self.pairing >= command.pairing:
            return
        self.pairing = command.pairing
        self._bound = False
        if not self._workload.is_hot:
            await self._end_move()
        elif not self._comm.runs:
            await self._revive()
        else:
            await self._order(control.Alone(command.pairing))

    async def hold_checkpoints(self) -> None:
        """A move begins: no checkpoint is taken from now on, since it would change what the target has to open."""
        if is_warm(self._workload) and self.role is Role.PRIMARY and not self._withheld:
            await self._comm.end()

    async def _end_move(self) -> None:
        """Nobody takes it over: the guest goes on here, wherever the move had come to."""
        move, self.move = self.move, None
        if move is None:
            if is_warm(self._workload) and not self._comm.runs:
                await self._revive()
            return
        try:
            await move.end()
        except OutliveError as error:
            log.error("machine.not_rolled_back", workload=self._workload.name, reason=str(error))
            await self._end_both()
            self._told(MODULE, ModuleStatus.FAILED, f"it could not go on after a move that failed: {error}")
            return
        if is_warm(self._workload):
            await self._revive()

    async def hand_over(self) -> None:
        """Complete a last epoch and leave the guest standing still."""
        await self._order(control.HandOver())

    async def migrate(self, command: do.MigrateTo) -> None:
        """Move to another host while it runs; Migrated or MigrationFailed follows."""
        name, generation, pairing, clock = self._workload.name, self.generation, command.pairing, self._ground.clock
        self.pairing = pairing
        if self.move is not None:
            return
        if self._vm is None:
            self._tell(ev.MigrationFailed(clock(), name, generation, pairing, "the machine is not running here"))
            return
        # A checkpoint in the middle of a move would be of neither host.
        await self._comm.end()
        try:
            lacking = await self._lacking_for_move(command.target)
            tls = await self._tls(command.target)
        except (OutliveError, OSError) as error:
            lacking, tls = str(error), None
        if lacking:
            self._tell(ev.MigrationFailed(clock(), name, generation, pairing, lacking))
            if is_warm(self._workload):
                await self._revive()
            return

        def sent(how: Sent) -> None:
            about = {"stood_still_ms": how.downtime_ms, "took_s": round(how.took_s, 2), "bytes": how.bytes}
            log.info("machine.sent", workload=name, target=command.target, **about)
            self._tell(ev.Migrated(clock(), name, generation, pairing, how.downtime_ms))

        def failed(reason: str) -> None:
            log.warning("machine.not_sent", workload=name, generation=generation, reason=reason)
            self._tell(ev.MigrationFailed(clock(), name, generation, pairing, reason))

        self.move = moves.Move(self._vm, self._ground.tasks, sent, failed)
        self.move.begin(moves.Route(command.address, command.port, self._local_disks, tls))

    async def _lacking_for_move(self, target: str) -> str:
        """Why the machine cannot go to the target now; '' when it can. Raises OutliveError."""
        if is_warm(self._workload) and not await same_disks(self._workload, self._data, target):
            return "a checkpoint gave its disks new layers meanwhile; try again"
        return ""

    @property
    def _local_disks(self) -> tuple[str, ...]:
        disks = machine_of(self._workload).disks
        return tuple(disk.name for disk in disks if disk.on == LOCAL and not disk.read_only)

    async def _tls(self, peer: str | None = None) -> Tls | None:
        floor = self._ground.floor
        account = floor.emulator().account
        return await moves.credentials(floor.tls, floor.run_folder(self._workload.name), account, peer)

    async def take_over(self, to_generation: int) -> None:
        """Be the primary from now on. Raises OutliveError or TimeoutError; then nothing may be left of it."""
        if self.role is Role.STANDBY:
            await self._have_adopted(to_generation)
        elif self._vm is not None:
            await moves.go_on_here(self._vm)
        self.role, self.generation = Role.PRIMARY, to_generation
        if is_warm(self._workload):
            await self._revive()
        age = (to_generation, self.pairing)
        await self._ground.floor.wires.take(self._workload.name, age, machine_of(self._workload))

    async def _have_adopted(self, to_generation: int) -> None:
        """Its manager adopts the last whole epoch, unless an earlier agent has told it so before it ended."""
        if self._comm.phase in PRIMARY_PHASES:
            return
        self._adopted = asyncio.get_running_loop().create_future()
        if self._comm.phase != "adopting":
            await self._comm.send(control.Adopt(to_generation))
        async with asyncio.timeout(ADOPTED_WITHIN_S):
            adopted = await self._adopted
        log.info(
            "machine.adopted",
            workload=self._workload.name,
            generation=to_generation,
            epoch=adopted.epoch,
            adopt_ms=round(adopted.adopt_ms, 1),
            load_ms=round(adopted.load_ms, 1),
        )

    async def checkpoint(self, command: do.TakeCheckpoint) -> None:
        """Have a checkpoint made; CheckpointEnded follows."""
        self._checkpoints[command.name] = command
        try:
            await self._comm.send(control.Checkpoint(command.name, command.operation))
        except OutliveError as error:
            self._checkpoint_ended(command.name, whole=False, reason=str(error))

    # Parts.

    async def _seat(self) -> Seat:
        floor, workload = self._ground.floor, self._workload
        floor.emulator()
        await make_room(floor, workload, self.role)
        seat = await self._plugged_seat()
        fresh = self.role is Role.PRIMARY and not self._ground.ran_before(workload.name, self.generation)
        if fresh and not await were_made(floor, workload, self._data):
            return replace(seat, may_make_disks=True)
        return seat

    async def _plugged_seat(self) -> Seat:
        """The machine's seat, with its taps made or found."""
        floor, workload = self._ground.floor, self._workload
        live = self.role is Role.PRIMARY
        taps = {
            nic.name: await floor.wires.plug(workload.name, self.generation, nic, live=live)
            for nic in machine_of(workload).nics
        }
        return seat_of(floor, workload, self.role, taps, self._data)

    def _make(self, seat: Seat) -> Vm:
        ground, workload = self._ground, self._workload
        if self._warm is not None:
            workload = replace(workload, machine=self._warm.machine)
        return Vm(
            workload,
            self._where,
            ground.premises,
            seat,
            ground.floor.emulator(),
            self._vm_told,
            ground.tasks,
            ground.may_act,
            self._noted,
        )

    async def _start_comm(self, seat: Seat, pid: int) -> None:
        at = (self.generation, self.pairing)
        about = self._ground.floor, self._workload, self.role, seat, self._comm.state_dir, at, pid
        config = await asyncio.to_thread(comm_config_of, *about)
        if self._warm is not None:
            config = msgspec.structs.replace(config, warm=self._warm.values)
        status = await self._comm.start(config)
        if status.port:
            self._heard(control.Listening(status.port))
        self._comm.follow()
        if self._warm is not None and self._warm.resumes and self._vm is not None:
            self._ground.tasks.create_task(self._until_resumed(self._vm))
            return
        self._withheld = False
        if self.role is Role.PRIMARY and self._waits.is_set():
            self._told(MODULE, ModuleStatus.RUNNING, "")

    async def _until_resumed(self, vm: Vm) -> None:
        """Tell that the machine runs once it has gone on from its checkpoint."""
        while self._withheld and self._vm is vm and not self._stopped:
            if vm.state is GuestState.RUNNING:
                self._withheld = False
                self._told(MODULE, ModuleStatus.RUNNING, "")
            await asyncio.sleep(RESUMED_POLL_S)

    async def _revive(self) -> None:
        """Give a machine that runs, and goes on alone, a manager again."""
        assert self._vm is not None
        pid = self._vm.pid
        if pid is None:
            return
        try:
            await self._start_comm(self._vm.seat, pid)
            await self._resume()
        except (OutliveError, OSError) as error:
            await self._end_both()
            self._told(MODULE, ModuleStatus.FAILED, f"its communication manager could not be replaced: {error}")

    async def _revive_no_more(self) -> None:
        self._stopped = True
        if self._revival is not None and not self._revival.done():
            self._revival.cancel()
            await asyncio.wait([self._revival])

    async def _resume(self) -> None:
        """Let the guest go on: it stands still after a hand-over, or where its manager died in the middle of one."""
        if self._vm is not None and self._ground.may_act():
            try:
                async with self._vm.monitored() as monitor:
                    await monitor.call("cont")
            except OutliveError as error:
                log.warning("machine.not_resumed", workload=self._workload.name, reason=str(error))

    async def _order(self, command: control.Command) -> None:
        try:
            await self._comm.send(command)
        except OutliveError as error:
            # Its end is told by itself, with what follows.
            log.warning("comm.not_told", workload=self._workload.name, order=type(command).__name__, reason=str(error))

    async def _end_both(self) -> None:
        await self._comm.end()
        if self._vm is not None:
            self._kill()
            await self._vm.stop()

    def _kill(self) -> None:
        with contextlib.suppress(OSError):  # its group may be on the way out
            cgroup.kill(self._ground.premises.tree.module(self._workload.name, MODULE))

    # What is told here.

    def _vm_told(self, module: str, status: ModuleStatus, reason: str) -> None:
        if status is ModuleStatus.RUNNING:
            self._waits.set()
            if self._withheld:
                return
        else:
            self._waits.clear()
        if self.role is Role.PRIMARY:
            self._told(module, status, reason)
        elif status is ModuleStatus.FAILED:
            self._standby_failed(reason)
            self._waits.set()

    def _noted(self, note: Noted) -> None:
        log.info(note.what, workload=self._workload.name, reason=note.sentence)
        if note.what == "guest.powered-off" and is_warm(self._workload) and self.role is Role.PRIMARY:
            self._noting = self._ground.tasks.create_task(note_shut_down(self._workload, self._data))

    async def _shut_down_noted(self) -> None:
        """That the guest shut down is for the reign to come: written too late it would be taken for the next one's."""
        if self._noting is not None:
            await asyncio.wait([self._noting])

    def _heard(self, event: control.Event | Ended) -> None:
        match event:
            case control.Status():
                if self.role is Role.PRIMARY:
                    self.pairing = max(self.pairing, event.pairing)
                elif event.phase in PRIMARY_PHASES:
                    # It adopted while no agent listened, and what it told of that went nowhere.
                    self._has_adopted(control.Adopted(event.epoch, event.generation, 0.0, 0.0))
                if (before := missed(event)) is not None:
                    self._heard(before)
            case control.Adopted():
                self._has_adopted(event)
            case control.Checkpointed(name=checkpoint):
                self._checkpoint_ended(checkpoint, whole=True, reason=f"{event.bytes} bytes")
            case control.CheckpointFailed(name=checkpoint, reason=reason):
                self._checkpoint_ended(checkpoint, whole=False, reason=reason)
            case control.Progress():
                self.progress = event
            case control.Seeding() if self.role is Role.PRIMARY:
                self.seeding = event
            case control.Refused(command=command, reason=reason):
                log.warning("comm.refused", workload=self._workload.name, order=command, reason=reason)
                if command == "Adopt":
                    self._not_adopted(reason)
            case Ended(reason=reason, phase=phase):
                self._comm_ended(reason, phase)
            case _:
                if (news := news_of(event, self._about, self._ground.clock())) is not None:
                    self._tell(news)

    @property
    def _about(self) -> About:
        return About(self._workload.name, self.generation, self.pairing, self.role, self._ground.floor.address)

    def _has_adopted(self, adopted: control.Adopted) -> None:
        if self._adopted is not None and not self._adopted.done():
            self._adopted.set_result(adopted)

    def _not_adopted(self, reason: str) -> bool:
        """Whether it was to adopt, and that is over now."""
        if self._adopted is None or self._adopted.done():
            return False
        self._adopted.set_exception(CommFailed("The standby could not be adopted.", cause=reason))
        return True

    def _comm_ended(self, reason: str, phase: str) -> None:
        reason = f"the communication manager ended: {reason}"
        if self._not_adopted(reason):
            return  # whoever waits for it clears away what is left
        if self.role is Role.STANDBY:
            self._standby_failed(reason)
            return
        # One that was seeding may have held already, and its standby have a whole epoch that was never told here.
        bound = self._bound or phase in ("seeding", *HELD_PHASES)
        if bound:
            at, name = self._ground.clock(), self._workload.name
            self._tell(ev.PeerLost(at, name, self.generation, self.pairing, self.role, reason))
        if self._withheld:
            self._withheld = False
            self._kill()
            self._told(MODULE, ModuleStatus.FAILED, reason)
            return
        # What was held back is let out only by GoAlone; a manager that held nothing is replaced at once.
        if not bound and not self._stopped and self._vm is not None and self._vm.pid is not None:
            self._revival = self._ground.tasks.create_task(self._revive())

    def _standby_failed(self, reason: str) -> None:
        at, name = self._ground.clock(), self._workload.name
        self._tell(ev.StandbyFailed(at, name, self.generation, self.pairing, reason))

    def _checkpoint_ended(self, name: str, *, whole: bool, reason: str) -> None:
        command = self._checkpoints.pop(name, None)
        if command is not None:
            at, operation = self._ground.clock(), command.operation
            self._tell(ev.CheckpointEnded(at, self._workload.name, self.generation, operation, whole, reason))

    def _tell(self, event: ev.Event | None) -> None:
        if event is not None:
            self._tell_node(event)
