"""The standby's disks: brought from one whole epoch to the next, never left in between.

An epoch's writes go into a log first, durable where the policy wants it, before the epoch is acknowledged; then into
the disks. At a start the log is replayed, which does no harm when it had been applied before. While a first copy is
under way the disks are not whole, and their label says so, durably, from before the first byte is changed. The
invariant: a disk whose label says whole, after the replay, is exactly the disk at the end of that epoch.
"""

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from outlive.errors import Failed
from outlive.replication.comm_config import ReplicatedDisk
from outlive.replication.disk_writes import DiskLabel, DiskWrite, pack, unpack
from outlive.replication.stream import StreamGarbage

LABELS = "disk-labels.json"
LOG = "disk-log"
MOST_LOG_BYTES = 128 << 20
_WRITE_BACK_BYTES = 16 << 20
_RECORD = struct.Struct("<8sQQQQII")
_RECORD_MAGIC = b"OLDISKLG"
_PUNCH_HOLE_KEEP_SIZE = 0x03


class DiskCopyBroken(Failed):
    """A disk of the standby cannot be written; what it holds is not the primary's disk."""

    id = "replication.disk_copy_broken"


class DiskCopies:
    """All disks of one standby. Not for several threads at once.

    Labels and log lie beside the first disk, since they must outlive a reboot exactly as the disks do.
    """

    def __init__(self, disks: Sequence[ReplicatedDisk], state_dir: Path, *, durable: bool) -> None:
        """Open the disks and replay what the log holds. state_dir: for a machine without disks.

        Raises DiskCopyBroken.
        """
        folder = Path(disks[0].path).parent if disks else state_dir
        self.sizes = tuple(disk.size_bytes for disk in disks)
        self._names = tuple(disk.name for disk in disks)
        self._durable = durable
        self._labels_path = folder / LABELS
        self._files: list[int] = []
        self._write_back: threading.Thread | None = None
        self._written_back_at = 0
        self._unsynced: OSError | None = None
        try:
            for disk in disks:
                self._files.append(os.open(disk.path, os.O_RDWR | os.O_CLOEXEC))
            self._log = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._log_bytes = 0
            self.label = self._read_labels()
            self._replay()
        except OSError as error:
            raise DiskCopyBroken("The standby's disks cannot be opened.", cause=str(error)) from error

    @property
    def labels(self) -> list[DiskLabel]:
        """What each disk holds; its name alone where that is unknown."""
        label = self.label
        if label is None:
            return [DiskLabel(name) for name in self._names]
        return [msgspec.structs.replace(label, name=name) for name in self._names]

    def seed(self, generation: int, pairing: int, writes: Sequence[DiskWrite]) -> None:
        """Write a part of the first copy straight to the disks."""
        with _disk_errors():
            if writes:
                self._not_whole(generation, pairing)
            self._apply(writes)

    def seeded(self, generation: int, pairing: int, step: int) -> None:
        """Make durable what was seeded up to this step, so that the primary need not send it again after a break."""
        if not self._files:
            return
        with _disk_errors():
            self._sync()
            self._write_label(DiskLabel("", generation, pairing, step, whole=False))

    def commit(self, generation: int, pairing: int, epoch: int, payloads: Sequence[memoryview]) -> None:
        """Log the writes of a whole epoch: once this returns, it may be acknowledged."""
        if not payloads:
            return
        with _disk_errors():
            length = sum(len(payload) for payload in payloads)
            checksum = 0
            for payload in payloads:
                checksum = zlib.crc32(payload, checksum)
            head = _RECORD.pack(_RECORD_MAGIC, generation, pairing, epoch, length, checksum, 0)
            head = head[:-4] + struct.pack("<I", zlib.crc32(head[:-4]))
            position = self._log_bytes
            for part in (memoryview(head), *payloads):
                _write_at(self._log, part, position)
                position += len(part)
            if self._durable:
                os.fdatasync(self._log)
            self._log_bytes = position

    def apply(self, generation: int, pairing: int, epoch: int, writes: Sequence[DiskWrite]) -> None:
        """Bring the disks to a committed epoch, or say of disks without writes that they are there already."""
        if not self._files:
            return
        with _disk_errors():
            self._apply(writes)
            was_whole = self.label is not None and self.label.whole
            self.label = DiskLabel("", generation, pairing, epoch, whole=True)
            self._write_back_early()
            if not was_whole or self._log_bytes > MOST_LOG_BYTES:
                self._checkpoint()

    def settle(self) -> None:
        """Make the disks durable and empty the log: before the guest writes to them itself, and at an orderly end."""
        if not self._files:
            return
        with _disk_errors():
            self._checkpoint()

    def release(self) -> None:
        """The guest writes to these disks from now on: no log is ever to be replayed over them again.

        The log must be gone for good before the guest runs; the disks themselves follow with `sync_and_close`.
        """
        if not self._files:
            return
        with _disk_errors():
            self._labels_path.unlink(missing_ok=True)
            os.ftruncate(self._log, 0)
            os.fsync(self._log)
            _sync_folder(self._labels_path.parent)
            self._log_bytes, self.label = 0, None

    def sync_and_close(self) -> None:
        """Make the disks durable, however long that takes, and let go of them."""
        self._sync_quietly()
        self.close()

    def close(self) -> None:
        if self._write_back is not None:
            self._write_back.join()
        for descriptor in (*self._files, self._log):
            os.close(descriptor)
        self._files = []

    def _write_back_early(self) -> None:
        # So that little is left to wait for when the log is full: an epoch's acknowledgement would wait too.
        busy = self._write_back is not None and self._write_back.is_alive()
        if self._durable and not busy and self._log_bytes - self._written_back_at >= _WRITE_BACK_BYTES:
            self._written_back_at = self._log_bytes
            self._write_back = threading.Thread(target=self._sync_quietly, name="write-back", daemon=True)
            self._write_back.start()

    def _sync_quietly(self) -> None:
        try:
            self._sync()
        except OSError as error:
            self._unsynced = error  # the kernel tells it once only: it has to reach the next that relies on it

    def _apply(self, writes: Sequence[DiskWrite]) -> None:
        for write in writes:
            descriptor = self._files[write.disk]
            if write.data is not None:
                _write_at(descriptor, memoryview(write.data), write.offset)
            else:
                _zero(descriptor, write.offset, write.length)

    def _not_whole(self, generation: int, pairing: int) -> None:
        if (
            self.label is None
            or self.label.whole
            or (self.label.generation, self.label.pairing) != (generation, pairing)
        ):
            step = 0
            self._checkpoint(DiskLabel("", generation, pairing, step, whole=False))

    def _checkpoint(self, label: DiskLabel | None = None) -> None:
        self._sync()
        label = label or self.label
        if label is not None:
            self._write_label(label)
        os.ftruncate(self._log, 0)
        self._log_bytes = self._written_back_at = 0

    def _sync(self) -> None:
        if self._unsynced is not None:
            raise self._unsynced
        for descriptor in self._files:
            os.fdatasync(descriptor)

    def _write_label(self, label: DiskLabel) -> None:
        beside = self._labels_path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(label))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(self._labels_path)
        _sync_folder(self._labels_path.parent)
        self.label = label

    def _read_labels(self) -> DiskLabel | None:
        try:
            return msgspec.json.decode(self._labels_path.read_bytes(), type=DiskLabel)
        except (OSError, ValueError, msgspec.DecodeError, RecursionError):
            return None  # unknown content: the first copy is made anew

    def _replay(self) -> None:
        size = os.fstat(self._log).st_size
        position = 0
        while (record := self._record(position, size)) is not None:
            position, label, writes = record
            if self.label is not None and self.label.whole:
                self._apply(writes)
                self.label = label
        if size:
            self._checkpoint()

    def _record(self, position: int, size: int) -> tuple[int, DiskLabel, list[DiskWrite]] | None:
        head = os.pread(self._log, _RECORD.size, position)
        if len(head) < _RECORD.size:
            return None
        magic, generation, pairing, epoch, length, checksum, head_checksum = _RECORD.unpack(head)
        position += _RECORD.size
        if magic != _RECORD_MAGIC or zlib.crc32(head[:-4]) != head_checksum or length > size - position:
            return None
        body = memoryview(bytearray(length))
        if os.preadv(self._log, [body], position) != length or zlib.crc32(body) != checksum:
            return None
        try:
            writes = unpack(body, self.sizes)
        except StreamGarbage:
            return None
        return position + length, DiskLabel("", generation, pairing, epoch, whole=True), writes


def make_startable(disks: Sequence[ReplicatedDisk]) -> DiskLabel | None:
    """Before a machine starts from what may be a standby's disks: finish what the log holds, and end being a copy.

    Returns what the disks were a copy of: not to be started from unless it is whole, as one is not whose label cannot
    be read; None: they are no copy. Raises DiskCopyBroken.
    """
    if not disks or not (Path(disks[0].path).parent / LABELS).exists():
        return None
    copies = DiskCopies(disks, Path(disks[0].path).parent, durable=True)
    label = copies.label
    if label is not None and label.whole:
        copies.release()
    copies.close()
    return label or DiskLabel("")


def payloads_of(writes: Sequence[DiskWrite]) -> list[memoryview]:
    """The payloads that carry these writes, joined; for tests, and for whoever has no stream."""
    return [memoryview(b"".join(parts)) for parts in pack(writes)]


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _zero(descriptor: int, offset: int, length: int) -> None:
    piece = bytes(min(length, 1 << 20))
    while length:
        count = os.pwrite(descriptor, memoryview(piece)[: min(length, len(piece))], offset)
        offset, length = offset + count, length - count


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskCopyBroken("A disk of the standby cannot be written.", cause=str(error)) from error
