"""A component on its way into the depot: appended to, left, gone on with, and checked before it gets its name.

What is gathered lies in a file of its own, locked while somebody brings it. What was gathered before counts only for
as much as it is: all of it goes into the hash that decides in the end.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import blake3

from outlive.cluster.package import Component

from .errors import damaged
from .files import room_for, told, write_all

_READ_BYTES = 1 << 20

Place = Callable[[Component, Path, int], None]
"""Gives a file that was gathered and checked, and is open, its name for all. Raises OSError."""


class Incoming:
    """A component that is being brought: append to it, then `finish`. After a crash it goes on where it was.

    offset: how many bytes are here already; the next to append is that one.
    """

    def __init__(self, component: Component, path: Path, fd: int, place: Place, *, lasting: bool) -> None:
        self.component = component
        self.offset = 0
        self._place = place
        self._path = path
        self._fd = fd
        self._lasting = lasting
        self._hasher = blake3.blake3()

    def append(self, raw: bytes) -> None:
        """Add what comes next. Raises ComponentDamaged beyond the component's size, DepotFull, DepotFailed."""
        if self.offset + len(raw) > self.component.bytes:
            self._forget()
            raise damaged(self.component, "it is longer than it should be")
        # Whoever began at the same time found the same room.
        room_for(self._fd, len(raw), "Storing a component")
        with told("Storing a component"):
            write_all(self._fd, raw)
        self._hasher.update(raw)
        self.offset += len(raw)

    def finish(self) -> None:
        """Check it against its name and put it in its place; it is there for good once `Components.settle` returned.

        Raises ComponentDamaged when it is not what its name says, and forgets what was gathered; DepotFull,
        DepotFailed.
        """
        if self.offset != self.component.bytes:
            self._forget()
            raise damaged(self.component, f"only {self.offset} bytes of it came")
        if self._hasher.hexdigest() != self.component.digest:
            self._forget()
            raise damaged(self.component, "its content is another")
        with told("Storing a component"):
            self._place(self.component, self._path, self._fd)
        self._lasting = True  # in its place
        self.close()

    def close(self) -> None:
        """Leave it as far as it is, to go on later."""
        if self._fd >= 0:
            if not self._lasting:
                with suppress(OSError):
                    os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1

    def begin_anew(self) -> None:
        """Forget what was gathered before, where the bringer cannot begin at `offset`."""
        with told("Storing a component"):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher, self.offset = blake3.blake3(), 0

    def go_on(self) -> None:
        """Count what was gathered before."""
        with told("Storing a component"):
            os.lseek(self._fd, 0, os.SEEK_SET)
            while piece := os.read(self._fd, _READ_BYTES):
                self._hasher.update(piece)
                self.offset += len(piece)
        if self.offset > self.component.bytes:
            self.begin_anew()

    def _forget(self) -> None:
        self._lasting = False
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
