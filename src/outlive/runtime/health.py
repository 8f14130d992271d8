"""Asking a module whether it is well: one try of a check, and the patience around it.

A check says nothing when all is well and a sentence when not; it never takes longer than its own time limit
and never leaves a process behind. What follows from a sick module is decided elsewhere: here it is only
told, as `Sick`. Programs are started through a small shell that enters the workload's cgroup, its folder
and its user by itself, because a folder on a hung datastore must stop that shell and not the agent's loop.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from outlive.cluster.workload import Check, CheckKind

MOST_OUTPUT_BYTES = 64 * 1024
SAID_CHARACTERS = 200
PAUSE_WHEN_FIRST_S = 0.1
REAPED_WITHIN_S = 1.0
LAST_WORDS_S = 0.1


class Sick(Exception):
    """A module is not well; its argument is the sentence that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a check of kind command runs in: the same as the module that it asks.

    cgroup: the folder of the cgroup that it belongs to, so that it ends with the workload; None: the agent's.
    may_act: asked just before a check begins: a host whose claim has ended must not even ask its workload.
    """

    environment: Mapping[str, str]
    folder: str | None = None
    user: str | None = None
    cgroup: Path | None = None
    may_act: Callable[[], bool] = lambda: True


def named(check: Check) -> str:
    """Return what people call the check in a sentence."""
    match check.kind:
        case CheckKind.COMMAND:
            return f"check `{shlex.join(check.command)}`"
        case CheckKind.TCP:
            return f"check of TCP port {check.port}"
        case CheckKind.HTTP:
            return f"check of http://{_bracketed(check.address)}:{check.port}{check.path}"


async def tried(check: Check, surroundings: Surroundings) -> str:
    """Try the check once, within its time limit; return '' when it is well and what it said otherwise."""
    if not surroundings.may_act():
        return "this host may not act now"
    try:
        async with asyncio.timeout(check.timeout_s):
            match check.kind:
                case CheckKind.COMMAND:
                    return await _command(check.command, surroundings)
                case CheckKind.TCP:
                    return await _tcp(check.address, check.port)
                case CheckKind.HTTP:
                    return await _http(check)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"


async def watched(check: Check, surroundings: Surroundings, first_success: Callable[[], None]) -> None:
    """Try the check for as long as nobody cancels it; call `first_success` once.

    A try that may not be made counts for nothing. Raises Sick when the first success is overdue, or when
    `check.failures` tries in a row failed after it.
    """
    clock = asyncio.get_running_loop().time
    overdue_at = clock() + check.grace_s
    while said := await tried(check, surroundings):
        if clock() >= overdue_at:
            raise Sick(f"{named(check)} had not succeeded {check.grace_s:g} s after the start: {said}")
        await asyncio.sleep(min(PAUSE_WHEN_FIRST_S, check.interval_s))
    first_success()
    failures = 0
    while True:
        await asyncio.sleep(check.interval_s)
        said = await tried(check, surroundings)
        if not surroundings.may_act():
            continue
        failures = failures + 1 if said else 0
        if failures >= check.failures:
            times = "once" if failures == 1 else f"{failures} times in a row"
            raise Sick(f"{named(check)} failed {times}: {said}")


# Everything that may block, a hung folder or a slow user directory, happens in the child: see the head of
# this file.
_ENTER = """
[ -z "$1" ] || echo 0 > "$1/cgroup.procs" || exit 125
cd -- "$2" || exit 125
user=$3
shift 3
[ -z "$user" ] || exec setpriv --reuid="$user" --regid="$(id -g -- "$user")" --init-groups -- "$@"
exec "$@"
"""


def entering(command: tuple[str, ...], surroundings: Surroundings) -> list[str]:
    """Return the arguments that run `command` inside its cgroup and folder, as its user."""
    cgroup = str(surroundings.cgroup) if surroundings.cgroup is not None else ""
    return [
        "/bin/sh",
        "-c",
        _ENTER,
        "sh",
        cgroup,
        surroundings.folder or "/",
        surroundings.user or "",
        *command,
    ]


class _Asked(asyncio.SubprocessProtocol):
    """A check's program while it runs: its last words, and when it and its output have ended."""

    def __init__(self) -> None:
        self.output = b""
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()

    def pipe_data_received(self, _descriptor: int, data: bytes) -> None:
        self.output = (self.output + data)[-MOST_OUTPUT_BYTES:]

    def pipe_connection_lost(self, _descriptor: int, _error: Exception | None) -> None:
        self.silent.set()

    def process_exited(self) -> None:
        self.exited.set()


async def _command(command: tuple[str, ...], surroundings: Surroundings) -> str:
    try:
        transport, asked = await asyncio.get_running_loop().subprocess_exec(
            _Asked,
            *entering(command, surroundings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(surroundings.environment),
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be run: {_plain(error)}"
    try:
        await asked.exited.wait()
        with contextlib.suppress(TimeoutError):
            # A child that it left behind may hold its output open for ever.
            async with asyncio.timeout(LAST_WORDS_S):
                await asked.silent.wait()
        code = transport.get_returncode()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAPED_WITHIN_S):
                await asked.exited.wait()
    if code == 0:
        return ""
    ended = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    said = asked.output.decode(errors="replace").strip().splitlines()
    return f"{ended}, {said[-1][:SAID_CHARACTERS]!r}" if said else ended


async def _tcp(address: str, port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return _plain(error)
    writer.transport.abort()
    return ""


async def _http(check: Check) -> str:
    host = f"{_bracketed(check.address)}:{check.port}"
    request = f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outlive\r\nConnection: close\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(check.address, check.port, limit=MOST_OUTPUT_BYTES)
        try:
            writer.write(request.encode())
            line = await reader.readline()
        finally:
            writer.transport.abort()
    except (OSError, ValueError) as error:
        return _plain(error)
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return f"no HTTP answer but {line[:SAID_CHARACTERS]!r}"
    status = int(parts[1][:6])
    return "" if status == check.status else f"status {status} instead of {check.status}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _plain(error: Exception) -> str:
    """Say an error as a person would: asyncio's own text repeats addresses and numbers."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
