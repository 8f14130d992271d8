"""The envelope of everything a host says: a fixed header, its name, a body, a tag.

Here is how an envelope is closed, and opened or refused; what stands in the body is in `heartbeat` and
`datagram`. Network byte order. Magic and version keep their place for ever, so that any version can name any
other.

    0  magic "OL"      2  version      3  kind        4  length of the whole    6  length of the host's name
    7  zero            8  cluster (8)  16 boot id (16)                          32 sequence (8)
    40 host's name, body, tag (16)
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from struct import Struct

from outlive.cluster.host import NAME

from .seal import TAG_BYTES, Seal, Use

VERSION = 1
MAGIC = b"OL"
MOST_BYTES = 1200  # fits one Ethernet frame, tunnels included, so that nothing is ever sent in fragments
MOST_SEQUENCE = 2**63 - 1

HEADER = Struct(">2sBBHBx8s16sQ")
_HEADER_BYTES = HEADER.size
_LEAST_BYTES = _HEADER_BYTES + 1 + TAG_BYTES


class Reason(StrEnum):
    """Why something that arrived or was read is not believed."""

    TOO_SHORT = "too-short"
    TOO_LARGE = "too-large"
    TRUNCATED = "truncated"
    NOT_OUTLIVE = "not-outlive"
    OTHER_VERSION = "other-version"
    FOREIGN_CLUSTER = "foreign-cluster"
    WRONG_TAG = "wrong-tag"
    MALFORMED = "malformed"
    OLD = "old-sequence"
    REPLAYED = "replayed"
    OWN = "own-message"
    TOO_MANY_SENDERS = "too-many-senders"
    HALF_WRITTEN = "half-written"
    OTHER_HOST = "other-host"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that is not believed. host: who it claims to be from, only when its tag held."""

    reason: Reason
    detail: str
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An envelope whose tag held. The body is data[start:end]."""

    kind: int
    host: str
    boot_id: str
    sequence: int
    start: int
    end: int


def close(seal: Seal, kind: int, host: str, boot_id: str, sequence: int, body: bytes) -> bytes:
    """Return the whole record. The caller keeps the bounds; breaking one is a ValueError or struct.error."""
    name = host.encode("ascii")
    length = _HEADER_BYTES + len(name) + len(body) + TAG_BYTES
    if length > MOST_BYTES or not NAME.fullmatch(host) or not 0 < sequence <= MOST_SEQUENCE:
        raise ValueError(f"a record of {length} bytes by {host!r} with sequence {sequence} cannot be sent")
    boot = bytes.fromhex(boot_id)
    if len(boot) != 16:
        raise ValueError(f"{boot_id!r} is no boot id: 32 hexadecimal characters")
    header = HEADER.pack(MAGIC, VERSION, kind, length, len(name), seal.cluster_bytes, boot, sequence)
    data = header + name + body
    return data + seal.tag(Use.DATAGRAM, data)


def open_record(seal: Seal, data: bytes) -> Opened | Refused:
    """Check an envelope from outside, cheapest checks first; nothing in it is believed before its tag holds.

    data: the datagram as it arrived, at most a few bytes more than MOST_BYTES.
    """
    size = len(data)
    if size < _LEAST_BYTES or size > MOST_BYTES:
        return _refuse_size(data)
    magic, version, kind, length, name_length, cluster, boot, sequence = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or length != size or cluster != seal.cluster_bytes:
        return _refuse_header(magic, version, length, size, cluster)
    end = size - TAG_BYTES
    if not seal.holds(Use.DATAGRAM, data[:end], data[end:]):
        return Refused(Reason.WRONG_TAG, "the tag is not of this cluster's key")
    start = _HEADER_BYTES + name_length
    try:
        host = read_name(data[_HEADER_BYTES:start])
    except ValueError as error:
        return Refused(Reason.MALFORMED, str(error))
    if start > end or not 0 < sequence <= MOST_SEQUENCE:
        return Refused(Reason.MALFORMED, "the header contradicts itself", host)
    return Opened(kind, host, boot.hex(), sequence, start, end)


@lru_cache(maxsize=16384)
def read_name(raw: bytes) -> str:
    """The name that these bytes spell. ValueError when they cannot name a host, workload or module."""
    name = raw.decode("ascii", "backslashreplace")
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} cannot be a name")
    return name


def _refuse_size(data: bytes) -> Refused:
    if len(data) > MOST_BYTES:
        return Refused(Reason.TOO_LARGE, f"more than {MOST_BYTES} bytes")
    return refuse_foreign(data) or Refused(Reason.TOO_SHORT, f"{len(data)} bytes are no record")


def _refuse_header(magic: bytes, version: int, length: int, size: int, cluster: bytes) -> Refused:
    if magic != MAGIC or version != VERSION:
        return refuse_foreign(magic + bytes((version,))) or Refused(Reason.NOT_OUTLIVE, "another protocol")
    if length > size:
        return Refused(Reason.TRUNCATED, f"{size} of {length} bytes")
    if length < size:
        return Refused(Reason.MALFORMED, f"{size - length} bytes after its end")
    return Refused(Reason.FOREIGN_CLUSTER, f"of cluster {cluster.hex()}")


def refuse_foreign(data: bytes) -> Refused | None:
    """A refusal if the first three bytes are of something else than this version of Outlive."""
    if len(data) < 3:
        return None
    if data[:2] != MAGIC:
        return Refused(Reason.NOT_OUTLIVE, "it does not begin as Outlive's records do")
    if data[2] != VERSION:
        return Refused(Reason.OTHER_VERSION, f"it speaks version {data[2]}, this host version {VERSION}")
    return None


def length_of(data: bytes) -> int:
    """How long the record at the beginning of `data` says that it is; nothing of it has been checked."""
    return int.from_bytes(data[4:6], "big")
