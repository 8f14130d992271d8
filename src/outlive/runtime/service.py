"""Services: the modules of one workload, each a program under a runner of its own.

A module runs once it has shown that it is ready: the line that it was to print, a first success of each of
its checks, or, when nothing was asked of it, a moment of life. From then on its checks and its end are
watched until it is stopped. Whatever goes wrong, what is left of the module is killed first and told after,
with a sentence.
"""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Check, Module, Workload, start_order
from outlive.errors import OutliveError

from . import cgroup, runner
from .accounts import account
from .base import Told, Whereabouts
from .health import Sick, Surroundings, watched
from .logs import Follower, log_path

ALIVE_S = 0.2
READY_POLL_S = 0.05
CLEARED_WITHIN_S = 10.0
RUNNER_GONE_WITHIN_S = 6.0
LAST_LINES_WITHIN_S = 0.5
STUCK_PAUSE_S = 1.0
STUCK_TOLD_EVERY = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Premises:
    """Where what belongs to services is kept on this host.

    states: the runners' state folders, gone with a reboot.  logs: the modules' logs.
    """

    tree: cgroup.Tree
    states: Path
    logs: Path


@dataclass(slots=True)
class _Life:
    """One run of a module. ready: it has shown that it runs; begun_ms: wall clock before it was started."""

    module: Module
    running: runner.Running
    begun_ms: int
    ready: bool = False
    follower: Follower | None = None
    watch: "asyncio.Task[None] | None" = field(default=None, compare=False)


