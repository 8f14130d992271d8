"""Components on one host: content of any kind, named by its BLAKE3 hash, each in a file of its own.

A component is there whole or not at all, whatever is killed when: it is gathered in `incoming/`, checked against its
name, synced, and renamed into place. Who needs components that nothing refers to yet holds them (`holds`) and the
garbage collection leaves them alone; so does whoever has one open. Any number of processes may read and write at once.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import blake3

from outlive.cluster.package import Component

from .collecting import Collected, collect
from .errors import ComponentDamaged, ComponentMissing, damaged
from .files import make_locked, open_file, open_or_make, sync_folder, told, try_lock, write_all
from .holds import Hold
from .incoming import Incoming
from .packing import HEADER_BYTES, Unreadable, open_packed, pack, size_told

CHUNK_BYTES = 1 << 20
PACKED = ".zst"
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_of(content: bytes | BinaryIO) -> str:
    """The name of some content: BLAKE3, 64 hexadecimal digits. A file is read from where it stands to its end."""
    if isinstance(content, bytes):
        return blake3.blake3(content).hexdigest()
    hasher = blake3.blake3()
    while piece := content.read(CHUNK_BYTES):
        hasher.update(piece)
    return hasher.hexdigest()


class Components:
    """The components in a folder. packed: whether what shrinks is kept compressed (zstd); reading does not tell."""

    def __init__(self, folder: Path, *, packed: bool = True) -> None:
        self._folder = folder
        self._packed = packed
        self._content = folder / "components"
        self.incoming = folder / "incoming"

    def prepare(self) -> None:
        """Make the folders. Raises DepotFailed, DepotFull."""
        with told("Making the depot"):
            for folder in (self._content, self.incoming, self._folder / "holds"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def has(self, component: Component) -> bool:
        """Whether it is here, by name and size; what it holds is not looked at (see `verify`)."""
        with told("Looking for a component"):
            path = self._place(component.digest)
            if _is_whole(path, component):
                return True
            with suppress(FileNotFoundError), open(open_file(_packed(path)), "rb") as file:
                return size_told(file.read(HEADER_BYTES)) == component.bytes
        return False

    def missing(self, components: Iterable[Component]) -> tuple[Component, ...]:
        """Those that are not here."""
        return tuple(component for component in components if not self.has(component))

    def hold(self, components: Iterable[Component] = ()) -> Hold:
        """Begin to keep components, also such as are yet to come."""
        self.prepare()
        return Hold(self._folder, (component.digest for component in components))

    def add(self, source: BinaryIO, hold: Hold) -> Component:
        """Take in what a file has from where it stands, and hold it. Raises DepotFull, DepotFailed."""
        self.prepare()
        path = self.incoming / f".{secrets.token_hex(8)}"
        hasher, size = blake3.blake3(), 0
        with told("Storing a component"):
            fd = make_locked(path)
            try:
                while piece := source.read(CHUNK_BYTES):
                    write_all(fd, piece)
                    hasher.update(piece)
                    size += len(piece)
                component = Component(hasher.hexdigest(), size)
                hold.add([component.digest])
                if self.has(component):
                    os.unlink(path)
                else:
                    self.put_in_place(component, path, fd)
                return component
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
            finally:
                os.close(fd)

    def receive(self, component: Component, hold: Hold) -> Incoming:
        """Begin or go on to bring a component, and hold it; while another brings it, from its beginning."""
        if not _DIGEST.fullmatch(component.digest):
            raise ComponentDamaged("A component has a name that is no hash.")
        self.prepare()
        hold.add([component.digest])
        path = self.incoming / component.digest
        with told("Storing a component"):
            fd = open_or_make(path)
            try:
                lasting = try_lock(fd) and _is_still(path, fd)
            except BaseException:
                os.close(fd)
                raise
            if not lasting:
                os.close(fd)
                path = self.incoming / f".{secrets.token_hex(8)}"
                fd = make_locked(path)
        incoming = Incoming(component, path, fd, self.put_in_place, lasting=lasting)
        try:
            incoming.go_on()
        except BaseException:
            incoming.close()
            raise
        return incoming

    def put_in_place(self, component: Component, path: Path, fd: int) -> None:
        """Give what was gathered and checked the name that it has for all; `path` is gone then. Raises OSError."""
        place = self._place(component.digest)
        with suppress(FileExistsError):
            os.mkdir(place.parent, 0o700)
        smaller = self.incoming / f".{secrets.token_hex(8)}"
        if self._packed and pack(fd, component.bytes, smaller):
            os.rename(smaller, _packed(place))
            os.unlink(path)
            with suppress(FileNotFoundError):
                os.unlink(place)  # unpacked it would be found first, and may be damaged
            return
        os.fsync(fd)
        os.rename(path, place)

    def settle(self, components: Iterable[Component]) -> None:
        """Return once these are here for good, also after a power cut. Raises DepotFailed."""
        with told("Storing components"):
            for shard in sorted({self._place(component.digest).parent for component in components}):
                sync_folder(shard)
            sync_folder(self._content)

    def read(self, component: Component, offset: int = 0) -> Iterator[bytes]:
        """Its bytes from an offset on, at most CHUNK_BYTES at a time; whole even if it is collected meanwhile.

        From offset 0 the content is checked, and the last piece comes only if all of it is right.
        Raises ComponentMissing at the first step; ComponentDamaged, DepotFailed.
        """
        with told("Reading a component"), self._open(component) as file:
            hasher, size, before = blake3.blake3(), min(offset, component.bytes), b""
            try:
                if offset:
                    file.seek(size)
                while piece := file.read(min(CHUNK_BYTES, component.bytes + 1 - size)):
                    hasher.update(piece)
                    size += len(piece)
                    if size > component.bytes:
                        break
                    if before:
                        yield before
                    before = piece
            except Unreadable as error:
                raise damaged(component, f"it cannot be unpacked: {error}") from error
            if size != component.bytes or (not offset and hasher.hexdigest() != component.digest):
                raise damaged(component, "its content is another")
            if before:
                yield before

    def verify(self, component: Component) -> bool:
        """Whether it is here and what its name says. Raises DepotFailed when it cannot be read."""
        try:
            for _ in self.read(component):
                pass
        except (ComponentMissing, ComponentDamaged):
            return False
        return True

    def discard(self, component: Component) -> None:
        """Remove one that is damaged, so that it can be brought anew."""
        with told("Removing a component"):
            for path in (self._place(component.digest), _packed(self._place(component.digest))):
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def collect(
        self, needed: Callable[[], Iterable[str]], *, young_s: float = 3600.0, only: frozenset[str] | None = None
    ) -> Collected:
        """Remove what nobody holds and nothing needs.

        needed:  returns the digests to keep. It is called once no new hold can begin before this is done.
        young_s: what came or was appended to this recently stays, so that what broke off can go on.
        only:    look at these alone.
        """
        self.prepare()
        with told("Collecting what is not needed"):
            return collect(self._folder, needed, young_s, only)

    def _place(self, digest: str) -> Path:
        return self._content / digest[:2] / digest

    def _open(self, component: Component) -> BinaryIO:
        path = self._place(component.digest)
        with suppress(FileNotFoundError):
            return _opened(path, component.bytes)
        with suppress(FileNotFoundError):
            return open_packed(_packed(path))
        with suppress(FileNotFoundError):
            return _opened(path)
        raise ComponentMissing(f"The component {component.digest} is not in this depot.")


def _packed(path: Path) -> Path:
    return path.with_name(path.name + PACKED)


def _is_whole(path: Path, component: Component) -> bool:
    """Whether a component's content lies there as it is, by its size."""
    with suppress(FileNotFoundError):
        return os.stat(path, follow_symlinks=False).st_size == component.bytes
    return False


def _opened(path: Path, size: int | None = None) -> BinaryIO:
    """A file, open for reading. size: what it must have. Raises FileNotFoundError, also for one of another size."""
    file = open(open_file(path), "rb")  # noqa: SIM115 – the caller's
    if size is not None and os.fstat(file.fileno()).st_size != size:
        file.close()
        raise FileNotFoundError(path)
    return file


def _is_still(path: Path, fd: int) -> bool:
    """Whether the name still means the file that was opened and locked."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    return False
