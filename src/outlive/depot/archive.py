"""A package as one file, `NAME-VERSION.tar.zst`, which is how packages are pushed and carried about.

It is a tar archive (POSIX ustar), so that anybody can look into it, compressed with zstd: `manifest.json` comes first,
and then each component once, as `components/DIGEST`, in the order of the digests. The reader takes this and nothing
else: a member's header has to be, byte for byte, the one that its name and size give. So whatever an archive says can
neither name a file outside of the depot, nor be larger than its manifest says, nor become a link, a device or anything
but content that was checked against its hash.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, cast

import blake3
import zstandard

from outlive.cluster.package import MOST_FILES, MOST_PACKAGE_BYTES, Component, Manifest
from outlive.config.problems import printable

from .components import CHUNK_BYTES
from .errors import ComponentDamaged, PackageInvalid
from .package import MOST_MANIFEST_BYTES, manifest_bytes, package_id, read_manifest
from .shelf import Reception, Shelf

SUFFIX = ".tar.zst"
MANIFEST = "manifest.json"
COMPONENTS = "components/"
_LEVEL = 6
_WINDOW_BYTES = 8 << 20
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "a long name",
    b"K": "a long link",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may bring: files, and bytes of their content together."""

    files: int = MOST_FILES
    bytes: int = MOST_PACKAGE_BYTES


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int, /) -> bytes: ...


def archive_name(manifest: Manifest) -> str:
    """What a package's archive is called: NAME-VERSION.tar.zst."""
    return f"{manifest.name}-{manifest.version}{SUFFIX}"


def write_archive(shelf: Shelf, id: str, target: BinaryIO) -> None:
    """Write a package on the shelf as an archive; the same package gives the same bytes.

    Raises PackageMissing, ComponentMissing, ComponentDamaged, OSError of the target.
    """
    for piece in archive_pieces(shelf, id):
        target.write(piece)


def archive_pieces(shelf: Shelf, id: str) -> Iterator[bytes]:
    """The same, piece by piece, for whoever sends it. Raises at the first step what is known by then."""
    manifest = shelf.manifest(id)
    packer = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    with shelf.components.hold(manifest.components):
        for piece in _tar_pieces(shelf, manifest):
            if packed := packer.compress(piece):
                yield packed
        yield packer.flush()


def build_archive(folder: Path, target: BinaryIO, *, within: Path | None = None) -> Manifest:
    """Make an archive of a folder with a package.toml, without a shelf. Raises as `Shelf.build`.

    within: where to put what is needed for a while; None: the system's folder for such.
    """
    with tempfile.TemporaryDirectory(prefix="outlive-package-", dir=within) as passing:
        shelf = Shelf(Path(passing))
        manifest = shelf.build(folder)
        write_archive(shelf, package_id(manifest), target)
        return manifest


def read_archive(
    source: Readable,
    shelf: Shelf,
    limits: Limits = Limits(),
    known: Callable[[Manifest], object] = lambda manifest: None,
) -> Manifest:
    """Put an archive's package on the shelf, in one pass and with little memory.

    source: anything with `read(n)`; it need not seek.  known: told which package it is, before anything of it is here.
    Raises PackageInvalid for any archive that is not whole and right, with nothing of it left; DepotFull, DepotFailed.
    """
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    with unpacker.stream_reader(cast(BinaryIO, source), read_across_frames=True, closefd=False) as stream:
        members = _Members(stream)
        manifest = _manifest(members, limits)
        known(manifest)
        with shelf.receive(manifest) as reception:
            try:
                for component in manifest.components:
                    _take_in(members, component, reception)
                members.end()
                reception.finish()
            except ComponentDamaged as error:
                reception.discard()
                raise _refused(f"{error.sentence[:-1]}: {error.cause}.") from error
            except BaseException:
                reception.discard()
                raise
    return manifest


def _manifest(members: "_Members", limits: Limits) -> Manifest:
    manifest = read_manifest(members.whole(MANIFEST, MOST_MANIFEST_BYTES))
    if len(manifest.files) > limits.files:
        _refuse(f"It has {len(manifest.files)} files; at most {limits.files} are taken.")
    if manifest.bytes > limits.bytes:
        _refuse(f"Its files are {manifest.bytes} bytes; at most {limits.bytes} are taken.")
    return manifest


