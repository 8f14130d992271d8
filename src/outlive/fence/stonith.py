"""Switching another host off by a configured program, and the proof that it is off.

A program that says that it succeeded has proven nothing: the host is off when the device, asked afterwards, says so.
Fence agents are spoken to by their common interface (ClusterLabs, "Fence Agent API"): options as lines KEY=VALUE on
standard input, `action` among them; `status` ends with 0 for on, 2 for off, 1 when it cannot tell. A program of one's
own gets arguments, and a second one answers in the same codes. Shells and parsers of options end with 2 as well, for
wrong usage: so 2 counts only beside the word, on standard output. Nothing counts before all that a program started has
ended (`program`), and nothing that is said is told on with a secret in it.
"""

import asyncio
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from outlive.config.fencing import SECRET, SECRET_FILE, Method
from outlive.config.placeholders import filled
from outlive.errors import Failed

from .program import Enclosure, Ended, NeverEnding, run

ASKED_EVERY_S = 1.0
MOST_SAID = 400
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


Enclose = Callable[[], Enclosure | None]
"""Makes room for one run of a program; None where there are no control groups."""


async def fence(method: Method, host: str, address: str, enclose: Enclose = lambda: None) -> Said:
    """Switch the host off, and ask until the device says so or the method's time is over.

    Raises nothing but cancellation; OFF is the proof. A try that is cancelled ends its program.
    """
    text = ""
    try:
        async with asyncio.timeout(method.limit_s):
            code, text = await _switch_off(method, host, address, enclose)
            while True:
                said = await _status(method, host, address, enclose)
                if said.power is Power.OFF:
                    return Said(Power.OFF, f"{said.text or 'the device says that it is off'}")
                text = said.text or text
                if code != 0:
                    return Said(said.power, f"it ended with {code}: {text}" if text else f"it ended with {code}")
                await asyncio.sleep(ASKED_EVERY_S)
    except TimeoutError:
        return Said(Power.UNKNOWN, f"not proven to be off within {method.limit_s:g} s" + (f": {text}" if text else ""))
    except (MethodUnusable, NeverEnding) as error:
        return Said(Power.UNKNOWN, str(error))


async def status(method: Method, host: str, address: str) -> Said:
    """Ask only whether the host is on. Raises MethodUnusable and NeverEnding."""
    try:
        async with asyncio.timeout(method.limit_s):
            return await _status(method, host, address, lambda: None)
    except TimeoutError:
        return Said(Power.UNKNOWN, f"no answer within {method.limit_s:g} s")


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


async def _switch_off(method: Method, host: str, address: str, enclose: Enclose) -> tuple[int, str]:
    call, ended = await _ended(method, host, address, "off", enclose)
    return ended.code, _redacted(ended.out + b"\n" + ended.err, call.secrets)


async def _status(method: Method, host: str, address: str, enclose: Enclose) -> Said:
    call, ended = await _ended(method, host, address, "status", enclose)
    text = _redacted(ended.out + b"\n" + ended.err, call.secrets)
    if ended.code == 0:
        return Said(Power.ON, text)
    if ended.code != 2:
        return Said(Power.UNKNOWN, text)
    if _says_off(ended.out, host):
        return Said(Power.OFF, text)
    why = f'it ended with 2, as programs do that were asked wrongly, and did not say "Status: OFF" or "{host}: off"'
    return Said(Power.UNKNOWN, f"{why}: {text}" if text else why)


def _says_off(out: bytes, host: str) -> bool:
    """Whether a line of what a status program said is the word for it, and none is the word for on."""
    lines = [line.strip().rstrip(".").lower() for line in out.decode(errors="replace").splitlines()]
    told = {line.removeprefix("status:").removeprefix(f"{host.lower()}:").strip() for line in lines}
    return "off" in told and "on" not in told


async def _ended(method: Method, host: str, address: str, action: str, enclose: Enclose) -> tuple[_Call, Ended]:
    """Run one of the method's programs to its end. Raises MethodUnusable and NeverEnding."""
    try:
        # The password's file, and the folders of programs, may lie on storage that hangs.
        call = await asyncio.to_thread(_call, method, host, address, action)
        given = call.given.encode()
        enclosure = await asyncio.to_thread(enclose)
        return call, await run(call.words, given, _environment(os.environ), enclosure)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise MethodUnusable(f"The fence method {method.name} cannot be used.", cause=why) from error


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
        # A pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} is no file")
            text = os.read(descriptor, MOST_SECRET_BYTES).decode()
        finally:
            os.close(descriptor)
    except UnicodeDecodeError as error:
        raise MethodUnusable(
            f"The password of the fence method {method.name} cannot be read.", cause=f"{path} is not text in UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        raise MethodUnusable(
            f"The password of the fence method {method.name} cannot be read.", cause=str(error)
        ) from error
    return text.partition("\n")[0].rstrip("\r")


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
