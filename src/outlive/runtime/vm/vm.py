"""One virtual machine at one generation on this host: a `Runtime` whose only module is the emulator.

QEMU runs under a runner of its own, as a service's program does, and outlives the agent. What it does is followed
over its monitor socket. Whether it runs is never read from that socket's silence: QEMU has ended when its process has,
and a guest has failed only when QEMU says so or the rules of `guest_watch` are met. The invariants are those of
`outlive.runtime.base.Runtime`: nothing is started while anything of it may still run, and `stop` returns only when
nothing runs. Nothing here lets a guest go on that was stopped by others: a standby and a machine that moved away are
left as they are.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Machine
from outlive.cluster.workload import Module, Workload
from outlive.errors import OutliveError, RefusedForSafety
from outlive.runtime import cgroup, runner
from outlive.runtime.base import BASE_ENVIRONMENT, Told, Whereabouts
from outlive.runtime.health import Sick
from outlive.runtime.logs import last_lines, log_path
from outlive.runtime.runner import Account
from outlive.runtime.service import Premises

from . import disks, moving, preparing
from .command_line import command_line
from .console import Console, screenshot
from .following import Follower, Noted
from .host import HostFacts
from .preparing import NotPrepared
from .qmp import Monitor, VmUnreachable
from .seat import Seat, SharedMemory
from .starting import why_not
from .states import GuestState

__all__ = ["Noted", "Vm", "VmRefused"]

MONITOR_WITHIN_S = 60.0
"""From QEMU's start until its monitor answers, on a machine that is short of everything."""
CLEARED_WITHIN_S = 10.0
RUNNER_GONE_WITHIN_S = 6.0
ADOPTED_WITHIN_S = 5.0
QUIT_WITHIN_S = 10.0
STUCK_PAUSE_S = 1.0
STUCK_TOLD_EVERY = 10
MOST_LINES = 20

log = structlog.get_logger()


class VmRefused(RefusedForSafety):
    """What was asked for could let a guest run twice."""

    id = "vm.refused"


@dataclass(slots=True)
class _Life:
    """One run of the emulator. begun_ms: wall clock before it was started; None: by an earlier agent."""

    running: runner.Running
    follower: Follower
    begun_ms: int | None = None
    watch: "asyncio.Task[None] | None" = field(default=None, compare=False)


