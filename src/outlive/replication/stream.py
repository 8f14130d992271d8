"""The epoch stream: messages in order, each checked before it means anything.

Every message begins with a fixed header that carries the scope (cluster and workload), the generation and the pairing
it belongs to, a sequence number without gaps, its epoch, its length and a checksum over header and payload. A reader
refuses another scope, an older or newer reign, a gap, a length beyond the kind's limit and a wrong checksum by raising
`StreamGarbage`: it is never asked to guess, and nothing of a refused message is used. What payloads mean is known to
`primary` and `standby`.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from outlive.errors import Failed, RefusedForSafety
from outlive.replication.link import LinkBroken

VERSION = 1
MAGIC = b"OLES"
_HEADER = struct.Struct("<4sBBHQQQQQI")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size

Bytes = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a message is. All come from the primary, but WELCOME and ACKNOWLEDGED."""

    HELLO = 1
    WELCOME = 2
    PREFIX = 3
    PAGES = 4
    DISK = 5
    INPUT = 6
    EPOCH = 7
    ACKNOWLEDGED = 8
    BYE = 9


MOST_BYTES = {
    Kind.HELLO: 1 << 20,
    Kind.WELCOME: 1 << 20,
    Kind.PREFIX: 64 << 20,
    Kind.PAGES: 20 << 20,
    Kind.DISK: 40 << 20,
    Kind.INPUT: 4 << 20,
    Kind.EPOCH: 64 << 20,
    Kind.ACKNOWLEDGED: 64,
    Kind.BYE: 4096,
}
"""The longest payload of each kind, in bytes: what a reader makes room for before it has seen a checksum."""


class StreamGarbage(Failed):
    """What came is not the next message of this stream."""

    id = "replication.stream_garbage"


class StalePeer(RefusedForSafety):
    """The peer acts at a generation or pairing that is over."""

    id = "replication.stale_peer"


class Connection(Protocol):
    """What a stream needs of a link."""

    def send(self, data: Bytes, within_s: float) -> None: ...
    def receive_into(self, target: memoryview, within_s: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Reign:
    """Whose stream this is: compared as a whole, ordered by (generation, pairing)."""

    cluster: str
    workload: str
    generation: int
    pairing: int

    @property
    def scope(self) -> int:
        """64 bits that stand for cluster and workload."""
        text = f"{self.cluster}\0{self.workload}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    @property
    def age(self) -> tuple[int, int]:
        return (self.generation, self.pairing)


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    flags: int
    epoch: int
    payload: memoryview


class Sender:
    """Writes messages of one reign. Not for several threads at once."""

    def __init__(self, connection: Connection, reign: Reign) -> None:
        self._connection = connection
        self._reign = reign
        self._scope = reign.scope
        self._sequence = 0

    def send(self, kind: Kind, parts: Sequence[Bytes] = (), *, epoch: int = 0, flags: int = 0, within_s: float) -> int:
        """Send one message whose payload is the parts, joined; returns its size in bytes. Raises LinkBroken."""
        length = sum(memoryview(part).nbytes for part in parts)
        assert length <= MOST_BYTES[kind], (kind, length)
        header = _HEADER.pack(
            MAGIC,
            VERSION,
            kind,
            flags,
            self._scope,
            self._reign.generation,
            self._reign.pairing,
            self._sequence,
            epoch,
            length,
        )
        self._sequence += 1
        checksum = zlib.crc32(header)
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        head = header + _CHECKSUM.pack(checksum)
        # Small messages leave in one piece, large parts are never copied.
        small = [head]
        for part in parts:
            if memoryview(part).nbytes <= 65536:
                small.append(bytes(part))
            else:
                self._connection.send(b"".join(small), within_s)
                small = []
                self._connection.send(part, within_s)
        if small:
            self._connection.send(b"".join(small), within_s)
        return HEADER_BYTES + length


class Receiver:
    """Reads messages and refuses all that is not the next one.

    reign: None: the first message says whose stream it is, and `bind` confirms it.
    """

    def __init__(self, connection: Connection, reign: Reign | None = None) -> None:
        self._connection = connection
        self._expected = None if reign is None else (reign.scope, reign.generation, reign.pairing)
        self._sequence = 0

    def receive(self, within_s: float | None) -> Message:
        """The next message. within_s: how long nothing may come; None: for ever. Raises LinkBroken, StreamGarbage."""
        head = bytearray(HEADER_BYTES)
        self._connection.receive_into(memoryview(head), within_s)
        magic, version, kind, flags, scope, generation, pairing, sequence, epoch, length = _HEADER.unpack_from(head)
        if magic != MAGIC or version != VERSION:
            raise StreamGarbage("What came is not an epoch stream of this version.")
        try:
            kind = Kind(kind)
        except ValueError as error:
            raise StreamGarbage("The epoch stream holds a message of unknown kind.", cause=str(kind)) from error
        if length > MOST_BYTES[kind]:
            raise StreamGarbage(
                "The epoch stream holds a message that is too long.", cause=f"{kind.name}, {length} bytes"
            )
        if self._expected is not None and (scope, generation, pairing) != self._expected:
            raise StreamGarbage("The epoch stream holds a message of another reign.", cause=f"{generation}/{pairing}")
        if sequence != self._sequence:
            raise StreamGarbage("The epoch stream has a gap.", cause=f"{sequence} came for {self._sequence}")
        payload = memoryview(bytearray(length))
        if length:
            self._connection.receive_into(payload, within_s)
        (checksum,) = _CHECKSUM.unpack_from(head, _HEADER.size)
        if zlib.crc32(payload, zlib.crc32(memoryview(head)[: _HEADER.size])) != checksum:
            raise StreamGarbage("A message of the epoch stream is damaged.", cause=kind.name)
        self._sequence += 1
        self._expected = self._expected or (scope, generation, pairing)
        return Message(kind, flags, epoch, payload)

    def bind(self, reign: Reign) -> None:
        """Hold the peer to what its first message said. Raises StreamGarbage when the header said otherwise."""
        if self._expected != (reign.scope, reign.generation, reign.pairing):
            raise StreamGarbage("The peer's first message contradicts its header.")


__all__ = [
    "HEADER_BYTES",
    "MOST_BYTES",
    "Connection",
    "Kind",
    "LinkBroken",
    "Message",
    "Receiver",
    "Reign",
    "Sender",
    "StalePeer",
    "StreamGarbage",
]
