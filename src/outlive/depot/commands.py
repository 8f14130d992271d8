"""Running one command of a package to its end: with a time limit, a bounded log, and nothing left running behind it.

Whatever a command starts inherits the lock of a file, its leash. So a later attempt knows for sure whether something
of an earlier one still runs, also when the agent that began it was killed, and can end just that.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InstallFailed
from .files import open_or_make, try_lock

MOST_LOG_BYTES = 1 << 20
TAIL_BYTES = 2000
ENDED_WITHIN_S = 10.0
_LOOK_AGAIN_S = 0.2
_READ_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. why: '' when it succeeded, else what went wrong. output: the end of what it wrote."""

    why: str
    output: str = ""


@dataclass(slots=True)
class _Output:
    """What a command writes: its beginning goes to a log, its end is remembered, and the middle may be lost."""

    log: int
    left_bytes: int = MOST_LOG_BYTES
    tail: bytearray = field(default_factory=bytearray)

    def take(self, raw: bytes) -> None:
        self.tail += raw
        del self.tail[:-TAIL_BYTES]
        with suppress(OSError):  # a full disk keeps no log, and the command's own success tells
            os.write(self.log, raw[: self.left_bytes])
        self.left_bytes -= min(len(raw), self.left_bytes)

    def text(self) -> str:
        return self.tail.decode(errors="replace").strip()


def run(
    words: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    timeout_s: float,
    leash: Path,
    log: Path,
    cancelled: threading.Event | None = None,
) -> Ran:
    """Run a command in a folder, and end all that it leaves running.

    leash: a lock file; it must be free (see `end_leftovers`).  log: appended to, at most MOST_LOG_BYTES.
    Raises OSError; InstallFailed if something of it cannot be ended, or another has the leash.
    """
    kept = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    output = _Output(kept)
    try:
        held = open_or_make(leash)
        try:
            if not try_lock(held):
                raise InstallFailed(
                    "A command of a package was not begun.",
                    cause=f"another holds {leash}, so that nobody could tell what of it still runs",
                    remedy="try again once that has ended",
                )
            process = subprocess.Popen(
                list(words),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,
                pass_fds=(held,),
            )
        except (OSError, ValueError) as error:
            return Ran(f"it could not be started: {error}")
        finally:
            os.close(held)
        why = _watched(process, output, time.monotonic() + timeout_s, cancelled) or _outcome(process)
        end_leftovers(leash)
        return Ran(why if why != _LATE else f"it took longer than {timeout_s:g} s", output.text())
    finally:
        os.close(kept)


_LATE = "late"
_SIGNALS = {int(each): each.name.removeprefix("SIG") for each in signal.Signals}


def _watched(process: subprocess.Popen[bytes], output: _Output, until: float, cancelled: threading.Event | None) -> str:
    """Take what it writes until it ends, or is ended: then return why."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    pidfd = os.pidfd_open(process.pid)
    why, killed_at = "", 0.0
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poll.poll(_LOOK_AGAIN_S * 1000)}
            if pipe in ready and not _take(pipe, output):
                poll.unregister(pipe)
            if pidfd in ready:
                break
            if not why and cancelled is not None and cancelled.is_set():
                why = "it was cancelled"
            elif not why and time.monotonic() >= until:
                why = _LATE
            if why:
                os.killpg(process.pid, signal.SIGKILL)
                killed_at = killed_at or time.monotonic()
                if time.monotonic() > killed_at + ENDED_WITHIN_S:
                    raise _cannot_be_ended(f"its process {process.pid} does not end when it is killed")
        while _take(pipe, output) and output.left_bytes:
            pass
        return why
    finally:
        # The group's number is its own until its first process, which is not waited for yet, is.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        os.close(pidfd)
        process.stdout.close()
        process.poll()


def _take(pipe: int, output: _Output) -> bool:
    """Take what is there; False when there is nothing, now or ever."""
    try:
        raw = os.read(pipe, _READ_BYTES)
    except BlockingIOError:
        return False
    output.take(raw)
    return bool(raw)


def _outcome(process: subprocess.Popen[bytes]) -> str:
    status = process.returncode
    if status < 0:
        return f"it was ended by the signal {_SIGNALS.get(-status, -status)}"
    return f"it ended with status {status}" if status else ""


def end_leftovers(leash: Path) -> None:
    """End whatever a command that had this leash left running. Raises InstallFailed if that cannot be, OSError."""
    fd = open_or_make(leash)
    try:
        until = time.monotonic() + ENDED_WITHIN_S
        while not try_lock(fd):
            for pid in _who_has_open(os.fstat(fd)):
                _kill(pid, leash)
            if time.monotonic() > until:
                raise _cannot_be_ended(f"what an install command of {leash.parent.name} left running")
            time.sleep(0.01)
    finally:
        os.close(fd)


def _cannot_be_ended(what: str) -> InstallFailed:
    return InstallFailed(
        "A command of a package cannot be ended.", cause=what, remedy="see what holds it, storage often, and try again"
    )


def _who_has_open(seen: os.stat_result) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and _has_open(Path("/proc", entry, "fd"), seen):
            yield int(entry)


def _has_open(descriptors: Path, seen: os.stat_result) -> bool:
    with suppress(OSError):
        for name in os.listdir(descriptors):
            with suppress(OSError):
                if os.path.samestat(os.stat(descriptors / name), seen):
                    return True
    return False


def _kill(pid: int, leash: Path) -> None:
    """Kill a process, once more having looked that it is one of those: its number may be another's by now."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _has_open(Path("/proc", str(pid), "fd"), os.stat(leash)):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
