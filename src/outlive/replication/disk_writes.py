"""Writes to disks as they travel: the noun, its bytes in the stream and in the standby's log, and a copy's label.

Nothing is read or written here. The invariant: what `unpack` returns lies within the disks that it was told of.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from outlive.replication.stream import StreamGarbage

_HEAD = struct.Struct("<HBxIQQ")
"""Disk, whether data follows, nothing, nothing, offset, length: 24 bytes, so that data stays aligned."""

MOST_PART_BYTES = 8 << 20
"""Writes are grouped into messages of about this size; a single longer one goes alone."""


@dataclass(frozen=True, slots=True)
class DiskWrite:
    """One write. disk: its number among the machine's disks. data: None for zeros; else `length` bytes."""

    disk: int
    offset: int
    length: int
    data: bytearray | memoryview | None


class DiskLabel(msgspec.Struct, frozen=True):
    """What one disk of a standby holds: the state after `step` of that pairing; whole: an epoch's end, not seeding."""

    name: str
    generation: int = 0
    pairing: int = 0
    step: int = 0
    whole: bool = False


def pack(writes: Sequence[DiskWrite]) -> Iterator[list[bytes | bytearray | memoryview]]:
    """The payloads that carry these writes in order, each as parts to be joined."""
    parts: list[bytes | bytearray | memoryview] = []
    size = 0
    for write in writes:
        parts.append(_HEAD.pack(write.disk, write.data is not None, 0, write.offset, write.length))
        if write.data is not None:
            parts.append(write.data)
            size += write.length
        size += _HEAD.size
        if size >= MOST_PART_BYTES:
            yield parts
            parts, size = [], 0
    if parts:
        yield parts


def unpack(payload: memoryview, sizes: Sequence[int]) -> list[DiskWrite]:
    """Read one payload; the data are views of it. sizes: of the disks, in bytes. Raises StreamGarbage."""
    writes: list[DiskWrite] = []
    position = 0
    while position < len(payload):
        if len(payload) - position < _HEAD.size:
            raise StreamGarbage("A message of disk writes ends within one.")
        disk, has_data, _, offset, length = _HEAD.unpack_from(payload, position)
        position += _HEAD.size
        if has_data > 1 or disk >= len(sizes) or offset + length > sizes[disk] or not length:
            raise StreamGarbage("A disk write lies outside the disks.", cause=f"disk {disk}, {offset}+{length}")
        data = None
        if has_data:
            if length > len(payload) - position:
                raise StreamGarbage("A disk write is longer than its message.")
            data = payload[position : position + length]
            position += length
        writes.append(DiskWrite(disk, offset, length, data))
    return writes