class Service:
    """A workload of kind service at one generation on this host: a `Runtime`.

    tasks: outlives it.  may_act: whether the host's claim is in force, asked just before anything is started.
    """

    def __init__(
        self,
        workload: Workload,
        whereabouts: Whereabouts,
        premises: Premises,
        told: Told,
        tasks: asyncio.TaskGroup,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        self._workload = workload
        self._where = whereabouts
        self._premises = premises
        self._told = told
        self._tasks = tasks
        self._may_act = may_act
        self._lives: dict[str, _Life] = {}

    async def start(self, name: str) -> None:
        """Start a module anew; what becomes of it is told."""
        module = self._workload.module(name)
        try:
            await self._clear(name)
            life = await self._begin(module)
        except (OutliveError, OSError) as error:
            self._told(name, ModuleStatus.FAILED, str(error))
            return
        self._watch(life)

    async def adopt(self) -> dict[str, ModuleStatus]:
        """Take over and watch what an earlier agent started; modules that were never started are left out."""
        statuses: dict[str, ModuleStatus] = {}
        for module in self._workload.modules:
            running = await runner.adopt(self._state_dir(module.name), self._cgroup(module.name))
            if running is None:
                continue
            begun_ms, ready = await asyncio.to_thread(_marks, self._state_dir(module.name), running.pid)
            life = _Life(module, running, begun_ms, ready)
            self._lives[module.name] = life
            if not cgroup.populated(running.cgroup):
                statuses[module.name] = ModuleStatus.FAILED
                continue
            if not ready and module.readiness is not None:
                path = log_path(self._premises.logs, self._workload.name, module.name)
                life.follower = Follower(path, module.name, from_start=True)
            statuses[module.name] = ModuleStatus.RUNNING if ready else ModuleStatus.RESTORING
        return statuses

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted: its end is told even when it came before."""
        for life in self._lives.values():
            self._watch(life)

    async def stop(self) -> None:
        """Stop every module in reverse order of starting; returns when nothing of the workload's modules runs."""
        for life in self._lives.values():
            await _cancelled(life)
        for layer in reversed(start_order(self._workload.modules)):
            async with asyncio.TaskGroup() as stopping:
                for name in layer:
                    stopping.create_task(self._stop(name))
        for life in self._lives.values():
            # Its runner still writes down the last lines; a runner that hangs must not hold up the end.
            with contextlib.suppress(runner.ModuleUnkillable):
                await life.running.gone(LAST_LINES_WITHIN_S)
            life.running.close()
        self._lives.clear()

    def leave(self) -> None:
        """Let go of everything as it runs, for the next agent to adopt."""
        for life in self._lives.values():
            life.running.close()

    async def _stop(self, name: str) -> None:
        module, life = self._workload.module(name), self._lives.get(name)
        if life is not None:
            try:
                await life.running.stop(module.stop_grace_s, _signal(module.stop_signal))
            except OutliveError as error:
                log.error("module.not_stopped", workload=self._workload.name, module=name, reason=str(error))
        tries = 0
        while True:
            # Also what was started and never adopted, or slipped out of its first process's hands.
            cgroup.kill(self._cgroup(name))
            if await cgroup.wait_empty(self._cgroup(name), STUCK_PAUSE_S):
                return
            if tries % STUCK_TOLD_EVERY == 0:
                log.error(
                    "module.unkillable",
                    workload=self._workload.name,
                    module=name,
                    reason="it was killed and does not end: it waits for storage or a device",
                )
            tries += 1

    async def _clear(self, name: str) -> None:
        """Make sure that nothing of the module is left. Raises ModuleUnkillable."""
        life = self._lives.pop(name, None)
        if life is not None:
            await _cancelled(life)
        folder = self._cgroup(name)
        cgroup.kill(folder)
        if not await cgroup.wait_empty(folder, CLEARED_WITHIN_S):
            raise runner.ModuleUnkillable(
                "What is left of the module was killed and does not end.",
                cause=f"something in {folder} waits for storage or a device",
            )
        running = life.running if life is not None else await runner.adopt(self._state_dir(name), folder)
        if running is not None:
            await running.gone(RUNNER_GONE_WITHIN_S)
            running.close()

    async def _begin(self, module: Module) -> _Life:
        """Start the program. Raises ModuleNotStarted or CgroupFailed."""
        name, workload = module.name, self._workload.name
        tree = self._premises.tree
        missing = tree.limit(workload, name, module.limits)
        for sentence in missing:
            log.warning("module.limit_not_held", workload=workload, module=name, reason=sentence)
        folder = self._folder(module)
        order = runner.Order(
            command=tuple(self._where.filled(word) for word in module.command),
            environment=self._where.environment(module.environment),
            state_dir=self._state_dir(name),
            log=log_path(self._premises.logs, workload, name),
            cgroups=tree.entrances(workload, name),
            runner_cgroup=tree.runner(workload),
            folder=Path(folder) if folder else None,
            account=await account(module.user) if module.user is not None else None,
            limits={"nofile": (module.limits.open_files,) * 2} if module.limits.open_files is not None else {},
        )
        begun_ms = int(time.time() * 1000)
        follower = await asyncio.to_thread(Follower, order.log, name) if module.readiness is not None else None
        await asyncio.to_thread(_mark_begun, order.state_dir, begun_ms)
        if not self._may_act():
            raise runner.ModuleNotStarted("This host may not act now.", cause="its claim has ended")
        running = await runner.start(order)
        log.info("module.started", workload=workload, module=name, pid=running.pid)
        life = _Life(module, running, begun_ms, follower=follower)
        self._lives[name] = life
        return life

    def _watch(self, life: _Life) -> None:
        life.watch = self._tasks.create_task(self._watched(life))

    async def _watched(self, life: _Life) -> None:
        """Watch one run of a module to its end, and tell of it."""
        reason = await self._until_sick(life)
        try:
            await life.running.stop(0.0, signal.SIGKILL)
        except OutliveError as error:
            reason = f"{reason}; what is left of it cannot be killed: {error}"
        finally:
            if life.follower is not None:
                life.follower.close()
        self._told(life.module.name, ModuleStatus.FAILED, reason)

    async def _until_sick(self, life: _Life) -> str:
        reasons: list[str] = []
        try:
            async with asyncio.TaskGroup() as watching:
                watching.create_task(_ended(life.running))
                firsts = [asyncio.Event() for _ in life.module.checks]
                surroundings = self._surroundings(life.module)
                for check, first in zip(life.module.checks, firsts, strict=True):
                    watching.create_task(watched(self._filled(check), surroundings, first.set))
                if not life.ready:
                    await self._until_ready(life, firsts)
                    await asyncio.to_thread(_mark_ready, life.running.state_dir, life.running.pid)
                    life.ready = True
                    self._told(life.module.name, ModuleStatus.RUNNING, "")
                # Waited for here and not by leaving the group: Python 3.11.2 then leaves this task half cancelled.
                await asyncio.Event().wait()
        except* Sick as several:
            reasons = [error.reason for error in several.exceptions if isinstance(error, Sick)]
        # That it ended explains why its checks failed, never the other way round.
        return next((reason for reason in reasons if reason.startswith("it ")), reasons[0])

    async def _until_ready(self, life: _Life, firsts: list[asyncio.Event]) -> None:
        """Wait for the readiness line and each check's first success. Raises Sick when the line is overdue."""
        readiness = life.module.readiness
        if readiness is not None and life.follower is not None:
            try:
                async with asyncio.timeout(readiness.timeout_s):
                    await _line(life.follower, re.compile(readiness.line), life.begun_ms)
            except TimeoutError:
                raise Sick(
                    f"it wrote no line that matches {readiness.line!r} within {readiness.timeout_s:g} s"
                ) from None
        for first in firsts:
            await first.wait()
        if readiness is None and not firsts:
            await asyncio.sleep(ALIVE_S)

    def _filled(self, check: Check) -> Check:
        return replace(
            check,
            command=tuple(self._where.filled(word) for word in check.command),
            address=self._where.filled(check.address),
            path=self._where.filled(check.path),
        )

    def _surroundings(self, module: Module) -> Surroundings:
        return Surroundings(
            self._where.environment(module.environment),
            self._folder(module),
            module.user,
            self._cgroup(module.name),
            self._may_act,
        )

    def _folder(self, module: Module) -> str | None:
        """Where a module starts: where it was told, else in its data folder."""
        if module.working_folder is not None:
            return self._where.filled(module.working_folder)
        return str(self._where.data) if self._where.data is not None else None

    def _cgroup(self, name: str) -> Path:
        return self._premises.tree.module(self._workload.name, name)

    def _state_dir(self, name: str) -> Path:
        return self._premises.states / self._workload.name / name


async def _ended(running: runner.Running) -> None:
    raise Sick(f"it {(await running.wait()).sentence()}")


async def _line(follower: Follower, wanted: re.Pattern[str], begun_ms: int) -> None:
    while True:
        for line in await asyncio.to_thread(follower.read):
            if line.unix_ms >= begun_ms and wanted.search(line.text):
                return
        await asyncio.sleep(READY_POLL_S)


async def _cancelled(life: _Life) -> None:
    if life.watch is not None and not life.watch.done():
        life.watch.cancel()
        await asyncio.wait([life.watch])
    if life.follower is not None:
        life.follower.close()


def _signal(name: str) -> signal.Signals:
    return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]


def _mark_begun(state_dir: Path, begun_ms: int) -> None:
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    (state_dir / "ready").unlink(missing_ok=True)
    (state_dir / "begun").write_text(str(begun_ms))


def _mark_ready(state_dir: Path, pid: int) -> None:
    try:
        (state_dir / "ready").write_text(str(pid))
    except OSError:
        log.warning("module.mark_not_written", folder=str(state_dir))


def _marks(state_dir: Path, pid: int) -> tuple[int, bool]:
    """When the present run began (0: unknown), and whether it had been ready."""

    def number(name: str) -> int:
        try:
            return int((state_dir / name).read_text())
        except (OSError, ValueError):
            return 0

    return number("begun"), number("ready") == pid
