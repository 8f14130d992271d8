"""What the tests of the datastore start from: folders, real mounts that are always taken away again, heartbeats."""

import ctypes
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleStatus
from outlive.datastore.formatting import format_datastore
from outlive.wire.seal import Seal

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


@pytest.fixture
def seal() -> Seal:
    return Seal("0123456789abcdef", b"k" * 32)


@pytest.fixture
def heartbeat() -> Callable[..., Heartbeat]:
    def build(sequence: int = 1, host: str = "a", cluster: str = "0123456789abcdef") -> Heartbeat:
        statuses = (ModuleStatus.RUNNING, ModuleStatus.FAILED)
        return Heartbeat(cluster, host, "ab" * 16, sequence, Flags.NONE, 0.25, 7, b"tabledig", statuses)

    return build


@pytest.fixture
def folder(tmp_path: Path, seal: Seal) -> Path:
    """A folder that is a datastore of the cluster."""
    path = tmp_path / "datastore"
    path.mkdir()
    format_datastore("shared", path, seal.cluster)
    return path


class Mounts:
    """Mounts made by one test."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def mount(self, *arguments: str | Path) -> None:
        """As the mount command; the last argument is where."""
        subprocess.run(["mount", *map(str, arguments)], check=True)
        self._made.append(Path(arguments[-1]))

    def vanish(self, path: Path) -> None:
        """Lazily, as when an administrator or a dying storage client takes it away under us."""
        subprocess.run(["umount", "-l", str(path)], check=True)
        self._made.remove(path)

    def clear(self) -> None:
        for path in reversed(self._made):
            subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    made = Mounts()
    yield made
    made.clear()


class HungStorage:
    """A file system that answers nothing, mounted over a folder: whoever touches it waits in the kernel.

    It is a FUSE server that takes requests and keeps quiet, as an NFS server does that lost its disks. Not even
    a kill ends the wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken = 0
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _libc.mount(b"hung", os.fsencode(path), b"fuse.hung", 0, options):
            error = ctypes.get_errno()
            os.close(self._device)
            raise OSError(error, os.strerror(error))
        _, _, unique = struct.unpack_from("=IIQ", os.read(self._device, 1 << 17))
        answer = struct.pack("=IIIIHHIIHHI7I", 7, 31, 0, 0, 12, 9, 4096, 1, 1, 0, 0, *[0] * 7)
        os.write(self._device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
        os.set_blocking(self._device, False)

    def take_requests(self) -> None:
        """What has been taken can no more be called back, not even by a kill."""
        try:
            while os.read(self._device, 1 << 17):
                self.taken += 1
        except OSError:
            return

    def end(self) -> None:
        """The storage is given up: whoever waits gets an error, and the folder beneath shows again."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1
            _libc.umount2(os.fsencode(self.path), _MNT_DETACH)


@pytest.fixture
def hang() -> Iterator[Callable[[Path], HungStorage]]:
    hung: list[HungStorage] = []

    def over(path: Path) -> HungStorage:
        hung.append(HungStorage(path))
        return hung[-1]

    yield over
    for storage in hung:
        storage.end()
