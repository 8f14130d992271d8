"""One virtual machine's communication manager on this host: started or found again, spoken to, and its end noticed.

The manager outlives the agent, as the machine does. A manager that hangs is ended like one that died: what it held
back is never let out by that, since only it could. What follows from its end is for whoever is told of it. What is
said over the connection is in `outlive.replication.control`.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.errors import Failed, OutliveError
from outlive.replication import control
from outlive.replication.comm_config import CommConfig, control_socket, write_config
from outlive.runtime import cgroup, runner
from outlive.runtime.base import BASE_ENVIRONMENT
from outlive.runtime.logs import log_path
from outlive.runtime.service import Premises

MODULE = "comm"
"""The name of its control group and log beside those of the machine."""

CONFIG = "comm.json"
SILENT_S = 5.0
ASKED_WITHIN_S = 3.0
ENDED_WITHIN_S = 5.0

PARTED_PHASES = ("lost", "handed-over")
"""Those of a primary whose standby may act already: nothing leaves it."""

HELD_PHASES = ("paired", *PARTED_PHASES)
"""Those in which a primary's output is held back until its standby has the state that sent it."""

PRIMARY_PHASES = ("free", "seeding", *HELD_PHASES)

log = structlog.get_logger()


class CommFailed(Failed):
    """The communication manager could not do what its machine needs."""

    id = "replication.comm-failed"


@dataclass(frozen=True, slots=True)
class Ended:
    """The manager is no more, and nothing of it is left. phase: where it stood when it was last heard."""

    reason: str
    phase: str


Heard = Callable[[control.Event | Ended], None]


class Comm:
    """The communication manager of one machine. tasks: outlives it.  heard: takes what it tells, in order."""

    def __init__(self, workload: str, premises: Premises, tasks: asyncio.TaskGroup, heard: Heard) -> None:
        self._workload = workload
        self._premises = premises
        self._tasks = tasks
        self._heard = heard
        self._running: runner.Running | None = None
        self._manager: control.Manager | None = None
        self._follower: asyncio.Task[None] | None = None
        self._ending = asyncio.Lock()
        self.phase = ""

    @property
    def state_dir(self) -> Path:
        """Its own folder, gone with a reboot."""
        return state_dir(self._premises, self._workload)

    @property
    def runs(self) -> bool:
        """Whether there is one that can be spoken to."""
        return self._manager is not None

    async def start(self, config: CommConfig) -> control.Status:
        """Start one in the place of whatever is left of an earlier one. Raises OutliveError, then none is left."""
        await self.end()
        tree = self._premises.tree
        await asyncio.to_thread(_write, self.state_dir, config)
        order = runner.Order(
            command=tuple(control.command_line(sys.executable, self.state_dir / CONFIG)),
            environment=BASE_ENVIRONMENT,
            state_dir=self.state_dir,
            log=log_path(self._premises.logs, self._workload, MODULE),
            cgroups=tree.entrances(self._workload, MODULE),
            runner_cgroup=tree.runner(self._workload),
        )
        self._running = await runner.start(order)
        try:
            return await self._connect()
        except BaseException:
            await self.end()
            raise

    async def adopt(self) -> control.Status | None:
        """Find the one that an earlier agent started; None, and nothing of it left, when it does not run or answer."""
        self._running = await runner.adopt(self.state_dir, self._cgroup)
        if self._running is None or not cgroup.populated(self._cgroup):
            await self.end()
            return None
        try:
            return await self._connect()
        except OutliveError as error:
            log.warning("comm.not_adopted", workload=self._workload, reason=str(error))
            await self.end()
            return None

    def follow(self) -> None:
        """Begin to tell what it tells, once whoever hears it is ready."""
        if self._manager is not None:
            self._follower = self._tasks.create_task(self._follow(self._manager))

    async def send(self, command: control.Command) -> None:
        """Give it a command. Raises ManagerUnreachable, also when there is none; its end is told besides."""
        if self._manager is None:
            raise control.ManagerUnreachable(f"{self._workload} has no communication manager now.")
        await self._manager.send(command, within_s=ASKED_WITHIN_S)

    async def end(self) -> None:
        """End it at once, with whatever it holds back; returns when nothing of it is left.

        Several may ask for that at once: whoever saw it die, and whoever tears its machine down.
        """
        await self._unfollow()
        async with self._ending:
            await self._end()

    async def _end(self) -> None:
        if self._running is not None:
            with contextlib.suppress(runner.ModuleUnkillable):
                await self._running.stop(0.0, signal.SIGKILL)
            with contextlib.suppress(runner.ModuleUnkillable):
                await self._running.gone(ENDED_WITHIN_S)
            self._running.close()
            self._running = None
        with contextlib.suppress(OSError):
            cgroup.kill(self._cgroup)
        await cgroup.wait_empty(self._cgroup, ENDED_WITHIN_S)
        self.phase = ""

    def leave(self) -> None:
        """Let go of it as it runs, for the next agent to adopt."""
        if self._follower is not None:
            self._follower.cancel()
        if self._running is not None:
            self._running.close()

    @property
    def _cgroup(self) -> Path:
        return self._premises.tree.module(self._workload, MODULE)

    async def _connect(self) -> control.Status:
        self._manager = await control.Manager.connect(control_socket(self.state_dir))
        status = self._manager.first_status
        self.phase = status.phase
        return status

    async def _unfollow(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None and follower is not asyncio.current_task() and not follower.done():
            follower.cancel()
            await asyncio.wait([follower])
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.close()

    async def _follow(self, manager: control.Manager) -> None:
        try:
            while True:
                event = await manager.event(within_s=SILENT_S)
                if event is None:
                    await manager.send(control.AskStatus(), within_s=ASKED_WITHIN_S)
                    event = await manager.event(within_s=SILENT_S)
                    if event is None:
                        raise control.ManagerUnreachable(f"It said nothing for {2 * SILENT_S:g} s.")
                if isinstance(event, control.BecameFailed):
                    # It is ended like one that died, with the phase that it failed in.
                    raise control.ManagerUnreachable("It failed.", cause=event.reason)
                self.phase = phase_after(self.phase, event)
                self._heard(event)
        except control.ManagerUnreachable as error:
            phase, reason = self.phase, error.cause or str(error)
        log.error("comm.ended", workload=self._workload, phase=phase, reason=reason)
        await self.end()
        self._heard(Ended(reason, phase))


def state_dir(premises: Premises, workload: str) -> Path:
    """Where a machine's communication manager keeps its state on this host."""
    return premises.states / workload / MODULE


_PHASES: dict[type, str] = {
    control.Listening: "listening",
    control.Seeding: "seeding",
    control.HandedOver: "handed-over",
    control.WentAlone: "free",
    control.Adopted: "free",
}


def phase_after(phase: str, event: control.Event) -> str:
    """Where a manager stands once it has told this; the same for what changes nothing."""
    of_primary = phase in PRIMARY_PHASES
    match event:
        case control.Status():
            return event.phase
        case control.Paired():
            return "paired" if of_primary else "following"
        case control.PeerLost():
            return "lost" if of_primary else "peer-lost"
        case control.HandedOver() if not of_primary:
            return "peer-lost"
        case control.Seeding() if not of_primary:
            return phase
        case _:
            return _PHASES.get(type(event), phase)


def _write(folder: Path, config: CommConfig) -> None:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    control_socket(folder).unlink(missing_ok=True)
    write_config(folder / CONFIG, config)
