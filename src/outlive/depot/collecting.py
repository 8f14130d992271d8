"""Garbage collection of components: removes what no package here needs, nobody holds and nobody is bringing.

While it runs no hold begins or grows, so it knows all there is to know when it begins to remove. It takes moments:
names are compared, nothing is read.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .files import locked, open_file, try_lock
from .holds import COLLECTING, HOLDS

_NAMELESS_S = 60.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a garbage collection removed, and how much room that made."""

    removed: int
    bytes: int


def collect(
    depot: Path, needed: Callable[[], Iterable[str]], young_s: float, only: frozenset[str] | None = None
) -> Collected:
    """See `Components.collect`. Raises OSError, DepotBusy."""
    removed = freed = 0
    with locked(depot / COLLECTING, "The depot"):
        # In this order: a hold that is gone by now has put what it held on the shelf before.
        held = frozenset(_held(depot / HOLDS))
        kept = held | frozenset(needed())
        useless = [path for path in _files(depot / "components") if path.name.partition(".")[0] not in kept]
        broken_off = [path for path in _abandoned(depot / "incoming") if path.name not in held]
        for path in (*useless, *broken_off):
            if only is not None and path.name.partition(".")[0] not in only:
                continue
            with suppress(FileNotFoundError):
                seen = os.stat(path, follow_symlinks=False)
                # One without a name of its own yet may have been made a moment ago, and not be locked yet.
                least_s = max(young_s, _NAMELESS_S) if path.name.startswith(".") else young_s
                if 0 <= time.time() - seen.st_mtime < least_s:
                    continue
                os.unlink(path)
                removed += 1
                freed += seen.st_size
    return Collected(removed, freed)


def _files(content: Path) -> Iterator[Path]:
    for shard in os.listdir(content):
        for name in os.listdir(content / shard):
            yield content / shard / name


def _abandoned(incoming: Path) -> Iterator[Path]:
    """What lies half brought and nobody brings any more."""
    for name in os.listdir(incoming):
        path = incoming / name
        if _is_free(path):
            yield path


def _held(holds: Path) -> Iterator[str]:
    for name in os.listdir(holds):
        path = holds / name
        if _is_free(path):
            with suppress(FileNotFoundError):
                os.unlink(path)
            continue
        with suppress(FileNotFoundError):
            yield from path.read_text(encoding="ascii", errors="replace").split()


def _is_free(path: Path) -> bool:
    """Whether nobody has the file locked."""
    try:
        fd = open_file(path)
    except OSError:
        return False
    try:
        return try_lock(fd)
    finally:
        os.close(fd)
