"""Switching another host off by a configured program, and the proof that it is off.

A program that says that it succeeded has proven nothing: the host is off when the device, asked afterwards, says so.
Fence agents are spoken to by their common interface (ClusterLabs, "Fence Agent API"): options as lines KEY=VALUE on
standard input, `action` among them; `status` ends with 0 for on, 2 for off, 1 when it cannot tell. A program of one's
own gets arguments, and a second one answers in the same codes. Nothing that is said is told on with a secret in it.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from outlive.config.fencing import SECRET, SECRET_FILE, Method
from outlive.config.placeholders import filled
from outlive.errors import Failed

ASKED_EVERY_S = 1.0
KILLED_WITHIN_S = 1.0
MOST_SAID = 400
MOST_READ_BYTES = 64 * 1024
MOST_SECRET_BYTES = 4096
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
_NAMED_SECRET = re.compile(r"((?:pass(?:wd|word)?|secret|token)\S*\s*[=:]\s*)\S+", re.IGNORECASE)


class MethodUnusable(Failed):
    """A fence method cannot be used as it is configured."""

    id = "fence.unusable"


class Power(Enum):
    """What a device says of a host."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Said:
    """What a device says of a host, and the words of the program that asked it, without secrets."""

    power: Power
    text: str


@dataclass(frozen=True, slots=True)
class _Call:
    """words: the program and its arguments. given: to its standard input. secrets: what nobody may read of it."""

    words: tuple[str, ...]
    given: str
    secrets: tuple[str, ...]


async def fence(method: Method, host: str, address: str) -> Said:
    """Switch the host off, and ask until the device says so or the method's time is over.

    Raises nothing but cancellation; OFF is the proof. A try that is cancelled ends its program.
    """
    text = f"it took longer than {method.limit_s:g} s"
    try:
        async with asyncio.timeout(method.limit_s):
            code, text = await _run(_call(method, host, address, "off"))
            while True:
                said = await _status(method, host, address)
                if said.power is Power.OFF:
                    return Said(Power.OFF, f"{said.text or 'the device says that it is off'}")
                text = said.text or text
                if code != 0:
                    return Said(said.power, f"it ended with {code}: {text}" if text else f"it ended with {code}")
                await asyncio.sleep(ASKED_EVERY_S)
    except TimeoutError:
        return Said(Power.UNKNOWN, f"not proven to be off within {method.limit_s:g} s" + (f": {text}" if text else ""))
    except (MethodUnusable, OSError) as error:
        return Said(Power.UNKNOWN, str(error) if isinstance(error, MethodUnusable) else os.strerror(error.errno or 0))


async def status(method: Method, host: str, address: str) -> Said:
    """Ask only whether the host is on. Raises MethodUnusable."""
    try:
        async with asyncio.timeout(method.limit_s):
            return await _status(method, host, address)
    except TimeoutError:
        return Said(Power.UNKNOWN, f"no answer within {method.limit_s:g} s")
    except OSError as error:
        raise MethodUnusable(f"The fence method {method.name} cannot be used.", cause=str(error)) from error


def program(method: Method) -> str:
    """The path of the method's program. Raises MethodUnusable when there is none."""
    name = method.program
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise MethodUnusable(
            f"The program {name} of the fence method {method.name} is not there.",
            remedy="install fence-agents" if method.agent else "name a program that can be run, by its whole path",
        )
    return found


async def _status(method: Method, host: str, address: str) -> Said:
    code, text = await _run(_call(method, host, address, "status"))
    return Said({0: Power.ON, 2: Power.OFF}.get(code, Power.UNKNOWN), text)


def _call(method: Method, host: str, address: str, action: str) -> _Call:
    own = method.hosts.get(host, {})
    values = {**own, "host": host, "address": address}
    if not method.agent:
        words = method.command if action == "off" else method.status
        program(method)
        return _Call(tuple(filled(word, values) for word in words), "", ())
    options: dict[str, str] = {}
    secrets: list[str] = []
    for key, value in {**method.options, **own}.items():
        text = filled(value, {"host": host, "address": address})
        if (named := SECRET_FILE.fullmatch(key)) is not None:
            key, text = named[1], _secret(method, Path(text))
        if SECRET.fullmatch(key):
            secrets.append(text)
        options[key] = text
    options["action"] = action
    given = "".join(f"{key}={value}\n" for key, value in options.items())
    return _Call((program(method),), given, tuple(secrets))


def _secret(method: Method, path: Path) -> str:
    """The first line of a file with a password."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_SECRET_BYTES).decode()
    except (OSError, ValueError) as error:
        raise MethodUnusable(
            f"The password of the fence method {method.name} cannot be read.", cause=str(error)
        ) from error
    return text.partition("\n")[0].rstrip("\r")


async def _run(call: _Call) -> tuple[int, str]:
    """Run a program to its end; its exit code and what it said. Cancelled, it is killed with all that it started."""
    process = await asyncio.create_subprocess_exec(
        *call.words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment(os.environ),
        cwd="/",
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(call.given.encode())
            await process.stdin.drain()
        process.stdin.close()
        said = await _read(process)
        return await process.wait(), _redacted(said, call.secrets)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILLED_WITHIN_S)


async def _read(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    said = b""
    while piece := await process.stdout.read(8192):
        said = (said + piece)[-MOST_READ_BYTES:]
    return said


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Little of ours: programs of others need no more, and must not find our secrets there."""
    kept = {key: value for key, value in ours.items() if key in ("HOME", "TZ", "TMPDIR")}
    return {**kept, "PATH": SEARCHED, "LC_ALL": "C.UTF-8"}


def _redacted(said: bytes, secrets: tuple[str, ...]) -> str:
    """The last of what was said, in one line that a person may read anywhere."""
    text = said.decode(errors="replace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    text = _NAMED_SECRET.sub(r"\1…", text)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MOST_SAID else "…" + text[-MOST_SAID:]