class Vm:
    """A workload of kind vm at one generation on this host: a `Runtime`.

    tasks: outlives it.  may_act: whether the host's claim is in force, asked just before anything is started.
    noted: takes what happens beside the module's status.
    """

    def __init__(
        self,
        workload: Workload,
        whereabouts: Whereabouts,
        premises: Premises,
        seat: Seat,
        host: HostFacts,
        told: Told,
        tasks: asyncio.TaskGroup,
        may_act: Callable[[], bool] = lambda: True,
        noted: Callable[[Noted], None] = lambda _: None,
    ) -> None:
        if workload.machine is None:
            raise ValueError(f"{workload.name} is no virtual machine")
        self._machine: Machine = workload.machine
        self._module: Module = workload.module(MODULE)
        self._workload = workload
        self._where = whereabouts
        self._premises = premises
        self._seat = seat
        self._host = host
        self._told = told
        self._tasks = tasks
        self._may_act = may_act
        self._noted = noted
        self._life: _Life | None = None
        self._console = Console(seat.console)

    @property
    def seat(self) -> Seat:
        """What it is connected to."""
        return self._seat

    @property
    def state(self) -> GuestState:
        """What it was doing when it was last heard of."""
        return self._life.follower.state if self._life is not None else GuestState.UNKNOWN

    @property
    def pid(self) -> int | None:
        """QEMU's pid while it runs."""
        return self._life.running.pid if self._life is not None else None

    @property
    def console(self) -> Console:
        """Its serial console."""
        return self._console

    @asynccontextmanager
    async def monitored(self) -> AsyncIterator[Monitor]:
        """QEMU's monitor for a while, for moving and whatever else needs it; one user at a time.

        Raises VmUnreachable while the machine does not run here, or when the monitor does not answer.
        """
        if self._life is None:
            raise VmUnreachable("The emulator's monitor is not connected.", cause="the machine is not running here")
        async with self._life.follower.monitored() as monitor:
            yield monitor

    async def start(self, name: str) -> None:
        """Start the emulator anew; RUNNING is told when the guest runs, or waits where its seat is `incoming`."""
        try:
            await self._clear()
            life = await self._begin()
        except (OutliveError, OSError) as error:
            self._told(MODULE, ModuleStatus.FAILED, str(error))
            return
        life.watch = self._tasks.create_task(self._watched(life))

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent started; nothing is returned of a machine that was never started here."""
        running = await runner.adopt(self._state_dir, self._cgroup)
        if running is None:
            return {}
        life = self._life = _Life(running, self._follower(running))
        if not cgroup.populated(self._cgroup):
            return {MODULE: ModuleStatus.FAILED}
        with contextlib.suppress(OutliveError):
            await life.follower.connect(ADOPTED_WITHIN_S)
            await self._abandon_move(life)
        # A monitor that does not answer yet says nothing against a guest that had been ready before.
        ready = life.follower.ready or await asyncio.to_thread(_was_ready, self._state_dir, running.pid)
        life.follower.ready = life.follower.told_ready = ready
        return {MODULE: ModuleStatus.RUNNING if ready else ModuleStatus.RESTORING}

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted: its end is told even when it came before."""
        if self._life is not None:
            self._life.watch = self._tasks.create_task(self._watched(self._life))

    async def stop(self) -> None:
        """Press the power button, wait `machine.stop_s`, quit, then kill; returns when nothing of it runs."""
        life, self._life = self._life, None
        if life is not None:
            await _cancelled(life)
            await life.follower.shut_down(self._machine.stop_s)
            try:
                await life.running.stop(QUIT_WITHIN_S if life.follower.quitting else 0.0, signal.SIGTERM)
            except OutliveError as error:
                log.error("vm.not_stopped", workload=self._workload.name, reason=str(error))
        await self._console.close()
        await self._empty()
        if life is not None:
            await life.follower.close()
            # Its runner still writes down the last lines; a runner that hangs must not hold up the end.
            with contextlib.suppress(runner.ModuleUnkillable):
                await life.running.gone(RUNNER_GONE_WITHIN_S)
            life.running.close()
        await asyncio.to_thread(preparing.clear, self._seat)

    def leave(self) -> None:
        """Let go of it as it runs, for the next agent to adopt."""
        if self._life is not None:
            self._life.running.close()

    async def pause(self) -> None:
        """Stop the guest's processors. Raises VmFailed, VmUnreachable, or VmRefused under a communication manager."""
        self._refuse_in_epochs()
        async with self.monitored() as monitor:
            await monitor.call("stop")

    async def resume(self) -> None:
        """Let the guest go on. Raises VmRefused where it is not ours to: a standby, or a guest that moved away."""
        self._refuse_in_epochs()
        async with self.monitored() as monitor:
            status = await monitor.call("query-status")
            if status["status"] in ("inmigrate", "postmigrate", "finish-migrate"):
                raise VmRefused(
                    "The guest is not let go on.",
                    cause="it waits for state to come, or its state has gone to another host",
                )
            if not self._may_act():
                raise VmRefused("The guest is not let go on.", cause="the claim of this host has ended")
            await monitor.call("cont")

    async def reset(self) -> None:
        """Reset the guest as by its button: what it had not written is lost. Raises VmFailed or VmUnreachable."""
        async with self.monitored() as monitor:
            await monitor.call("system_reset")

    async def screenshot(self) -> bytes:
        """What its display shows, as PNG. Raises VmFailed, VmUnreachable or ConsoleClosed."""
        async with self.monitored() as monitor:
            return await screenshot(monitor, self._seat.run)

    async def _abandon_move(self, life: _Life) -> None:
        """A move that nobody drives any more would leave the guest stopped at its end."""
        async with life.follower.monitored() as monitor:
            if await moving.abandon(monitor):
                log.warning("vm.move_abandoned", workload=self._workload.name, because="its agent ended")

    def _refuse_in_epochs(self) -> None:
        if self._seat.in_epochs:
            raise VmRefused(
                "The guest is neither paused nor let go on by hand.",
                cause="its communication manager does both, many times a second",
                remedy="stop the machine instead, or change its protection first",
            )

    async def _begin(self) -> _Life:
        """Start the emulator. Raises OutliveError."""
        workload, seat = self._workload, self._seat
        tree = self._premises.tree
        for sentence in tree.limit(workload.name, MODULE, self._module.limits):
            log.warning("module.limit_not_held", workload=workload.name, module=MODULE, reason=sentence)
        await disks.ensure(self._machine.disks, seat.disks, seat.may_make_disks)
        account = await self._account()
        await asyncio.to_thread(preparing.prepare, workload.name, self._machine, seat, self._host, account)
        direct = await asyncio.to_thread(disks.direct, seat.disks)
        order = runner.Order(
            command=tuple(command_line(workload.name, self._machine, seat, self._host, direct)),
            environment=_environment(self._machine, seat),
            state_dir=self._state_dir,
            log=self._log,
            cgroups=tree.entrances(workload.name, MODULE),
            runner_cgroup=tree.runner(workload.name),
            account=account,
            limits={"core": (0, 0)},
        )
        await asyncio.to_thread(_mark, self._state_dir, None)
        if not self._may_act():
            raise runner.ModuleNotStarted("This host may not act now.", cause="its claim has ended")
        begun_ms = int(time.time() * 1000)
        running = await runner.start(order)
        log.info("vm.started", workload=workload.name, pid=running.pid, incoming=seat.incoming)
        self._console = Console(seat.console)
        life = self._life = _Life(running, self._follower(running), begun_ms)
        return life

    async def _account(self) -> Account | None:
        """The emulator's own user, where everything is open to it."""
        account = self._host.account
        if account is None:
            return None
        reason = await asyncio.to_thread(preparing.closed_to, account, self._machine, self._seat)
        if not reason:
            return account
        log.warning("vm.runs_as_root", workload=self._workload.name, reason=reason)
        return None

    def _follower(self, running: runner.Running) -> Follower:
        return Follower(self._machine, self._seat, running, self._note, self._may_act)

    def _note(self, noted: Noted) -> None:
        log.info("vm.noted", workload=self._workload.name, what=noted.what, sentence=noted.sentence)
        self._noted(noted)

    async def _watched(self, life: _Life) -> None:
        """Watch one run of the emulator to its end, and tell of it."""
        try:
            reason = await self._until_sick(life)
            try:
                await life.running.stop(0.0, signal.SIGKILL)
            except OutliveError as error:
                reason = f"{reason}; what is left of it cannot be killed: {error}"
            await self._console.close()
        finally:
            await life.follower.close()
        self._told(MODULE, ModuleStatus.FAILED, reason)

    async def _until_sick(self, life: _Life) -> str:
        reasons: list[str] = []
        try:
            async with asyncio.TaskGroup() as watching:
                watching.create_task(self._ended(life))
                await life.follower.until_ready(MONITOR_WITHIN_S)
                await asyncio.to_thread(_mark, self._state_dir, life.running.pid)
                if not life.follower.told_ready:
                    life.follower.told_ready = True
                    self._told(MODULE, ModuleStatus.RUNNING, "")
                watching.create_task(life.follower.follow())
                # Waited for here and not by leaving the group: Python 3.11.2 then leaves this task half cancelled.
                await asyncio.Event().wait()
        except* Sick as several:
            reasons = _reasons(several)
        return next((reason for reason in reasons if reason.startswith("it ")), reasons[0])

    async def _ended(self, life: _Life) -> None:
        ended = await life.running.wait()
        lines = await asyncio.to_thread(last_lines, self._log, MODULE, MOST_LINES)
        begun_ms = life.begun_ms
        own = [line.text for line in lines if begun_ms is not None and line.unix_ms >= begun_ms]
        raise Sick(why_not(own, ended))

    async def _clear(self) -> None:
        """Make sure that nothing of it is left. Raises ModuleUnkillable."""
        life, self._life = self._life, None
        if life is not None:
            await _cancelled(life)
            await life.follower.close()
        await self._console.close()
        cgroup.kill(self._cgroup)
        if not await cgroup.wait_empty(self._cgroup, CLEARED_WITHIN_S):
            raise runner.ModuleUnkillable(
                "What is left of the machine was killed and does not end.",
                cause=f"something in {self._cgroup} waits for storage or a device",
            )
        running = life.running if life is not None else await runner.adopt(self._state_dir, self._cgroup)
        if running is not None:
            await running.gone(RUNNER_GONE_WITHIN_S)
            running.close()

    async def _empty(self) -> None:
        """Kill whatever is left, and return when nothing is."""
        tries = 0
        while True:
            cgroup.kill(self._cgroup)
            if await cgroup.wait_empty(self._cgroup, STUCK_PAUSE_S):
                return
            if tries % STUCK_TOLD_EVERY == 0:
                log.error(
                    "module.unkillable",
                    workload=self._workload.name,
                    module=MODULE,
                    reason="it was killed and does not end: it waits for storage or a device",
                )
            tries += 1

    @property
    def _cgroup(self) -> Path:
        return self._premises.tree.module(self._workload.name, MODULE)

    @property
    def _state_dir(self) -> Path:
        return self._premises.states / self._workload.name / MODULE

    @property
    def _log(self) -> Path:
        return log_path(self._premises.logs, self._workload.name, MODULE)


