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
from types import TracebackType
from typing import BinaryIO, Self

import blake3
import zstandard

from outlive.cluster.package import Component

from .collecting import Collected, collect
from .errors import ComponentDamaged, ComponentMissing
from .files import make_file, open_file, open_or_make, sync_folder, told, try_lock, write_all
from .holds import Hold

CHUNK_BYTES = 1 << 20
SMALLEST_PACKED_BYTES = 4096
PACKED = ".zst"
_SAMPLE_BYTES = 128 << 10
_WORTH_PACKING = 0.8
_LEVEL = 3
_WINDOW_BYTES = 8 << 20
_HEADER_BYTES = 18  # the longest that a zstd frame's header can be
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_of(content: bytes | BinaryIO) -> str:
    """The name of some content: BLAKE3, 64 hexadecimal digits. A file is read from where it stands to its end."""
    if isinstance(content, bytes):
        return blake3.blake3(content).hexdigest()
    hasher = blake3.blake3()
    while piece := content.read(CHUNK_BYTES):
        hasher.update(piece)
    return hasher.hexdigest()


class Incoming:
    """A component that is being brought: append to it, then `finish`. After a crash it goes on where it was.

    offset: how many bytes are here already; the next to append is that one.
    """

    def __init__(self, store: "Components", component: Component, path: Path, fd: int, *, lasting: bool) -> None:
        self.component = component
        self.offset = 0
        self._store = store
        self._path = path
        self._fd = fd
        self._lasting = lasting
        self._hasher = blake3.blake3()

    def append(self, raw: bytes) -> None:
        """Add what comes next. Raises ComponentDamaged beyond the component's size, DepotFull, DepotFailed."""
        if self.offset + len(raw) > self.component.bytes:
            self._forget()
            raise _not_what_it_is_called(self.component, "it is longer than it should be")
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
            raise _not_what_it_is_called(self.component, f"only {self.offset} bytes of it came")
        if self._hasher.hexdigest() != self.component.digest:
            self._forget()
            raise _not_what_it_is_called(self.component, "its content is another")
        with told("Storing a component"):
            self._store.put_in_place(self.component, self._path, self._fd)
        self._lasting = True
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
            while piece := os.read(self._fd, CHUNK_BYTES):
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
            with suppress(FileNotFoundError):
                return os.stat(path).st_size == component.bytes
            with suppress(FileNotFoundError), open(open_file(_packed(path)), "rb") as file:
                return _size_told(file.read(_HEADER_BYTES)) == component.bytes
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
            fd = make_file(path)
            try:
                try_lock(fd)
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
            lasting = try_lock(fd) and _is_still(path, fd)
            if not lasting:
                os.close(fd)
                path = self.incoming / f".{secrets.token_hex(8)}"
                fd = make_file(path)
                try_lock(fd)
        incoming = Incoming(self, component, path, fd, lasting=lasting)
        incoming.go_on()
        return incoming

    def put_in_place(self, component: Component, path: Path, fd: int) -> None:
        """Give what was gathered and checked the name that it has for all; `path` is gone then. Raises OSError."""
        place = self._place(component.digest)
        with suppress(FileExistsError):
            os.mkdir(place.parent, 0o700)
        smaller = self._pack(component, fd) if self._packed else None
        if smaller is not None:
            os.rename(smaller, _packed(place))
            os.unlink(path)
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
            if offset:
                file.seek(min(offset, component.bytes))
            hasher, size, before = blake3.blake3(), min(offset, component.bytes), b""
            try:
                while piece := file.read(min(CHUNK_BYTES, component.bytes + 1 - size)):
                    hasher.update(piece)
                    size += len(piece)
                    if size > component.bytes:
                        break
                    if before:
                        yield before
                    before = piece
            except zstandard.ZstdError as error:
                raise _not_what_it_is_called(component, f"it cannot be unpacked: {error}") from error
            if size != component.bytes or (not offset and hasher.hexdigest() != component.digest):
                raise _not_what_it_is_called(component, "its content is another")
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
            return open(open_file(path), "rb")
        try:
            fd = open_file(_packed(path))
        except FileNotFoundError:
            raise ComponentMissing(f"The component {component.digest} is not in this depot.") from None
        unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        return unpacker.stream_reader(open(fd, "rb"), closefd=True)

    def _pack(self, component: Component, fd: int) -> Path | None:
        """Write what was gathered once more, smaller, synced and beside it; None when that is not worth it."""
        sample = os.pread(fd, _SAMPLE_BYTES, 0)
        packer = zstandard.ZstdCompressor(level=_LEVEL)
        if component.bytes < SMALLEST_PACKED_BYTES or len(packer.compress(sample)) > _WORTH_PACKING * len(sample):
            return None
        path = self.incoming / f".{secrets.token_hex(8)}"
        into = make_file(path)
        try:
            try_lock(into)
            os.lseek(fd, 0, os.SEEK_SET)
            with open(fd, "rb", closefd=False) as source, open(into, "wb", closefd=False) as target:
                packer.copy_stream(source, target, size=component.bytes)
            os.fsync(into)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(into)
        return path


def _packed(path: Path) -> Path:
    return path.with_name(path.name + PACKED)


def _size_told(header: bytes) -> int:
    """The size of the content that a packed component's first bytes tell; -1 when they tell none."""
    try:
        size = zstandard.get_frame_parameters(header).content_size
    except zstandard.ZstdError:
        return -1
    return int(size)


def _is_still(path: Path, fd: int) -> bool:
    """Whether the name still means the file that was opened and locked."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    return False


def _not_what_it_is_called(component: Component, why: str) -> ComponentDamaged:
    return ComponentDamaged(f"The component {component.digest} is not what its name says.", cause=why)
