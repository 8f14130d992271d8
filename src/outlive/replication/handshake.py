"""The first words of a pairing: what a primary asks of a standby, and what the standby already has.

Both are JSON inside the stream's HELLO and WELCOME. The invariant: a standby that welcomes a primary has the same
memory size and disks, has never welcomed a newer reign, and forgets what it held of older ones.
"""

from typing import Literal, TypeVar

import msgspec
import zstandard

from outlive.replication.device_state import MOST_STATE_BYTES
from outlive.replication.disk_writes import DiskLabel
from outlive.replication.stream import StreamGarbage

PROTOCOL = 1


class DiskShape(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int


class Hello(msgspec.Struct, frozen=True):
    """key: of the keep-alives of this pairing, 32 bytes. ports: the cards' addresses, in order."""

    cluster: str
    workload: str
    generation: int
    pairing: int
    host: str
    ram_bytes: int
    disks: tuple[DiskShape, ...]
    ports: tuple[str, ...]
    key: bytes
    protocol: int = PROTOCOL


class Welcome(msgspec.Struct, frozen=True):
    """answer: stale: a newer reign was seen here; unfit: another machine, or not waiting for one."""

    answer: Literal["welcome", "stale", "unfit"]
    host: str
    reason: str = ""
    disks: tuple[DiskLabel, ...] = ()


Words = TypeVar("Words", Hello, Welcome)


def pack(words: Hello | Welcome) -> bytes:
    return msgspec.json.encode(words)


def unpack(payload: memoryview, kind: type[Words]) -> Words:
    """Read the first words of the other side. Raises StreamGarbage."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StreamGarbage("The peer's first words cannot be understood.", cause=str(error)) from error


class StepHead(msgspec.Struct, frozen=True, array_like=True):
    """What stands before a step's device state in EPOCH: what must have come before it, and what follows.

    pages, writes: how many PAGES and DISK messages belong to the step. state_bytes: of the device state as it follows,
    compressed (zstd). output: the lengths of the frame lists after it, one a port; a seeding step has neither.
    """

    pages: int
    writes: int
    state_bytes: int
    output: tuple[int, ...] = ()


def unpack_state(compressed: memoryview) -> bytes:
    """The device state of a step. Raises StreamGarbage."""
    try:
        size = zstandard.frame_content_size(compressed)
        if not 0 <= size <= MOST_STATE_BYTES:
            raise StreamGarbage("A device state is too large.", cause=str(size))
        return zstandard.ZstdDecompressor().decompress(compressed)
    except zstandard.ZstdError as error:
        raise StreamGarbage("A device state cannot be decompressed.", cause=str(error)) from error


def pack_head(head: StepHead) -> bytes:
    """The head with its length before it."""
    body = msgspec.msgpack.encode(head)
    return len(body).to_bytes(4, "little") + body


def unpack_step(payload: memoryview, ports: int) -> tuple[StepHead, memoryview, list[bytes]]:
    """Head, device state and frame lists of a step. Raises StreamGarbage when the lengths do not add up."""
    length = int.from_bytes(payload[:4], "little")
    try:
        head = msgspec.msgpack.decode(payload[4 : 4 + length], type=StepHead)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StreamGarbage("The end of a step cannot be understood.", cause=str(error)) from error
    lengths = (head.state_bytes, *head.output)
    if min(lengths) < 0 or 4 + length + sum(lengths) != len(payload) or len(head.output) not in (0, ports):
        raise StreamGarbage("The end of a step is not as long as it says.")
    position = 4 + length
    state = payload[position : position + head.state_bytes]
    position += head.state_bytes
    output = []
    for size in head.output:
        output.append(bytes(payload[position : position + size]))
        position += size
    return head, state, output
