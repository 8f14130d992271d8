"""What has to be on this host before a machine starts, and what goes when it has stopped. Everything here blocks.

Files that QEMU opens, and the run folder, belong to the user that it runs as, who cannot be had where something on the
way to a file is closed to him: then it runs as root, and the reason is told. The memory's file is made anew each time.
The run folder is the only one in which QEMU can make files, and whatever is done there as root follows no link.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from outlive.cluster.machine import Firmware, Machine
from outlive.errors import Failed
from outlive.runtime.runner import Account

from .command_line import nvram_path
from .host import HostFacts
from .seat import Held, Seat, SharedMemory, Tap
from .seed import seed, seed_path

_TAPS = Path("/dev/net/tun")


class NotPrepared(Failed):
    """Something that a machine needs on this host could not be made."""

    id = "vm.not-prepared"


def prepare(name: str, machine: Machine, seat: Seat, host: HostFacts, account: Account | None) -> None:
    """Make everything but the disks. Raises NotPrepared."""
    try:
        clear(seat)
        seat.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        seat.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(seat.run, account)
        _touched(seat.console_log, account)
        if isinstance(seat.memory, SharedMemory):
            _make_memory(seat.memory.file, machine.memory_mib * 1024 * 1024, account)
        if machine.firmware is Firmware.UEFI and host.firmware_variables is not None:
            _make_variables(host.firmware_variables, nvram_path(seat), account)
        if machine.cloud_init is not None:
            _written(seed_path(seat.folder), seed(machine.cloud_init, name), account)
        for disk in machine.disks:
            if not disk.read_only:
                _give(seat.disks[disk.name], account)
    except OSError as error:
        raise NotPrepared(
            "What the virtual machine needs on this host could not be made.",
            cause=f"{error.filename}: {error.strerror}",
        ) from error


def clear(seat: Seat) -> None:
    """Remove what belongs to one run alone: sockets, memory. Nothing of the machine may run."""
    for path in _of_one_run(seat):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def closed_to(account: Account, machine: Machine, seat: Seat) -> str:
    """Why a machine cannot be run as this user: the first thing that is closed to him; "" for nothing.

    The files that are to be given to him need not be his yet.
    """
    boot = machine.boot
    booted = [Path(name) for name in (boot.kernel, boot.initrd) if name] if boot is not None else []
    # Of every folder on the way; the run folder will be his.
    for path in (seat.folder, seat.run, *_places(seat), *booted):
        for folder in path.parents:
            if folder != seat.run and not _allows(folder, account, stat.S_IXOTH):
                return f"{folder} is closed to it"
    for disk in machine.disks:
        path = seat.disks[disk.name]
        if disk.read_only and path.exists() and not _allows(path, account, stat.S_IROTH):
            return f"{path} cannot be read by it"
        if not disk.read_only and path.exists():
            try:
                _give(path, account)
            except OSError as error:
                return f"{path} cannot be given to it: {error.strerror}"
    for path in booted:
        if not _allows(path, account, stat.S_IROTH):
            return f"{path} cannot be read by it"
    if any(isinstance(end, Tap) for end in seat.nics.values()) and not _allows(_TAPS, account, stat.S_IWOTH):
        return f"{_TAPS} is closed to it"
    return ""


def _of_one_run(seat: Seat) -> Iterator[Path]:
    yield from (seat.agents_qmp, seat.console, seat.guest_agent)
    if seat.comm_qmp is not None:
        yield seat.comm_qmp
    for end in seat.nics.values():
        if isinstance(end, Held):
            yield end.local
    if isinstance(seat.memory, SharedMemory):
        yield seat.memory.file
        if seat.memory.watched is not None:
            yield seat.memory.watched.output


def _places(seat: Seat) -> Iterator[Path]:
    yield from _of_one_run(seat)
    yield from seat.disks.values()


def _make_memory(file: Path, size: int, account: Account | None) -> None:
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    _give(file, account)


def _make_variables(template: Path, path: Path, account: Account | None) -> None:
    """The template's copy, once; a machine keeps what it wrote there."""
    if not path.exists():
        _written(path, template.read_bytes(), account)
    _give(path, account)


def _written(path: Path, content: bytes, account: Account | None) -> None:
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.chmod(0o600)
    _give(beside, account)
    beside.replace(path)


def _touched(path: Path, account: Account | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if account is not None:
            os.fchown(descriptor, account.user, account.group)
    finally:
        os.close(descriptor)


def _give(path: Path, account: Account | None) -> None:
    """Make it the user's; ours again where there is none."""
    user, group = (account.user, account.group) if account is not None else (os.geteuid(), os.getegid())
    found = path.stat()
    if (found.st_uid, found.st_gid) != (user, group):
        os.chown(path, user, group)


def _allows(path: Path, account: Account, right: int) -> bool:
    """Whether the user has a right (given as that of others) to it, by owner, group and others, as the kernel asks."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True  # it is still to be made
    if found.st_uid == account.user:
        return bool(found.st_mode & right << 6)
    if found.st_gid == account.group or found.st_gid in account.groups:
        return bool(found.st_mode & right << 3)
    return bool(found.st_mode & right)
