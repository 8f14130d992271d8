"""Reading what modules wrote: the last lines in order of time, and each new one as it comes.

The runner writes `<unix_ms> o|e <text>` and rotates FILE to FILE.1 and so on; here files are only read. A
line that is not whole yet is not there yet, and one that is none (a disk that lost power) is passed over. The
functions that read block, so the agent has them called in a thread.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

POLL_S = 0.15
BLOCK_BYTES = 64 * 1024
MOST_AT_ONCE_BYTES = 1024 * 1024
MOST_FILES = 32

_STREAMS: Mapping[bytes, str] = {b"o": "out", b"e": "err"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a module wrote. stream: out or err."""

    unix_ms: int
    module: str
    stream: str
    text: str


def parsed(module: str, line: bytes) -> LogLine | None:
    """Read one line of a log, without its newline; None when it is none."""
    stamp, _, rest = line.partition(b" ")
    stream, space, text = rest.partition(b" ")
    if not (stamp.isdigit() and len(stamp) < 16 and space and stream in _STREAMS):
        return None
    return LogLine(int(stamp), module, _STREAMS[stream], text.decode(errors="replace"))


def last_lines(path: Path, module: str, count: int) -> list[LogLine]:
    """The last `count` lines of a log and its older files, oldest first. Blocks."""
    found: list[LogLine] = []
    for number in range(MOST_FILES):
        file = path if number == 0 else path.with_name(f"{path.name}.{number}")
        try:
            for line in _backwards(file):
                if len(found) >= count:
                    return found[::-1]
                if (told := parsed(module, line)) is not None:
                    found.append(told)
        except OSError:
            break
    return found[::-1]


def _backwards(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, the last one first."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        kept = b""
        whole = False
        while at > 0:
            size = min(BLOCK_BYTES, at)
            at -= size
            file.seek(at)
            first, *lines = (file.read(size) + kept).split(b"\n")
            for line in reversed(lines):
                if whole:
                    yield line
                whole = True
            kept = first
        if whole and kept:
            yield kept


class Follower:
    """Reads one log on from where it ends now, or from its beginning, through rotations."""

    def __init__(self, path: Path, module: str, *, from_start: bool = False) -> None:
        self._path = path
        self._module = module
        self._descriptor = -1
        self._rest = b""
        if not from_start:
            self._open()
            if self._descriptor >= 0:
                os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self) -> list[LogLine]:
        """The lines that have come since, a bounded number of them. Blocks."""
        if self._descriptor < 0:
            self._open()
        lines = self._read_some()
        if not lines and self._was_rotated():
            # What came between the last look and the rotation is still read from the old file.
            lines = self._read_some()
            if not lines:
                self.close()
                self._open()
                lines = self._read_some()
        return lines

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._rest = b""

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            self._descriptor = -1

    def _read_some(self) -> list[LogLine]:
        if self._descriptor < 0:
            return []
        *lines, self._rest = (self._rest + os.read(self._descriptor, MOST_AT_ONCE_BYTES)).split(b"\n")
        return [told for line in lines if (told := parsed(self._module, line)) is not None]

    def _was_rotated(self) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        here = os.fstat(self._descriptor) if self._descriptor >= 0 else None
        if (
            here is not None
            and here.st_ino == there.st_ino
            and there.st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR)
        ):
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # emptied in place
            self._rest = b""
        return here is None or (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)


def log_path(folder: Path, workload: str, module: str) -> Path:
    """Where the log of a module is kept, below the folder for logs."""
    return folder / workload / f"{module}.log"


def logged_modules(folder: Path, workload: str) -> tuple[str, ...]:
    """The modules of a workload that ever wrote a log here."""
    return tuple(sorted(path.name.removesuffix(".log") for path in (folder / workload).glob("*.log")))


async def read(
    folder: Path, workload: str, modules: Sequence[str], lines: int, *, follow: bool
) -> AsyncIterator[LogLine]:
    """The last `lines` lines of these modules (none named: of all) in order of time, then each new one if
    `follow`.

    folder: where logs are kept. Modules that begin to write later are followed too.
    """
    followers: dict[str, Follower] = {}

    def look(first: bool) -> None:
        for module in modules or logged_modules(folder, workload):
            if module not in followers:
                path = log_path(folder, workload, module)
                followers[module] = Follower(path, module, from_start=not first)

    def past() -> list[LogLine]:
        look(first=True)
        each = [last_lines(log_path(folder, workload, module), module, lines) for module in followers]
        return list(merge(*each, key=lambda line: line.unix_ms))[-lines:] if lines else []

    def news() -> list[LogLine]:
        look(first=False)
        return sorted((line for each in followers.values() for line in each.read()), key=lambda line: line.unix_ms)

    try:
        for line in await asyncio.to_thread(past):
            yield line
        while follow:
            for line in await asyncio.to_thread(news):
                yield line
            await asyncio.sleep(POLL_S)
    finally:
        for each in followers.values():
            each.close()
