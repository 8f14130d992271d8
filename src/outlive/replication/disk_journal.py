"""The primary's side of its disks: what the open epoch wrote, and what a standby's copy may still lack.

The NBD server puts every write here before it replies. While a standby is fed, writes are journaled in order and cut
with the epoch; else only the blocks are marked. A block is *different* from when it was written until the standby has
acknowledged a step that holds it. The invariant: at any moment the standby's disk, as of the last step that it
acknowledged, equals ours but in different blocks; so after a break only these are sent again. How the writes travel is
`disk_writes`, what a standby does with them `disk_copy`.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outlive.replication.comm_config import ReplicatedDisk
from outlive.replication.disk_writes import DiskLabel, DiskWrite
from outlive.replication.link import boot_s

BLOCK_BYTES = 64 * 1024
MOST_OPEN_BYTES = 64 << 20
HALF_OPEN_BYTES = MOST_OPEN_BYTES // 2
_LONGEST_WAIT_S = 20.0


class Differences:
    """The different blocks of one disk: one byte each, so that finding and filling are single calls."""

    def __init__(self, size_bytes: int, *, all_differ: bool) -> None:
        self.size_bytes = size_bytes
        self._blocks = bytearray((b"\1" if all_differ else b"\0") * -(-size_bytes // BLOCK_BYTES))

    def mark(self, offset: int, length: int) -> None:
        """Let every block that this range touches differ."""
        if length > 0:
            first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
            self._blocks[first : last + 1] = b"\1" * (last - first + 1)

    def mark_all(self) -> None:
        self._blocks[:] = b"\1" * len(self._blocks)

    def take(self, most_bytes: int) -> tuple[int, int] | None:
        """Remove one run of different blocks and return its (offset, length) in bytes; None when there is none."""
        first = self._blocks.find(1)
        if first < 0:
            return None
        most = first + max(1, most_bytes // BLOCK_BYTES)
        end = self._blocks.find(0, first, most)
        end = min(most, len(self._blocks)) if end < 0 else end
        self._blocks[first:end] = bytes(end - first)
        offset = first * BLOCK_BYTES
        return offset, min(end * BLOCK_BYTES, self.size_bytes) - offset

    @property
    def different_bytes(self) -> int:
        return self._blocks.count(1) * BLOCK_BYTES


@dataclass(slots=True)
class _Step:
    """One step under way: its number, and the ranges that it holds."""

    number: int
    ranges: list[tuple[int, int, int]] = field(default_factory=list)


class DiskJournal:
    """All disks of one machine. Used by the NBD server's threads, the epoch loop and the acknowledgements' reader.

    grown: called when the open step holds half of what it may: it should be cut soon. Writers wait once it is full,
           unless the machine is being stopped.
    """

    def __init__(self, disks: Sequence[ReplicatedDisk], grown: Callable[[], None] = lambda: None) -> None:
        self.disks = tuple(disks)
        self.open_bytes = 0
        self._grown = grown
        self._files = [os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC) for disk in disks]
        self._different = [Differences(disk.size_bytes, all_differ=True) for disk in disks]
        self._room = threading.Condition()
        self._open: list[DiskWrite] = []
        self._under_way: deque[_Step] = deque()
        self._following = False
        self._draining = False
        self._copying: tuple[int, int, int] | None = None
        self._overtaken = False
        # What the standby's copy is known by: which pairing it was fed in, and how far.
        self._basis: tuple[int, int] | None = None
        self._acknowledged = 0
        self._acknowledged_with_writes = 0
        self._sent = 0

    def exports(self) -> dict[str, "DiskExport"]:
        """What the NBD server serves, by the disks' names."""
        return {disk.name: DiskExport(self, index, disk.size_bytes) for index, disk in enumerate(self.disks)}

    def follow(self, generation: int, pairing: int, labels: Sequence[DiskLabel]) -> bool:
        """Begin to feed a standby. labels: what it says that it has, by disk.

        Returns whether it has an earlier state of these very disks, so that only differences are to be sent.
        """
        with self._room:
            known = bool(self.disks) and self._knows(labels)
            if not known:
                for different in self._different:
                    different.mark_all()
            self._basis = (generation, pairing)
            self._acknowledged = self._acknowledged_with_writes = self._sent = 0
            self._open, self.open_bytes, self._following = [], 0, True
            return known

    def unfollow(self) -> None:
        """The standby is lost: what is not acknowledged differs from now on."""
        with self._room:
            for step in self._under_way:
                self._mark(step.ranges)
            self._mark([(write.disk, write.offset, write.length) for write in self._open])
            self._under_way.clear()
            self._open, self.open_bytes, self._following = [], 0, False
            self._room.notify_all()

    def forget(self) -> None:
        """Writes may have passed us by: nothing is known of any standby's copy any more."""
        with self._room:
            self._basis = None

    def draining(self, yes: bool) -> None:
        """Let writers pass however full it is: the machine is being stopped, and waits for them."""
        with self._room:
            self._draining = yes
            self._room.notify_all()

    def cut(self, step: int) -> list[DiskWrite]:
        """Close the open step under this number and return its writes, in order."""
        with self._room:
            writes, self._open, self.open_bytes = self._open, [], 0
            self._under_way.append(_Step(step, [(write.disk, write.offset, write.length) for write in writes]))
            self._sent = step
            self._room.notify_all()
            return writes

    def acknowledged(self, step: int) -> None:
        """The standby has everything up to this step."""
        with self._room:
            while self._under_way and self._under_way[0].number <= step:
                if self._under_way.popleft().ranges:
                    self._acknowledged_with_writes = step
            self._acknowledged = max(self._acknowledged, step)

    def copy_some(self, most_bytes: int) -> int:
        """Put different blocks into the open step, as they are now; returns how many bytes, 0 when none differ.

        Writes of the guest go on meanwhile: QEMU writes to the disk before it tells us, so a block that is read
        while such news comes is read again.
        """
        copied = 0
        for index, different in enumerate(self._different):
            while copied < most_bytes:
                with self._room:
                    run = different.take(min(1 << 20, most_bytes - copied))
                    if run is None:
                        break
                    self._copying, self._overtaken = (index, *run), False
                data = self._read(index, *run)
                with self._room:
                    self._copying = None
                    if self._overtaken:
                        different.mark(*run)
                    else:
                        self._put(DiskWrite(index, run[0], run[1], data))
                copied += run[1]
        return copied

    @property
    def different_bytes(self) -> int:
        with self._room:
            return sum(different.different_bytes for different in self._different)

    @property
    def grown_large(self) -> bool:
        """Whether the open step should be cut soon."""
        return self.open_bytes >= HALF_OPEN_BYTES

    def close(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)

    def took(self, disk: int, offset: int, length: int, data: bytearray | None) -> None:
        """A write of the guest came from QEMU; returning lets it count as done."""
        with self._room:
            deadline = boot_s() + _LONGEST_WAIT_S
            while self._following and not self._draining and self.open_bytes >= MOST_OPEN_BYTES:
                if not self._room.wait(max(0.0, deadline - boot_s())):
                    break
            if not self._following:
                self._different[disk].mark(offset, length)
                return
            if self._copying is not None:
                copied_disk, first, size = self._copying
                if copied_disk == disk and offset < first + size and first < offset + length:
                    self._overtaken = True
            self._put(DiskWrite(disk, offset, length, data))

    def _put(self, write: DiskWrite) -> None:
        self._open.append(write)
        before = self.open_bytes
        self.open_bytes += 64 + (0 if write.data is None else write.length)
        if before < HALF_OPEN_BYTES <= self.open_bytes:
            self._grown()

    def _read(self, index: int, offset: int, length: int) -> bytearray | None:
        data = bytearray(length)
        got = os.preadv(self._files[index], [data], offset)
        while got < length:
            more = os.preadv(self._files[index], [memoryview(data)[got:]], offset + got)
            if more == 0:
                break  # beyond the end of the file: zeros, as QEMU reads it
            got += more
        return None if data.count(0) == length else data

    def _mark(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        for disk, offset, length in ranges:
            self._different[disk].mark(offset, length)

    def _knows(self, labels: Sequence[DiskLabel]) -> bool:
        return (
            self._basis is not None
            and len(labels) == len(self.disks)
            and all(
                label.name == disk.name
                and (label.generation, label.pairing) == self._basis
                and self._acknowledged_with_writes <= label.step <= self._sent
                for label, disk in zip(labels, self.disks, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class DiskExport:
    """One disk, as the NBD server sees it."""

    journal: DiskJournal
    index: int
    size_bytes: int

    def write(self, offset: int, data: bytearray) -> None:
        self.journal.took(self.index, offset, len(data), data)

    def zero(self, offset: int, length: int) -> None:
        self.journal.took(self.index, offset, length, None)
