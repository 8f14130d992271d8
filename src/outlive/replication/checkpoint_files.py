"""Files of a checkpoint folder: opened without following links, replaced whole, synced, and which layers a disk has.

Small acts on one file each. Which files a checkpoint consists of, and in which order they come and go, is in
`checkpoint_folder` and `checkpoint_keeping`.
"""

import ctypes
import errno
import hashlib
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

import zstandard

from .checkpoint import DataFile, DiskChain, DiskLayer
from .checkpoint_errors import CheckpointDamaged

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_QCOW2 = struct.Struct(">4sIQIIQ")  # magic, version, where the backing file's name is, its length, cluster bits, size
_QCOW2_MAGIC = b"QFI\xfb"
_MOST_BACKING_BYTES = 1023
_STREAM_MAGIC = b"QEVM"
_PUNCH_HOLE = 0x02 | 0x01  # and keep the size

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

MOST_STREAM_BYTES = 80 << 20


def open_file(path: Path) -> int:
    """Open a regular file for reading; no link, pipe or device in its place. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | _OPEN)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def make_file(path: Path) -> int:
    """Make a file that is not there yet and open it for writing and reading."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)


def read_whole(path: Path, most_bytes: int) -> bytes | None:
    """A file's bytes, at most most_bytes + 1 of them; None when there is none. Raises OSError."""
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return file.read(most_bytes + 1)


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file so that a reader finds the old or the new one, whole, and it is durable when this returns."""
    beside = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        beside.unlink()
    fd = make_file(beside)
    with open(fd, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(fd)
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable, where the file system knows how."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


def write_state(path: Path, stream: bytes) -> DataFile:
    """Write the device state, packed and synced; return what the manifest says of it."""
    raw = zstandard.ZstdCompressor(level=3).compress(stream)
    fd = make_file(path)
    with open(fd, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(fd)
    return DataFile(path.name, len(raw), hashlib.blake2b(raw, digest_size=32).hexdigest())


def read_state(folder: Path, told: DataFile) -> bytes:
    """The device state, checked and unpacked: a migration stream without memory. Raises CheckpointDamaged."""
    try:
        raw = read_whole(folder / told.name, MOST_STREAM_BYTES) or b""
        if len(raw) != told.bytes or hashlib.blake2b(raw, digest_size=32).hexdigest() != told.digest:
            raise CheckpointDamaged(f"{told.name} is not what was written.")
        if not 0 <= zstandard.frame_content_size(raw) <= MOST_STREAM_BYTES:  # so much would be made room for
            raise CheckpointDamaged(f"{told.name} is larger than any device state.")
        stream = zstandard.ZstdDecompressor().decompress(raw)
    except (OSError, zstandard.ZstdError) as error:
        raise CheckpointDamaged(f"{told.name} cannot be read.", cause=str(error)) from error
    if stream[: len(_STREAM_MAGIC)] != _STREAM_MAGIC:
        raise CheckpointDamaged(f"{told.name} does not begin as a migration stream.")
    return stream


def make_hole(fd: int, size: int) -> None:
    """Make all of a file in memory read as zeros, at once, even while others have it mapped. Raises OSError."""
    if _libc.fallocate(fd, _PUNCH_HOLE, 0, size):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def remove_tree(folder: Path) -> None:
    """Remove a checkpoint's folder with the files in it; one that is gone already is fine. Raises OSError."""
    with suppress(FileNotFoundError):
        for entry in sorted(os.listdir(folder), key=lambda name: name != "manifest.json"):
            with suppress(FileNotFoundError):
                (folder / entry).unlink()
        folder.rmdir()


def disk_problem(datastore: Path, disk: DiskChain) -> str:
    """What is wrong with a disk's layers as far as their headers tell; '' for nothing."""
    paths = [datastore / layer.path for layer in disk.layers]
    for number, (layer, path) in enumerate(zip(disk.layers, paths, strict=True)):
        try:
            size, backing = _header(path, layer)
        except (OSError, ValueError) as error:
            return f"disk {disk.name}: {layer.path}: {error}"
        if layer.format == "qcow2" and size != disk.size_bytes:
            return f"disk {disk.name}: {layer.path} has {size} bytes, not {disk.size_bytes}"
        # A merge under way may already have left out layers between this one and the one that it names.
        below = {os.path.normpath(below) for below in paths[:number]}
        if (backing is None) != (number == 0) or (
            backing is not None and os.path.normpath(path.parent / backing) not in below
        ):
            return f"disk {disk.name}: {layer.path} does not lie on the layer that it should ({backing})"
    return ""


def backing_name(above: Path, below: Path) -> str:
    """How one layer names the one below it, so that it is found wherever the datastore is mounted."""
    return os.path.relpath(below, above.parent)


def layer_of(datastore: Path, path: Path, format_: str) -> DiskLayer:
    """A layer by its absolute path. ValueError when it is not on the datastore."""
    return DiskLayer(Path(os.path.normpath(path)).relative_to(os.path.normpath(datastore)).as_posix(), format_)


def _header(path: Path, layer: DiskLayer) -> tuple[int, str | None]:
    """Size, and what it lies on. A raw file tells neither, and is bottom by nature."""
    fd = open_file(path)
    try:
        if layer.format == "raw":
            return os.fstat(fd).st_size, None
        raw = os.pread(fd, _QCOW2.size, 0)
        if len(raw) < _QCOW2.size:
            raise ValueError("it is too short")
        magic, version, at, length, _, size = _QCOW2.unpack(raw)
        if magic != _QCOW2_MAGIC or version not in (2, 3) or length > _MOST_BACKING_BYTES:
            raise ValueError("it is no qcow2 image")
        if at >= 1 << 63:
            raise ValueError("it says that its backing file's name is where no file has anything")
        return size, os.pread(fd, length, at).decode() if at else None
    finally:
        os.close(fd)