def _take_in(members: "_Members", component: Component, reception: Reception) -> None:
    members.begin(COMPONENTS + component.digest, component.bytes)
    if reception.is_here(component):
        hasher = blake3.blake3()
        for piece in members.content(component.bytes):
            hasher.update(piece)
        if hasher.hexdigest() != component.digest:
            _refuse(f"The component {component.digest} is not what its name says.")
        return
    with reception.receive(component) as incoming:
        incoming.begin_anew()
        for piece in members.content(component.bytes):
            incoming.append(piece)
        incoming.finish()


class _Members:
    """The members of a tar archive that is to be just so."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def whole(self, name: str, most_bytes: int) -> bytes:
        """The content of the next member, whose size is not known."""
        header = self._exactly(_BLOCK)
        size = _size_told(header)
        if size > most_bytes:
            _refuse(f"Its {name} is longer than {most_bytes} bytes.")
        _compare(header, name, size)
        return b"".join(self.content(size))

    def begin(self, name: str, size: int) -> None:
        """Come to the next member, which must be this one."""
        _compare(self._exactly(_BLOCK), name, size)

    def content(self, size: int) -> Iterator[bytes]:
        """The content of the member that was begun, and what fills it up to its last block."""
        for begin in range(0, size, CHUNK_BYTES):
            yield self._exactly(min(CHUNK_BYTES, size - begin))
        if any(self._exactly(-size % _BLOCK)):
            _refuse("Something stands between its members.")

    def end(self) -> None:
        """Come to the end, behind which there is nothing."""
        for _ in range(len(_END) // _BLOCK):
            header = self._exactly(_BLOCK)
            if any(header):
                _refuse(f"It has a member that is not in its manifest: {_told(header)}.")
        if self._read(1):
            _refuse("Something stands behind its end.")

    def _exactly(self, size: int) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left:
            piece = self._read(left)
            if not piece:
                _refuse("It ends too early: it is not whole.")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise _refused(f"It cannot be unpacked: {printable(str(error))}.") from error


def _tar_pieces(shelf: Shelf, manifest: Manifest) -> Iterator[bytes]:
    raw = manifest_bytes(manifest)
    yield _header(MANIFEST, len(raw)) + raw + bytes(-len(raw) % _BLOCK)
    for component in manifest.components:
        yield _header(COMPONENTS + component.digest, component.bytes)
        yield from shelf.components.read(component)
        yield bytes(-component.bytes % _BLOCK)
    yield _END


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def _size_told(header: bytes) -> int:
    """The size in a header; 0 where there is none, which the comparison of the whole will tell."""
    digits = header[124:135]
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else 0


def _compare(header: bytes, name: str, size: int) -> None:
    """Refuse a member that is any other than this one, by what is different."""
    if header == _header(name, size):
        return
    if not any(header):
        _refuse(f"It lacks {name}.")
    if header[257:262] != b"ustar":
        _refuse("It is no tar archive.")
    found, kind = header[:100].rstrip(b"\0"), header[156:157]
    if found != name.encode():
        _refuse(f"It has {_told(header)} where {name} should be.")
    if kind in _KINDS:
        _refuse(f"It has {_told(header)}; a package has files alone.")
    if _size_told(header) != size:
        _refuse(f"It has {name} in another size than its manifest says.")
    _refuse(f"It has {name} with other permissions, owner, time or kind than a package's archive has.")


def _told(header: bytes) -> str:
    """A member, by its kind and name, fit to be shown."""
    kind = _KINDS.get(header[156:157], "a file")
    name = printable(header[:100].rstrip(b"\0").decode(errors="replace"))
    return f"{kind} '{name}'" if name else kind


def _refuse(why: str) -> NoReturn:
    raise _refused(why)


def _refused(why: str) -> PackageInvalid:
    return PackageInvalid(
        "The archive is no package.", cause=why, remedy="make it anew with `outlive package`, or bring it again whole"
    )
