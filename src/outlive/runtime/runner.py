"""The agent's side of `outlive-runner`: the parent of one module, which outlives any agent.

A module that was started here is found again by its state folder, whoever the agent is by then; a pid that was used
again is never taken for it. How a module ended is what its runner recorded; a runner that was killed recorded
nothing, and then everything of the module has been killed too. When to start and to stop is decided elsewhere.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outlive import spawn
from outlive.errors import Failed, RefusedForSafety
from outlive.runtime import cgroup

NS_PER_S = 1_000_000_000
LOG_MOST_BYTES = 8 * 1024 * 1024
LOG_FILES_KEPT = 3
START_WITHIN_S = 10.0
RECORDED_WITHIN_S = 5.0
KILLED_WITHIN_S = 5.0
_POLL_S = 0.01


class ModuleNotStarted(Failed):
    """A module's program could not be run; the cause says which step failed and why."""

    id = "module.not-started"


class ModuleUnkillable(RefusedForSafety):
    """A module was killed and does not end, so nothing may be started in its place."""

    id = "module.unkillable"


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a module runs as, by numbers."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and where all that belongs to it is kept.

    command:     program and arguments; a program without a slash is looked for in the environment's PATH.
    environment: the whole of it.
    state_dir:   a local folder for this module alone; it is made when it is not there.
    log:         a file; older ones are `log`.1 and so on.
    folder:      where it starts; None: the root folder, the same on every host.
    cgroups:     the module's own, then older hierarchies' (Tree.entrances).
    limits:      resource limits by their names in lower case (nofile, core…), soft and hard; None: infinity.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    state_dir: Path
    log: Path
    cgroups: tuple[Path, ...]
    runner_cgroup: Path
    folder: Path | None = None
    account: Account | None = None
    limits: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    log_most_bytes: int = LOG_MOST_BYTES
    log_files_kept: int = LOG_FILES_KEPT


@dataclass(frozen=True, slots=True)
class Exit:
    """How a module ended: by itself with a code, by a signal, or unrecorded, when both are None.

    at:      boot clock, seconds; 0 when unrecorded.
    emptied: whether nothing of it was left when that was recorded.
    error:   why the program could not be run, if that is how it ended.
    """

    code: int | None = None
    signal: int | None = None
    at: float = 0.0
    emptied: bool = False
    error: str = ""

    def sentence(self) -> str:
        """Say how it ended, as what follows "the module"."""
        if self.error:
            return f"could not be run: {self.error}"
        if self.signal is not None:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(self.signal).name}"
            return f"was ended by signal {self.signal}"
        if self.code is not None:
            return f"ended with code {self.code}"
        return "ended with its runner, which recorded nothing"


class Running:
    """A module that was started, by us or by an agent before us, until it is known how it ended.

    pid: of its first process.
    """

    def __init__(
        self, state_dir: Path, folder: Path, runner: spawn.Process | None, child: spawn.Process | None, pid: int
    ) -> None:
        self.state_dir = state_dir
        self.cgroup = folder
        self.pid = pid
        self._runner = runner
        self._child = child
        self._exit: Exit | None = None

    async def wait(self) -> Exit:
        """Return how it ended, once it has; any number of tasks may wait."""
        if self._exit is None:
            if self._child is not None:
                await self._child.wait()
            self._exit = await self._recorded()
        return self._exit

    def send(self, number: signal.Signals) -> None:
        """Send its first process a signal; one that has ended does not mind."""
        if self._child is not None:
            self._child.send(number)

    async def stop(self, grace_s: float, number: signal.Signals = signal.SIGTERM) -> Exit:
        """Ask it to end, give it grace_s, then kill everything of it; return how it ended.

        Raises ModuleUnkillable when something of it is still there after all.
        """
        self.send(number)
        try:
            async with asyncio.timeout(grace_s):
                exit_ = await self.wait()
        except TimeoutError:
            exit_ = await self._kill()
        if not await cgroup.wait_empty(self.cgroup, 0.0):
            cgroup.kill(self.cgroup)
            if not await cgroup.wait_empty(self.cgroup, KILLED_WITHIN_S):
                raise _unkillable(self.cgroup)
        return exit_

    async def gone(self, timeout_s: float) -> None:
        """Return once its runner has ended too, which holds the state folder until then. Raises ModuleUnkillable."""
        if self._runner is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._runner.wait()
        except TimeoutError as error:
            raise ModuleUnkillable(
                "The runner of a module that has ended does not end.", cause=f"it still holds {self.state_dir}"
            ) from error

    def close(self) -> None:
        """Watch it no longer; it lives on."""
        for process in (self._runner, self._child):
            if process is not None:
                process.close()

    async def _kill(self) -> Exit:
        cgroup.kill(self.cgroup)
        try:
            async with asyncio.timeout(KILLED_WITHIN_S):
                return await self.wait()
        except TimeoutError as error:
            raise _unkillable(self.cgroup) from error

    async def _recorded(self) -> Exit:
        """The record of its end; without one, make sure that nothing of it is left."""
        loop = asyncio.get_running_loop()
        overdue_at = loop.time() + RECORDED_WITHIN_S
        while True:
            runner_ended = self._runner is None or self._runner.ended
            if (exit_ := await asyncio.to_thread(_read_exit, self.state_dir)) is not None:
                return exit_
            if runner_ended:
                break
            if self._runner is not None and loop.time() >= overdue_at:
                self._runner.send(signal.SIGKILL)
            await asyncio.sleep(_POLL_S)
        cgroup.kill(self.cgroup)
        return Exit(emptied=await cgroup.wait_empty(self.cgroup, KILLED_WITHIN_S))


