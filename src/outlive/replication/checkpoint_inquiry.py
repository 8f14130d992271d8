"""Asking for checkpoints without ever waiting for storage: what an agent uses of `checkpoint_reading`.

Each question is answered by a process of its own, since a system call on hung storage cannot be interrupted. It tells
that it gets on; one that is silent for `silent_s` is killed and left to the kernel. While the kernel still holds
MOST_STUCK of them nothing more is asked. Errors come back as what they were: HardwareDiffers and so on.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from outlive.errors import Failed, OutliveError, from_problem

from . import beginning
from . import checkpoint_errors as errors
from . import checkpoint_reading as reading
from .beginning import Beginning
from .checkpoint import Checkpoint, DiskChain, Hardware
from .checkpoint_folder import Heads, Listed

SILENT_S = 20.0
MOST_STUCK = 3
PROGRESS_S = 0.5
_MOST_LINE_BYTES = 64 << 20
_END_S = 2.0

_KINDS = {
    kind.id: kind
    for kind in (
        errors.CheckpointFailed,
        errors.CheckpointDamaged,
        errors.CheckpointMissing,
        errors.HardwareDiffers,
        errors.GenerationOld,
    )
}
_stuck: "list[asyncio.subprocess.Process]" = []

_Told = TypeVar("_Told")
Progress = Callable[[int], None]


class _Found(msgspec.Struct):
    checkpoint: Checkpoint
    skipped: list[reading.Skipped] = []
    disks: tuple[DiskChain, ...] = ()


async def listed(folder: Path, *, silent_s: float = SILENT_S) -> list[Listed]:
    """All checkpoints, newest first, by their manifests alone. Raises CheckpointFailed, also when it takes too long."""
    return await _ask(list[Listed], silent_s, None, call="list", folder=str(folder))


async def heads(folder: Path, *, silent_s: float = SILENT_S) -> Heads | None:
    """The layers that each disk consists of now, which a cold start has to use; None: the disks' own files alone."""
    return await _ask(Heads | None, silent_s, None, call="heads", folder=str(folder))  # type: ignore[arg-type]


async def verified(
    folder: Path, name: str, *, silent_s: float = SILENT_S, progress: Progress | None = None
) -> Checkpoint:
    """Look at everything that a checkpoint consists of. name: or its label.

    progress: is told, now and then, how many bytes of memory were looked at in all.
    Raises CheckpointDamaged, CheckpointMissing, CheckpointFailed.
    """
    return await _ask(Checkpoint, silent_s, progress, call="verify", folder=str(folder), name=name)


async def newest_whole(
    folder: Path, hardware: Hardware, *, silent_s: float = SILENT_S
) -> tuple[Checkpoint, list[reading.Skipped]]:
    """The newest whole checkpoint and those passed over. Raises HardwareDiffers, CheckpointMissing."""
    told = await _ask(_Found, silent_s, None, call="newest", folder=str(folder), hardware=msgspec.to_builtins(hardware))
    return told.checkpoint, told.skipped


async def prepared(
    folder: Path,
    hardware: Hardware,
    *,
    generation: int,
    host: str,
    name: str | None = None,
    run_lock: Path | None = None,
    owner: tuple[int, int] | None = None,
    silent_s: float = SILENT_S,
) -> reading.Resume:
    """Make everything ready for this reign to go on from a checkpoint: see `checkpoint_reading.prepare_resume`."""
    told = await _ask(
        _Found, silent_s, None, call="prepare", folder=str(folder), hardware=msgspec.to_builtins(hardware),
        generation=generation, host=host, name=name, run_lock=str(run_lock) if run_lock else None, owner=owner,
    )  # fmt: skip
    return reading.Resume(folder, told.checkpoint, told.disks, tuple(told.skipped))


async def begun(
    folder: Path,
    hardware: Hardware,
    *,
    generation: int,
    host: str,
    at: str = "",
    run_lock: Path | None = None,
    owner: tuple[int, int] | None = None,
    silent_s: float = SILENT_S,
) -> Beginning:
    """Decide how this reign begins, and make that ready: see `beginning.begin`."""
    return await _ask(
        Beginning, silent_s, None, call="begin", folder=str(folder), hardware=msgspec.to_builtins(hardware),
        generation=generation, host=host, at=at, run_lock=str(run_lock) if run_lock else None, owner=owner,
    )  # fmt: skip


async def incoming(folder: Path, host: str, *, silent_s: float = SILENT_S) -> dict[str, str]:
    """The files of the disks as they are now, and word that this host opened them: see `beginning.note_incoming`."""
    return await _ask(dict[str, str], silent_s, None, call="incoming", folder=str(folder), host=host)


