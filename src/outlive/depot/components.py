"""Components on one host: content of any kind, named by its BLAKE3 hash, each in a file of its own.

A component is there whole or not at all, whatever is killed when: it is gathered in `incoming/`, checked against its
name, synced, and renamed into place. Who needs components that nothing refers to yet holds them (`Hold`) and the
garbage collection leaves them alone; so does whoever has one open. Any number of processes may read and write at once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from outlive.cluster.package import Component

CHUNK_BYTES = 1 << 20


def digest_of(content: bytes | BinaryIO) -> str:
    """The name of some content: BLAKE3, 64 hexadecimal digits. A file is read from where it stands to its end."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Collected:
    """What a garbage collection removed, and how much room that made."""

    removed: int
    bytes: int


class Incoming:
    """A component that is being brought: append to it, then `finish`. After a crash it goes on where it was.

    offset: how many bytes are here already; the next to append is that one.
    """

    component: Component
    offset: int

    def append(self, raw: bytes) -> None:
        """Add what comes next. Raises ComponentDamaged beyond the component's size, DepotFull, DepotFailed."""
        raise NotImplementedError

    def finish(self) -> None:
        """Check it against its name, make it durable and put it in its place.

        Raises ComponentDamaged when it is not what its name says, and forgets what was gathered; DepotFull,
        DepotFailed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Leave it as far as it is, to go on later."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Hold:
    """Keeps components from being collected until it is released, or its process ends."""

    def add(self, components: Iterable[Component]) -> None:
        """Keep these too, whether they are here yet or not."""
        raise NotImplementedError

    def release(self) -> None:
        """Keep them no longer."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Components:
    """The components in a folder. packed: whether what shrinks is kept compressed (zstd); reading does not tell."""

    def __init__(self, folder: Path, *, packed: bool = True) -> None:
        raise NotImplementedError

    def has(self, component: Component) -> bool:
        """Whether it is here; what it holds is not looked at (see `verify`)."""
        raise NotImplementedError

    def missing(self, components: Iterable[Component]) -> tuple[Component, ...]:
        """Those that are not here."""
        raise NotImplementedError

    def hold(self, components: Iterable[Component] = ()) -> Hold:
        """Begin to keep components, also such as are yet to come."""
        raise NotImplementedError

    def add(self, source: BinaryIO, hold: Hold) -> Component:
        """Take in what a file has from where it stands, and hold it. Raises DepotFull, DepotFailed."""
        raise NotImplementedError

    def receive(self, component: Component, hold: Hold) -> Incoming:
        """Begin or go on to bring a component, and hold it. Raises DepotBusy while somebody else brings it."""
        raise NotImplementedError

    def read(self, component: Component, offset: int = 0) -> Iterator[bytes]:
        """Its bytes from an offset on, at most CHUNK_BYTES at a time; whole even if it is collected meanwhile.

        From offset 0 the content is checked, and the last piece comes only if all of it is right.
        Raises ComponentMissing, ComponentDamaged, at the first step.
        """
        raise NotImplementedError

    def verify(self, component: Component) -> bool:
        """Whether it is here and what its name says. Raises DepotFailed when it cannot be read."""
        raise NotImplementedError

    def discard(self, component: Component) -> None:
        """Remove one that is damaged, so that it can be brought anew."""
        raise NotImplementedError

    def collect(self, needed: Callable[[], Iterable[str]], *, young_s: float = 3600.0) -> Collected:
        """Remove what nobody holds and nothing needs.

        needed:  returns the digests to keep. It is called once no new hold can begin before this is done.
        young_s: what came or was appended to this recently stays, so that what broke off can go on.
        """
        raise NotImplementedError
