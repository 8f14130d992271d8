"""Run locks: a file on a datastore that one host at a time holds for a workload, with its generation.

A lock is held by a process of its own (`outlive-runlock`), in the workload's cgroup, so that it is let go when the
workload dies and not when the agent does. The same process is the only one that touches the datastore: one that
hangs costs a time limit and never the agent's loop. The record in the file refuses older generations also when
nobody holds it.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from outlive import spawn
from outlive.errors import Failed, RefusedForSafety

ACQUIRE_WITHIN_S = 5.0
PROBE_WITHIN_S = 3.0
RELEASE_WITHIN_S = 3.0
GENERATION_DIGITS = 19  # of 2⁶³ - 1, the highest that the program writes


class RunLockRefused(RefusedForSafety):
    """Another holds the lock, or held it later, or the record cannot be trusted.

    reason: busy, newer, other or garbled. record: what is recorded, when that could be read.
    """

    id = "runlock.refused"

    def __init__(self, path: Path, answer: str) -> None:
        word, _, rest = answer.partition(" ")
        self.reason = word.lower()
        self.record = _record(rest) if word != "GARBLED" else None
        super().__init__(
            f"The run lock {path} is refused.",
            cause=_CAUSES.get(self.reason, "{}").format(rest if self.record is None else self.record),
            remedy=_REMEDIES.get(self.reason, ""),
        )


class RunLockUnavailable(Failed):
    """The datastore of a run lock does not answer, or cannot hold it."""

    id = "runlock.unavailable"


class RunLockHeld(Failed):
    """A holder was killed and does not end, so that the lock may still be held."""

    id = "runlock.held"


@dataclass(frozen=True, slots=True)
class Record:
    """Who held a lock last, or holds it."""

    owner: str
    generation: int

    def __str__(self) -> str:
        return f"{self.owner} at generation {self.generation}"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a look at a lock shows. record: None when it was never held; garbled: why it cannot be read."""

    held: bool | None
    record: Record | None = None
    garbled: str = ""


class RunLock:
    """A lock that is held for this host, for as long as `lost` does not return."""

    def __init__(self, path: Path, record: Record, holder: spawn.Process) -> None:
        self.path = path
        self.record = record
        self._holder = holder

    @property
    def held(self) -> bool:
        """Whether the holder lives, as far as the loop has noticed."""
        return not self._holder.ended

    async def lost(self) -> None:
        """Return once it is not held any more, because it was released or its holder was killed."""
        await self._holder.wait()

    async def release(self, timeout_s: float = RELEASE_WITHIN_S) -> None:
        """Let go. Raises RunLockHeld when the holder does not end, as on a datastore that hangs."""
        if not await self._holder.kill(timeout_s):
            raise RunLockHeld(
                f"The run lock {self.path} could not be let go within {timeout_s:g} s.",
                cause="its holder waits for the datastore",
            )

    def close(self) -> None:
        """Watch it no longer; it stays held."""
        self._holder.close()


async def acquire(
    path: Path, record: Record, *, cgroup: Path, state: Path, timeout_s: float = ACQUIRE_WITHIN_S
) -> RunLock:
    """Take the lock for this owner and generation, without waiting for whoever holds it.

    path:   the lock file; its folder exists.
    cgroup: the workload's runner cgroup, in which the holder lives and dies.
    state:  a local file in a folder that exists, by which `adopt` finds the holder.
    Raises RunLockRefused, or RunLockUnavailable when the datastore fails or does not answer in time.
    """
    words = (f"--cgroup={cgroup}", f"--state={state}", "--", str(path), str(record.generation), record.owner)
    try:
        holder, answer = await spawn.start("outlive-runlock", words, timeout_s=timeout_s)
    except (spawn.ProgramSilent, spawn.ProgramFailed) as error:
        raise RunLockUnavailable(f"The run lock {path} could not be taken.", cause=str(error)) from error
    if answer == "HELD":
        return RunLock(path, record, holder)
    if answer.startswith("ERR "):
        raise RunLockUnavailable(f"The run lock {path} could not be taken.", cause=answer.removeprefix("ERR "))
    raise RunLockRefused(path, answer)


async def take_away(path: Path, held_by: Record, taker: str, timeout_s: float = ACQUIRE_WITHIN_S) -> None:
    """Make sure that a host does not hold the lock, and never gets it back at that generation.

    held_by: who has held it, at which generation; a lock that was never that one's proves nothing.
    taker:   who does it; others of the same kind, by what comes before a ':', may have done it before.
    Raises RunLockRefused while it is held, or was another's since; RunLockUnavailable when it cannot be told.
    """
    words = (f"--take-from={held_by.owner}", "--", str(path), str(held_by.generation), taker)
    try:
        _, answer = await spawn.start("outlive-runlock", words, timeout_s=timeout_s)
    except (spawn.ProgramSilent, spawn.ProgramFailed) as error:
        raise RunLockUnavailable(f"The run lock {path} could not be taken away.", cause=str(error)) from error
    if answer.startswith("ERR "):
        raise RunLockUnavailable(f"The run lock {path} could not be taken away.", cause=answer.removeprefix("ERR "))
    if answer != "TAKEN":
        raise RunLockRefused(path, answer)


async def adopt(state: Path, record: Record) -> RunLock | None:
    """Take over the lock that an earlier agent took for this owner and generation; None when it is not held.

    A holder that is not sure to hold it, or holds it for another generation, is ended first.
    """
    found = await asyncio.to_thread(_read_state, state)
    if found is None:
        return None
    identity, path, recorded, held = found
    holder = spawn.Process.adopt(identity)
    if holder is None:
        return None
    lock = RunLock(path, recorded, holder)
    if held and recorded == record:
        return lock
    await lock.release()
    return None


async def probe(path: Path, timeout_s: float = PROBE_WITHIN_S) -> Probe:
    """Look whether a lock is held, and by whom, without taking it. Raises RunLockUnavailable."""
    try:
        _, answer = await spawn.start("outlive-runlock", ("--probe", "--", str(path)), timeout_s=timeout_s)
    except (spawn.ProgramSilent, spawn.ProgramFailed) as error:
        raise RunLockUnavailable(f"The run lock {path} cannot be asked.", cause=str(error)) from error
    word, _, rest = answer.partition(" ")
    match word:
        case "HELD" | "FREE":
            return Probe(word == "HELD", _record(rest))
        case "GARBLED":
            return Probe(None, None, rest)
        case _:
            raise RunLockUnavailable(f"The run lock {path} cannot be asked.", cause=rest)


def _record(text: str) -> Record | None:
    owner, _, generation = text.partition(" ")
    right = generation.isascii() and generation.isdigit() and len(generation) <= GENERATION_DIGITS
    return Record(owner, int(generation)) if right and owner != "?" else None


def _read_state(state: Path) -> tuple[spawn.Identity, Path, Record, bool] | None:
    try:
        told = json.loads(state.read_bytes())
        identity = spawn.Identity(str(told["boot_id"]), int(told["pid"]), int(told["start_ticks"]))
        record = Record(str(told["owner"]), int(told["generation"]))
        return identity, Path(str(told["file"])), record, told["held"] is True
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


_CAUSES = {
    "busy": "it is held by {}",
    "newer": "it was held since by {}",
    "other": "this very generation of it was held by {}",
    "garbled": "{}, and what is damaged is never taken for old",
}
_REMEDIES = {
    "garbled": "make sure that the workload runs on no host, then remove the file",
}
