"""The two processes of one machine on this host, QEMU and its communication manager: started, adopted, ended.

A machine runs once both do: until its manager is there, and its guest has gone on from its checkpoint, that it runs is
not told. What the manager says is told on as it is; what it means is for `machine_pairing`, as is whether one that died
may be replaced. Where a machine begins is found out in `machine_start`.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import structlog

from outlive.cluster.commands import Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.replication import control
from outlive.runtime import cgroup
from outlive.runtime.vm.seat import Seat
from outlive.runtime.vm.states import GuestState
from outlive.runtime.vm.vm import Noted, Vm

from .comm import Comm, CommFailed, Heard
from .ground import Ground
from .machine_events import MachineEvents
from .machine_start import Starts
from .seating import is_followed, is_warm
from .standing import Standing
from .warm_start import note_shut_down

WAITS_WITHIN_S = 60.0
RESUMED_POLL_S = 0.05
OPENED_TRIES = 3

log = structlog.get_logger()


class Processes:
    """Both processes of one machine. vm: QEMU, once it was started or adopted.  comm: its manager, if there is one.

    data: its data folder in each datastore.  heard: takes what the manager tells, and its end.
    starting: that it runs is not told yet, since not all of it does.
    """

    def __init__(
        self,
        workload: Workload,
        data: Mapping[str, Path],
        ground: Ground,
        standing: Standing,
        starts: Starts,
        events: MachineEvents,
        heard: Heard,
    ) -> None:
        self._workload = workload
        self._data = data
        self._ground = ground
        self._standing = standing
        self._starts = starts
        self._events = events
        self._heard = heard
        self.vm: Vm | None = None
        self.comm = Comm(workload.name, ground.premises, ground.tasks, heard)
        self.starting = False
        self._waits = asyncio.Event()
        self._to_wait = False
        self._never_waited: str | None = None
        self._stopped = False
        self._managing = asyncio.Lock()
        self._unmanaged = False
        self._revivals: set[asyncio.Task[None]] = set()
        self._noting: asyncio.Task[None] | None = None

    # Begun.

    async def start(self, module: str) -> None:
        """Start the machine anew, and its manager. Raises OutliveError or OSError; then `fail` is due."""
        async with self._managing:
            await self._start(module)

    async def _start(self, module: str) -> None:
        seat = await self._starts.seat()
        await self.comm.end()
        await self._leave_vm()
        self._unmanaged = False
        self.starting = is_followed(self._workload)
        await self._shut_down_noted()
        seat = await self._starts.on_layers(seat)
        await self._starts.finish_disks()
        self.vm = self._starts.vm(seat, self._vm_told, self._noted)
        await self.vm.start(module)
        if self.vm.pid is not None:
            await self._starts.mark_made()
        if self.starting and self.vm.pid is not None:
            await self._start_comm(seat, self.vm.pid)

    async def start_waiting(self) -> None:
        """Start the machine so that it waits for state; a standby's manager too. Raises OutliveError or OSError."""
        for _ in range(OPENED_TRIES):
            seat = await self._until_waiting()
            if await self._starts.layers_stand():
                break
            # A checkpoint that was under way gave the disks new layers.
            await self._leave_vm()
        if self.vm is None:
            raise CommFailed("The machine's disks got new layers each time that they were opened to wait for state.")
        if self._standing.role is Role.STANDBY and self.vm.pid is not None:
            await self._start_comm(seat, self.vm.pid)

    async def _until_waiting(self) -> Seat:
        """Start the machine on its seat, and wait until it waits for state."""
        seat = await self._starts.seat()
        await self._shut_down_noted()
        seat = await self._starts.on_layers(seat)
        self._waits.clear()
        self._to_wait, self._never_waited = True, None
        self.vm = self._starts.vm(seat, self._vm_told, self._noted)
        await self.vm.start(MODULE)
        async with asyncio.timeout(WAITS_WITHIN_S):
            await self._waits.wait()
        self._to_wait = False
        if self._never_waited is not None:
            raise CommFailed("The machine ended before it could wait for state.", cause=self._never_waited)
        return seat

    async def _start_comm(self, seat: Seat, pid: int) -> None:
        config = await self._starts.comm_config(seat, self.comm.state_dir, pid)
        status = await self.comm.start(config)
        if status.port:
            self._heard(control.Listening(status.port))
        self.comm.follow()
        if self._starts.resumes and self.vm is not None:
            self._ground.tasks.create_task(self._until_resumed(self.vm))
            return
        self.starting = False
        if self._standing.role is Role.PRIMARY and self._waits.is_set():
            self._events.module(ModuleStatus.RUNNING)

    async def _until_resumed(self, vm: Vm) -> None:
        """Tell that the machine runs once it has gone on from its checkpoint."""
        while self.starting and self.vm is vm and not self._stopped:
            if vm.state is GuestState.RUNNING:
                self.starting = False
                self._events.module(ModuleStatus.RUNNING)
            await asyncio.sleep(RESUMED_POLL_S)

    async def adopt_vm(self) -> dict[str, ModuleStatus]:
        """Take over the QEMU that an earlier agent started; `comm` is adopted by whoever knows whether it has one."""
        self.vm = await self._starts.adopted_vm(self._vm_told, self._noted)
        return await self.vm.adopt()

    # Gone on.

    async def unmanage(self) -> bool:
        """End the manager, and let none take its place before `revive` or `revive_soon`; the machine goes on.

        False, and nothing is done, while the machine is being started: its manager is a part of that.
        """
        async with self._managing:
            if self.starting:
                return False
            self._unmanaged = True
            await self.comm.end()
        return True

    async def revive(self) -> None:
        """Give a machine that runs, and goes on alone, a manager again; any other gets one when it starts."""
        self._unmanaged = False
        await self._revive()

    def revive_soon(self) -> None:
        """As `revive`, in a while; not if the machine is to stop before that."""
        self._unmanaged = False
        self._begin_revival()

    def _begin_revival(self) -> None:
        if not self._stopped:
            revival = self._ground.tasks.create_task(self._revive())
            self._revivals.add(revival)
            revival.add_done_callback(self._revivals.discard)

    async def _revive(self) -> None:
        # Two that do this at once would each end the other's manager, and take it for one that cannot be started.
        async with self._managing:
            if self._unmanaged or self.comm.runs or self.vm is None or (pid := self.vm.pid) is None:
                return
            try:
                await self._start_comm(self.vm.seat, pid)
                await self._resume()
            except (OutliveError, OSError) as error:
                await self.fail(f"its communication manager could not be replaced: {error}")

    async def revived(self) -> None:
        """Return once no manager that died is being replaced."""
        if self._revivals:
            await asyncio.wait(self._revivals)

    async def revive_no_more(self) -> None:
        """The machine is to stop: whatever dies from now on stays dead."""
        self._stopped = True
        for revival in self._revivals:
            revival.cancel()
        await self.revived()

    async def _resume(self) -> None:
        """Let the guest go on: it stands still after a hand-over, or where its manager died in the middle of one."""
        if self.vm is not None and self._ground.may_act():
            try:
                async with self.vm.monitored() as monitor:
                    await monitor.call("cont")
            except OutliveError as error:
                log.warning("machine.not_resumed", workload=self._workload.name, reason=str(error))

    def manager_ended(self, reason: str, *, replace_it: bool) -> None:
        """The manager is no more. replace_it: it held nothing back, so that another may take its place at once."""
        if self.starting:
            self.starting = False
            self._kill()
            self._events.module(ModuleStatus.FAILED, reason)
        elif replace_it:
            self._begin_revival()

    # Ended.

    async def stop(self, *, at_once: bool) -> None:
        """Stop both. at_once: by killing it, else by its power button. Returns when nothing of them is left.

        A guest that does not heed the button is switched off, and counts as shut down all the same: booted from its
        disks it keeps what it wrote; taken back to its last checkpoint it would lose what it told its clients since.
        """
        runs = self.vm is not None and self.vm.state is GuestState.RUNNING
        if at_once:
            self._kill()
            runs = False
        if is_warm(self._workload):
            # A checkpoint under way would hold the guest up, and be of a guest that is shutting down.
            await self.comm.end()
        if self.vm is not None:
            await self.vm.stop()
        await self.comm.end()
        if runs and is_warm(self._workload):
            await note_shut_down(self._workload, self._data)
        await self._shut_down_noted()

    async def fail(self, reason: str) -> None:
        """End both at once, and tell that the machine failed."""
        await self.comm.end()
        if self.vm is not None:
            self._kill()
            await self.vm.stop()
        self._events.module(ModuleStatus.FAILED, reason)

    def _kill(self) -> None:
        with contextlib.suppress(OSError):  # its group may be on the way out
            cgroup.kill(self._ground.premises.tree.module(self._workload.name, MODULE))

    async def _leave_vm(self) -> None:
        """Let go of the run before this one, of which nothing may be left."""
        if self.vm is not None:
            self._kill()
            await self.vm.stop()
            self.vm = None

    def leave(self) -> None:
        """Let go of nothing but the watching."""
        self.comm.leave()
        if self.vm is not None:
            self.vm.leave()

    # What QEMU tells.

    def _vm_told(self, _: str, status: ModuleStatus, reason: str) -> None:
        if status is ModuleStatus.RUNNING:
            self._waits.set()
            if self.starting:
                return
        else:
            self._waits.clear()
        if self._standing.role is Role.PRIMARY:
            self._events.module(status, reason)
        elif status is ModuleStatus.FAILED and self._to_wait:
            # Whoever starts it tells that.
            self._never_waited = reason
            self._waits.set()
        elif status is ModuleStatus.FAILED:
            self._events.standby_failed(reason)

    def _noted(self, note: Noted) -> None:
        log.info(note.what, workload=self._workload.name, reason=note.sentence)
        if note.what == "guest.powered-off" and is_warm(self._workload) and self._standing.role is Role.PRIMARY:
            self._noting = self._ground.tasks.create_task(note_shut_down(self._workload, self._data))

    async def _shut_down_noted(self) -> None:
        """That the guest shut down is for the reign to come: written too late it would be taken for the next one's."""
        if self._noting is not None:
            await asyncio.wait([self._noting])