def _environment(machine: Machine, seat: Seat) -> dict[str, str]:
    environment = dict(BASE_ENVIRONMENT)
    if isinstance(seat.memory, SharedMemory) and seat.memory.watched is not None:
        watched = seat.memory.watched
        environment |= {
            "LD_PRELOAD": str(watched.library),
            # The memory is one mapping, and the only one that is shared and as large.
            "OUTLIVE_PAGEWATCH_BYTES": str(machine.memory_mib * 1024 * 1024),
            "OUTLIVE_PAGEWATCH_TO": str(watched.output),
        }
    return environment


def _reasons(several: BaseExceptionGroup[Any]) -> list[str]:
    reasons: list[str] = []
    for error in several.exceptions:
        if isinstance(error, BaseExceptionGroup):
            reasons += _reasons(error)
        elif isinstance(error, Sick):
            reasons.append(error.reason)
    return reasons


async def _cancelled(life: _Life) -> None:
    if life.watch is not None and not life.watch.done():
        life.watch.cancel()
        await asyncio.wait([life.watch])


def _mark(state_dir: Path, pid: int | None) -> None:
    """Write down which process had been ready, so that the next agent knows; None: none yet."""
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        if pid is None:
            (state_dir / "ready").unlink(missing_ok=True)
        else:
            (state_dir / "ready").write_text(str(pid))
    except OSError as error:
        if pid is None:
            raise NotPrepared("The state of the machine cannot be written.", cause=str(error)) from error
        log.warning("module.mark_not_written", folder=str(state_dir))


def _was_ready(state_dir: Path, pid: int) -> bool:
    try:
        return int((state_dir / "ready").read_text()) == pid
    except (OSError, ValueError):
        return False
