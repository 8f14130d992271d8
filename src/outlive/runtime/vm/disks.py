"""A machine's disks as files: made or copied once, whole or not at all, and never over one that is there.

A disk is made beside its place under another name, synced, and then linked to its place, which fails where something
is already. Who may make one at all is for others to say (`Seat.may_make_disks`). Locks on disks are QEMU's own, taken
by whoever opens one to run it.
"""

import asyncio
import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from outlive.cluster.machine import Disk, DiskFormat
from outlive.errors import Failed, RefusedForSafety
from outlive.runtime.base import BASE_ENVIRONMENT

COPIED_WITHIN_S = 6 * 3600.0
CHUNK_BYTES = 8 * 1024 * 1024
_MIB = 1024 * 1024
_QCOW2_MAGIC = b"QFI\xfb"
_MAKING = ".making-"

log = structlog.get_logger()


class DiskFailed(Failed):
    """A disk could not be made."""

    id = "vm.disk-failed"


class DiskMissing(RefusedForSafety):
    """A disk is not where it should be, and making an empty one would hide that."""

    id = "vm.disk-missing"


async def ensure(disks: Iterable[Disk], files: Mapping[str, Path], may_make: bool) -> None:
    """See to it that each disk's file is there.

    may_make: make those that are not. Raises DiskMissing where that is not allowed, and DiskFailed.
    """
    for disk in disks:
        path = files[disk.name]
        if await asyncio.to_thread(path.exists):
            continue
        if not may_make:
            raise DiskMissing(
                f"The disk {disk.name} is missing.",
                cause=f"{path} is not there, although the machine ran before",
                remedy="put it back from a copy, or remove the machine and apply it anew to begin with fresh disks",
            )
        await make(disk, path)


async def make(disk: Disk, path: Path) -> None:
    """Make one disk, empty or as a copy of its source. Raises DiskFailed; a file that is there is left as it is."""
    beside = path.with_name(f"{path.name}{_MAKING}{uuid.uuid4().hex[:8]}")
    try:
        await asyncio.to_thread(_swept, path)
        await _made(disk, beside)
        # What is only read is nobody's own, and need not be given to the emulator's user.
        await asyncio.to_thread(_put_in_place, beside, path, 0o644 if disk.read_only else 0o600)
    except FileExistsError as error:
        raise _failed(disk, f"{path} is there already") from error
    except OSError as error:
        raise _failed(disk, f"{error.filename or path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    log.info("disk.made", disk=disk.name, path=str(path), source=disk.source)


def direct(files: Mapping[str, Path]) -> frozenset[str]:
    """The names of those disks that can be read and written past the page cache. Blocks."""
    possible = set()
    for name, path in files.items():
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
            possible.add(name)
    return frozenset(possible)


async def _made(disk: Disk, beside: Path) -> None:
    wanted = None if disk.size_mib is None else disk.size_mib * _MIB
    if disk.source is None:
        if wanted is None:
            raise _failed(disk, "it has neither size nor source")
        if disk.format is DiskFormat.RAW:
            await asyncio.to_thread(_empty, beside, wanted)
        else:
            await _qemu_img(disk, "create", "-q", "-f", "qcow2", "--", str(beside), str(wanted))
        return
    source = Path(disk.source)
    source_format = await asyncio.to_thread(_format, source)
    if source_format is DiskFormat.RAW and disk.format is DiskFormat.RAW:
        have = await _copied(source, beside)
    else:
        forms = ("-f", source_format.value, "-O", disk.format.value)
        await _qemu_img(disk, "convert", "-q", *forms, "--", str(source), str(beside))
        have = await _virtual_bytes(disk, beside)
    if wanted is not None and have > wanted:
        raise _failed(disk, f"its source {source} has {have} bytes, which is more than size_mib = {disk.size_mib}")
    if wanted is not None and have < wanted:
        await _qemu_img(disk, "resize", "-q", "-f", disk.format.value, "--", str(beside), str(wanted))


def _swept(path: Path) -> None:
    """Remove what an earlier try that was killed left behind. Only one runs at a time: the run lock is held."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}{_MAKING}*"):
        left.unlink(missing_ok=True)


def _empty(beside: Path, size: int) -> None:
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _format(source: Path) -> DiskFormat:
    with source.open("rb") as file:
        return DiskFormat.QCOW2 if file.read(len(_QCOW2_MAGIC)) == _QCOW2_MAGIC else DiskFormat.RAW


async def _copied(source: Path, beside: Path) -> int:
    """Copy with holes kept, and return the size in bytes."""
    given_up = threading.Event()
    try:
        async with asyncio.timeout(COPIED_WITHIN_S):
            return await asyncio.to_thread(_copy, source, beside, given_up)
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(source)) from error
    finally:
        given_up.set()


def _copy(source: Path, beside: Path, given_up: threading.Event) -> int:
    with source.open("rb") as reading, beside.open("xb") as writing:
        beside.chmod(0o600)
        size = reading.seek(0, os.SEEK_END)
        writing.truncate(size)
        at = 0
        while at < size and not given_up.is_set():
            try:
                start = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    break
                raise
            at = os.lseek(reading.fileno(), start, os.SEEK_HOLE)
            _copy_run(reading.fileno(), writing.fileno(), start, at, given_up)
    return size


def _copy_run(reading: int, writing: int, start: int, end: int, given_up: threading.Event) -> None:
    while start < end and not given_up.is_set():
        chunk = os.pread(reading, min(CHUNK_BYTES, end - start), start)
        if not chunk:
            raise OSError(errno.EIO, "the source became shorter while it was copied")
        if chunk.count(0) < len(chunk):
            view = memoryview(chunk)
            at = start
            while view:
                done = os.pwrite(writing, view, at)
                view, at = view[done:], at + done
        start += len(chunk)


async def _virtual_bytes(disk: Disk, beside: Path) -> int:
    """How large the guest sees it."""
    if disk.format is DiskFormat.RAW:
        return (await asyncio.to_thread(beside.stat)).st_size
    header = await asyncio.to_thread(_head, beside, 32)
    return int.from_bytes(header[24:32], "big")


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


async def _qemu_img(disk: Disk, *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "qemu-img",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=dict(BASE_ENVIRONMENT),
    )
    try:
        async with asyncio.timeout(COPIED_WITHIN_S):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise _failed(disk, said.decode(errors="replace").strip().removeprefix("qemu-img: "))


def _put_in_place(beside: Path, path: Path, mode: int) -> None:
    """Durable first, then there, and never over another. Raises FileExistsError."""
    beside.chmod(mode)
    _sync(beside)
    os.link(beside, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(disk: Disk, cause: str) -> DiskFailed:
    return DiskFailed(f"The disk {disk.name} could not be made.", cause=cause)