async def start(order: Order, timeout_s: float = START_WITHIN_S) -> Running:
    """Start a module in a runner of its own and return once its program runs.

    Raises ModuleNotStarted; then nothing of it is left.
    """
    await asyncio.to_thread(_prepare, order)
    try:
        process, answer = await spawn.start("outlive-runner", _words(order), timeout_s=timeout_s)
    except (spawn.ProgramFailed, spawn.ProgramSilent) as error:
        # A folder on storage that hangs holds the program up in the middle of being started.
        cgroup.kill(order.cgroups[0])
        raise ModuleNotStarted(f"{order.command[0]} could not be run.", cause=str(error)) from error
    word, _, rest = answer.partition(" ")
    if word != "OK":
        await process.kill(KILLED_WITHIN_S)  # it ends by itself; until then it holds the state folder
        raise ModuleNotStarted(f"{order.command[0]} could not be run.", cause=rest)
    state = await asyncio.to_thread(_read_state, order.state_dir)
    if state is None:
        await process.kill(KILLED_WITHIN_S)  # what no later agent could find again must not run
        raise ModuleNotStarted(f"{order.command[0]} could not be run.", cause="its state cannot be read back")
    child = spawn.Process.adopt(state[1])  # None: it has ended already
    return Running(order.state_dir, order.cgroups[0], process, child, int(rest))


async def adopt(state_dir: Path, folder: Path) -> Running | None:
    """Take over what an earlier agent started, also if it has ended since; None when it never ran in this boot.

    folder: the module's cgroup.
    """
    state = await asyncio.to_thread(_read_state, state_dir)
    if state is None or state[0].boot_id != spawn.boot_id():
        return None
    runner = spawn.Process.adopt(state[0])
    if state[1].pid == 0:
        if runner is not None:  # the agent ended while it was being started: nobody waits for it any more
            await runner.kill(KILLED_WITHIN_S)
            cgroup.kill(folder)
        return None
    return Running(state_dir, folder, runner, spawn.Process.adopt(state[1]), state[1].pid)


def _words(order: Order) -> list[str]:
    words = [
        f"--state-dir={order.state_dir}",
        f"--log={order.log}",
        f"--log-max-bytes={order.log_most_bytes}",
        f"--log-keep={order.log_files_kept}",
        f"--runner-cgroup={order.runner_cgroup}",
        f"--env-file={order.state_dir / 'environment'}",
        *(f"--cgroup={path}" for path in order.cgroups),
    ]
    words.append(f"--cwd={order.folder or '/'}")
    if order.account is not None:
        words += [f"--user={order.account.user}", f"--group={order.account.group}"]
        if order.account.groups:
            words.append("--groups=" + ",".join(str(group) for group in order.account.groups))
    for name, (soft, hard) in order.limits.items():
        words.append(f"--rlimit={name}={_limit(soft)}:{_limit(hard)}")
    return [*words, "--", *order.command]


def _limit(value: int | None) -> str:
    return "infinity" if value is None else str(value)


def _prepare(order: Order) -> None:
    """Make the folders, and the file that the runner reads the environment from: it may hold secrets."""
    try:
        order.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        order.log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        words = "".join(f"{name}={value}\0" for name, value in order.environment.items())
        descriptor = os.open(
            order.state_dir / "environment", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        with open(descriptor, "wb") as file:
            file.write(words.encode(errors="surrogateescape"))
    except OSError as error:
        raise ModuleNotStarted(
            f"{order.command[0]} could not be run.", cause=f"its state cannot be written: {error}"
        ) from error


def _read(path: Path) -> dict[str, object]:
    """A JSON object that a runner wrote; empty when there is none, or when it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_state(state_dir: Path) -> tuple[spawn.Identity, spawn.Identity] | None:
    state = _read(state_dir / "state.json")
    boot = state.get("boot_id")
    numbers = [state.get(name) for name in ("runner_pid", "runner_start_ticks", "child_pid", "child_start_ticks")]
    if not isinstance(boot, str):
        return None
    runner_pid, runner_ticks, child_pid, child_ticks = (number if isinstance(number, int) else 0 for number in numbers)
    return spawn.Identity(boot, runner_pid, runner_ticks), spawn.Identity(boot, child_pid, child_ticks)


def _read_exit(state_dir: Path) -> Exit | None:
    record = _read(state_dir / "exit.json")
    code, number, at = record.get("code"), record.get("signal"), record.get("boottime_ns")
    if not record:
        return None
    return Exit(
        code=code if isinstance(code, int) else None,
        signal=number if isinstance(number, int) else None,
        at=at / NS_PER_S if isinstance(at, int) and 0 <= at < 1 << 63 else 0.0,
        emptied=record.get("emptied") is True,
        error=str(record.get("error", "")),
    )


def _unkillable(folder: Path) -> ModuleUnkillable:
    return ModuleUnkillable(
        "A module was killed and does not end.",
        cause=f"something in {folder} waits for storage or for a device",
        remedy="bring that storage back; until then the module is not started again on this host",
    )
