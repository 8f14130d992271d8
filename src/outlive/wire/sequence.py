"""The numbers that a host gives to everything it says: they only grow, over crashes and reboots too.

A block of numbers is reserved in a small synced file before the first of them is used, so that a crash may
skip numbers and never repeats one. Numbers start at the wall clock's microseconds: a file that was lost,
damaged or brought back from an old snapshot of the machine is overtaken by the clock, unless the clock was set
back.
"""

import asyncio
import os
import zlib
from enum import StrEnum
from pathlib import Path

import structlog

from outlive.errors import Failed

from .record import MOST_SEQUENCE

BLOCK = 1 << 20
LOOK_EVERY_S = 1.0

_MOST_FILE_BYTES = 256
_HEAD = "outlive-sequence 1"

_log = structlog.get_logger()


class Origin(StrEnum):
    """Where the first number came from: the file as it was, or the clock because the file was …"""

    CONTINUED = "continued"
    ABSENT = "absent"
    DAMAGED = "damaged"


class SequenceUnwritable(Failed):
    """No number can be given out, because none can be reserved on disk."""

    id = "sequence.unwritable"

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(
            f"This host's heartbeat sequence cannot be kept in {path}.",
            cause=cause,
            remedy="make the agent's data folder writable, with free space",
        )


class Sequences:
    """Gives out the host's sequence numbers. One agent at a time uses a file.

    path: the file.  wall_us: the wall clock in microseconds, where numbers start if the file gives less.
    Opening it blocks for one synced write; raises SequenceUnwritable.
    """

    def __init__(self, path: Path, wall_us: int) -> None:
        self._path = path
        stored, self.origin = _read(path)
        self._next = max(stored, min(wall_us, MOST_SEQUENCE // 2), 1)
        self._limit = self._next
        self.reserve()
        if self.origin is not Origin.CONTINUED:
            log = _log.warning if self.origin is Origin.DAMAGED else _log.info
            log("sequence.begun", path=str(path), file=self.origin.value, continues_at=self._next)

    @property
    def last(self) -> int:
        """The number given out last (or a smaller one than the first to come)."""
        return self._next - 1

    @property
    def low(self) -> bool:
        """Whether it is time to reserve: half of a block is used up."""
        return self._limit - self._next < BLOCK // 2

    def next(self) -> int:
        """A number higher than all before, without touching the disk. SequenceUnwritable if none is left."""
        if self._next >= self._limit:
            raise SequenceUnwritable(self._path, "all numbers reserved there are used up")
        number = self._next
        self._next += 1
        return number

    def reserve(self) -> None:
        """Make the numbers of one more block durable; blocks on the disk, so not for the agent's loop."""
        limit = self._next + BLOCK
        try:
            _write(self._path, limit)
        except OSError as error:
            raise SequenceUnwritable(self._path, error.strerror or str(error)) from error
        self._limit = limit

    def raise_to(self, number: int) -> None:
        """Go on above `number`, which somebody has heard of this host already; blocks on the disk.

        It heals the one case that the clock cannot: file lost and clock set back.
        """
        if self._next <= number < MOST_SEQUENCE - BLOCK:
            _log.warning("sequence.raised", path=str(self._path), before=self._next, to=number + 1)
            self._next = self._limit = number + 1
            self.reserve()

    async def keep_reserved(self) -> None:
        """Reserve in time, in a thread, until cancelled. A failure is told once and tried again."""
        told = False
        while True:
            if self.low:
                try:
                    await asyncio.to_thread(self.reserve)
                    told = False
                except SequenceUnwritable as error:
                    if not told:
                        _log.error("sequence.reserve_failed", path=str(self._path), because=error.cause)
                    told = True
            await asyncio.sleep(LOOK_EVERY_S)


def _read(path: Path) -> tuple[int, Origin]:
    """The first number that was never reserved, as far as the file knows."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_FILE_BYTES)
    except FileNotFoundError:
        return 0, Origin.ABSENT
    except OSError as error:
        raise SequenceUnwritable(path, error.strerror or str(error)) from error
    try:
        head, number, check = raw.decode("ascii").splitlines()
        limit = int(number)
        sound = head == _HEAD and 0 < limit <= MOST_SEQUENCE and check == _check(limit)
    except ValueError:
        sound = False
    return (limit, Origin.CONTINUED) if sound else (0, Origin.DAMAGED)


def _write(path: Path, limit: int) -> None:
    beside = path.with_name(path.name + ".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{_HEAD}\n{limit}\n{_check(limit)}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(limit: int) -> str:
    return f"{zlib.crc32(f'{_HEAD} {limit}'.encode()):08x}"
