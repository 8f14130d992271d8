"""Holds: who needs which components, for as long as it lives.

A hold is a locked file with digests in `holds/`. The lock ends with its process, so what a killed one held is free
again. Digests are written down only while no collection runs, so that a collection sees all that is held.
"""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .files import locked, make_locked, told, write_all

COLLECTING = "collecting.lock"
HOLDS = "holds"
_WHO = "The depot's collection"


class Hold:
    """Keeps components from being collected until it is released, or its process ends."""

    def __init__(self, depot: Path, digests: Iterable[str] = ()) -> None:
        self._lock = depot / COLLECTING
        self._path = depot / HOLDS / secrets.token_hex(8)
        self._held: set[str] = set()
        with told("Holding components"), locked(self._lock, _WHO, shared=True):
            self._fd = make_locked(self._path)
        try:
            self.add(digests)
        except BaseException:
            self.release()
            raise

    def add(self, digests: Iterable[str]) -> None:
        """Keep these too, whether they are here yet or not. Raises DepotBusy, DepotFull, DepotFailed."""
        new = set(digests) - self._held
        if not new:
            return
        with told("Holding components"), locked(self._lock, _WHO, shared=True):
            write_all(self._fd, "".join(f"{digest}\n" for digest in sorted(new)).encode())
        self._held |= new

    def release(self) -> None:
        """Keep them no longer."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