async def opened_the_same(folder: Path, host: str, *, silent_s: float = SILENT_S) -> bool:
    """Whether that host opened the disks as they are now: see `beginning.opened_the_same`."""
    return await _ask(bool, silent_s, None, call="opened", folder=str(folder), host=host)


async def shut_down(folder: Path, *, silent_s: float = SILENT_S) -> None:
    """Note that the guest ended by its own will: see `beginning.note_shut_down`."""
    await _ask(type(None), silent_s, None, call="shut-down", folder=str(folder))


async def _ask(kind: type[_Told], silent_s: float, progress: Progress | None, **request: Any) -> _Told:
    _stuck[:] = [process for process in _stuck if process.returncode is None]
    if len(_stuck) >= MOST_STUCK:
        raise errors.CheckpointFailed("The datastore of the checkpoints does not answer.", cause="it did not before")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "outlive.replication.checkpoint_inquiry",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=_MOST_LINE_BYTES,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        while True:
            async with asyncio.timeout(silent_s):
                line = await process.stdout.readline()
            told = msgspec.json.decode(line, type=dict[str, Any])
            if "progress" not in told:
                break
            if progress is not None:
                progress(told["progress"])
        if "problem" in told:
            raise _error_of(told["problem"])
        return msgspec.convert(told["result"], kind)
    except TimeoutError as error:
        cause = f"it did not answer within {silent_s:g} s"
        raise errors.CheckpointFailed("The datastore of the checkpoints does not answer.", cause=cause) from error
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        raise errors.CheckpointFailed("The checkpoints could not be asked for.", cause=str(error)) from error
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it; one that storage holds is remembered, and left to the kernel."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        _stuck.append(process)


def _error_of(problem: dict[str, Any]) -> OutliveError:
    found = from_problem(problem)
    kind = _KINDS.get(found.id, Failed)
    return kind(found.sentence, cause=found.cause, remedy=found.remedy, id=found.id)


def answer(request: dict[str, Any], progress: Progress) -> Any:
    """Answer one question. Blocks as long as the storage does. Raises OutliveError, OSError."""
    folder = Path(request["folder"])
    match request["call"]:
        case "list":
            return reading.list_checkpoints(folder)
        case "heads":
            return reading.read_heads(folder)
        case "verify":
            return reading.verify(folder, request["name"], progress)
        case "newest":
            hardware = msgspec.convert(request["hardware"], Hardware)
            return _Found(*reading.newest_whole(folder, hardware, progress))
        case "prepare":
            resume = reading.prepare_resume(
                folder, msgspec.convert(request["hardware"], Hardware), generation=request["generation"],
                host=request["host"], name=request["name"], owner=_pair(request["owner"]),
                run_lock=Path(request["run_lock"]) if request["run_lock"] else None, progress=progress,
            )  # fmt: skip
            return _Found(resume.checkpoint, list(resume.skipped), resume.disks)
        case "begin":
            return beginning.begin(
                folder, msgspec.convert(request["hardware"], Hardware), generation=request["generation"],
                host=request["host"], at=request["at"], owner=_pair(request["owner"]),
                run_lock=Path(request["run_lock"]) if request["run_lock"] else None, progress=progress,
            )  # fmt: skip
        case "incoming":
            return beginning.note_incoming(folder, request["host"])
        case "opened":
            return beginning.opened_the_same(folder, request["host"])
        case "shut-down":
            return beginning.note_shut_down(folder)
    raise ValueError(f"nothing is called {request['call']!r}")


def _pair(told: list[int] | None) -> tuple[int, int] | None:
    return (told[0], told[1]) if told else None


def main() -> None:
    """One question on standard input; lines of progress and one answer on standard output."""
    os.chdir("/")  # so that no mount is kept busy
    seen_bytes = 0
    told_at = time.monotonic()

    def say(told: dict[str, Any]) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()

    def progress(size: int) -> None:
        nonlocal seen_bytes, told_at
        seen_bytes += size
        if time.monotonic() - told_at > PROGRESS_S:
            told_at = time.monotonic()
            say({"progress": seen_bytes})

    try:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=dict[str, Any])
        say({"result": msgspec.to_builtins(answer(request, progress))})
    except OutliveError as error:
        say({"problem": error.problem()})
    except Exception as error:  # whoever asked must hear of it, whatever it is
        failed = errors.CheckpointFailed("The checkpoints could not be read.", cause=repr(error))
        say({"problem": failed.problem()})


if __name__ == "__main__":
    main()
