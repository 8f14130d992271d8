"""Starting our native programs, and knowing a process for sure.

A program is started in a session of its own, answers with one line within a time limit, and is watched by a
pidfd whether or not it is our child. A process is known by its pid, its start time and the boot that it belongs
to, because pids are used again. What the programs' answers mean is known to whoever starts them.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from outlive import native
from outlive.errors import Failed

READY_FD = 3
MOST_ANSWER_BYTES = 4096
KILLED_WITHIN_S = 0.5
_START_TICKS_FIELD = 22


class ProgramFailed(Failed):
    """One of our programs could not be started, or ended without an answer."""

    id = "program.failed"


class ProgramSilent(Failed):
    """One of our programs did not answer in time and was killed."""

    id = "program.silent"


@cache
def boot_id() -> str:
    """The id of the present start of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # The second field is the program's own choice and may hold anything, also spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return int(fields[_START_TICKS_FIELD - 3])


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, never another that got its pid later. start_ticks: clock ticks since boot."""

    boot_id: str
    pid: int
    start_ticks: int


class Process:
    """A process that is watched until it has ended. It needs the running loop from its beginning.

    status: its wait status once ended, if it was our child; else None.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self._pidfd = pidfd
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._on_end)

    @classmethod
    def adopt(cls, identity: Identity) -> "Process | None":
        """Watch a process that someone else may have started; None when it is no more."""
        if identity.pid <= 0 or identity.start_ticks <= 0 or identity.boot_id != boot_id():
            return None
        try:
            pidfd = os.pidfd_open(identity.pid)
        except (OSError, OverflowError):
            return None
        # Only now: while the pidfd is open, the pid cannot come to mean another process unnoticed.
        if start_ticks(identity.pid) != identity.start_ticks:
            os.close(pidfd)
            return None
        return cls(identity.pid, pidfd)

    @property
    def ended(self) -> bool:
        """Whether it has ended, as far as the loop has noticed."""
        return self._over.is_set()

    async def wait(self) -> None:
        """Return once it has ended. Put a time limit around it."""
        await self._over.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended does not mind."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self, timeout_s: float) -> bool:
        """Send SIGKILL, and return whether it has ended, after timeout_s at the latest: storage may hold it."""
        self.send(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait()
        return self.ended

    def close(self) -> None:
        """Watch it no longer; it lives on."""
        if self._pidfd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if ended is None:
                return
            self.status = ended.si_status
        self.close()
        self._over.set()


async def start(
    program: native.Program, words: Sequence[str], *, timeout_s: float, stderr: Path | None = None
) -> tuple[Process, str]:
    """Start a program with `--ready-fd` and these words, and return it with its answer.

    timeout_s: how long it may take to answer. stderr: a local file for what it logs; None: nowhere.
    Raises ProgramFailed, or ProgramSilent after having killed it; one that storage holds may take longer to end.
    """
    pid, reading = _spawn(program, words, stderr)
    process = Process(pid, os.pidfd_open(pid))
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _line(reading)
    except TimeoutError as error:
        await process.kill(KILLED_WITHIN_S)
        raise ProgramSilent(f"The program {program} did not answer within {timeout_s:g} s.") from error
    except BaseException:
        process.send(signal.SIGKILL)
        raise
    if not answer:
        await process.kill(KILLED_WITHIN_S)
        raise ProgramFailed(f"The program {program} ended without an answer.")
    return process, answer


def _spawn(program: native.Program, words: Sequence[str], stderr: Path | None) -> tuple[int, int]:
    """Return the pid and the descriptor that the answer comes from."""
    path = native.find(program)
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(stderr or os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
        (os.POSIX_SPAWN_DUP2, writing, READY_FD),
    ]
    try:
        pid = os.posix_spawn(
            path,
            (str(path), f"--ready-fd={READY_FD}", *words),
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    except OSError as error:
        os.close(reading)
        raise ProgramFailed(f"The program {program} could not be started.", cause=str(error)) from error
    finally:
        os.close(writing)
    return pid, reading


async def _line(reading: int) -> str:
    """Read until the end of a line or of the pipe, and close it."""
    loop = asyncio.get_running_loop()
    read = bytearray()
    done: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        more = os.read(reading, MOST_ANSWER_BYTES)
        read.extend(more)
        if (not more or b"\n" in more or len(read) > MOST_ANSWER_BYTES) and not done.done():
            done.set_result(None)

    os.set_blocking(reading, False)
    loop.add_reader(reading, on_readable)
    try:
        await done
    finally:
        loop.remove_reader(reading)
        os.close(reading)
    return read.partition(b"\n")[0].decode(errors="replace")
