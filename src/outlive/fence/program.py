"""Running a program of others to its very end: what it said, how it ended, and that nothing it started goes on.

A fence program that has ended may have left something behind that switches a host on again, a minute later. So what it
starts is enclosed: in a control group where the caller has one, else in a session of its own. After the program's end
the rest has a moment to end by itself, then it is killed, and `run` returns only once nothing of it is there. What
cannot be killed is told as an error, so that nobody takes what was said for the last word.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outlive.errors import Failed

GRACE_S = 1.0
GONE_WITHIN_S = 2.0
LOOKED_EVERY_S = 0.02
MOST_READ_BYTES = 64 * 1024
_ENTER = 'echo 0 > "$0/cgroup.procs" || exit 125; exec "$@"'


class NeverEnding(Failed):
    """Something that a program started could not be ended."""

    id = "fence.never-ending"


class Enclosure(Protocol):
    """A control group for one run of one program; it is there when the run begins."""

    @property
    def folder(self) -> Path:
        """Where its files are."""

    def kill(self) -> None:
        """Kill all in it."""

    def populated(self) -> bool:
        """Whether anything lives in it."""

    def remove(self) -> None:
        """Remove it once it is empty."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and the last of what it wrote on standard output and on standard error."""

    code: int
    out: bytes
    err: bytes


async def run(
    words: Sequence[str], given: bytes, environment: Mapping[str, str], enclosure: Enclosure | None = None
) -> Ended:
    """Run a program, and end all that it leaves behind.

    given: for its standard input.  enclosure: where it and all that it starts live; None: a session of its own.
    Raises OSError or ValueError when it cannot be started, NeverEnding when some of it cannot be ended. Cancelled, it
    kills all of it first.
    """
    if enclosure is not None:
        words = ("/bin/sh", "-c", _ENTER, str(enclosure.folder), *words)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        if enclosure is not None:
            enclosure.remove()
        raise
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    reading = [asyncio.ensure_future(_last_of(stream)) for stream in (process.stdout, process.stderr)]
    writing = asyncio.ensure_future(_give(process.stdin, given))
    try:
        await _exit(process)
        await _gone(process.pid, enclosure, GRACE_S)
    finally:
        try:
            await _end(process, enclosure)
        finally:
            writing.cancel()
            # What holds the other end of a pipe is gone by now, or cannot be ended.
            _, late = await asyncio.wait(reading, timeout=GONE_WITHIN_S)
            for each in late:
                each.cancel()
    if late:
        raise NeverEnding("What a fence program said could not be read to its end.")
    out, err = (each.result() for each in reading)
    assert process.returncode is not None
    return Ended(process.returncode, out, err)


async def _give(stream: asyncio.StreamWriter, given: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        stream.write(given)
        await stream.drain()
    stream.close()


async def _last_of(stream: asyncio.StreamReader) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := await stream.read(8192):
            said = (said + piece)[-MOST_READ_BYTES:]
    return said


async def _exit(process: asyncio.subprocess.Process) -> None:
    """Wait for the process alone: asyncio's own waits also for whoever has its pipes."""
    while process.returncode is None:  # noqa: ASYNC110 - asyncio has no event for it
        await asyncio.sleep(LOOKED_EVERY_S)


async def _gone(session: int, enclosure: Enclosure | None, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while await asyncio.to_thread(_lives, session, enclosure):
        if loop.time() >= until:
            return False
        await asyncio.sleep(LOOKED_EVERY_S)
    return True


async def _end(process: asyncio.subprocess.Process, enclosure: Enclosure | None) -> None:
    """Kill what is there. Raises NeverEnding when it does not die."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    loop = asyncio.get_running_loop()
    until = loop.time() + GONE_WITHIN_S
    while await asyncio.to_thread(_killed, process.pid, enclosure) or process.returncode is None:
        if loop.time() >= until:
            raise NeverEnding("What a fence program left behind cannot be ended.", cause="it hangs in the kernel")
        await asyncio.sleep(LOOKED_EVERY_S)
    if enclosure is not None:
        await asyncio.to_thread(enclosure.remove)


def _lives(session: int, enclosure: Enclosure | None) -> bool:
    return bool(_members(session)) or (enclosure is not None and enclosure.populated())


def _killed(session: int, enclosure: Enclosure | None) -> bool:
    """Kill whatever lives; whether there was anything."""
    lived = False
    if enclosure is not None and enclosure.populated():
        enclosure.kill()
        lived = True
    for pid in _members(session):
        lived = True
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if _is_in(session, pid):  # and no other process that got this pid meanwhile
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    return lived


def _members(session: int) -> list[int]:
    """Who is in a session and not dead yet. A session's number is not used again while it has members."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_in(session, int(entry))]


def _is_in(session: int, pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # The second field is the program's own name and may hold anything, also spaces and brackets.
    state, _parent, _group, of_session, *_ = text.rpartition(")")[2].split()
    return int(of_session) == session and state not in "ZX"
