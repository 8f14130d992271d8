"""The family of messages between agents, one UDP datagram each.

Here are the messages other than the heartbeat, and `pack` and `unpack` for all of them. Each carries its
sender's cluster, name, boot id and sequence. Whether a well-formed message is too old, `receiver` decides.

    HEARTBEAT                                     to every peer
    PROBE → PROBE_ANSWER                          "are you there?", whoever wants to know (asker)
    PROBE_FOR → PROBE_REPORT                      the leader lets a peer probe a host for it
    TABLE_REQUEST → TABLE_PART …                  the module table behind a digest, in numbered parts
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from outlive.cluster.heartbeat import DIGEST_BYTES, Heartbeat, ModuleKey

from .heartbeat import pack_body, unpack_body
from .record import Reason, Refused, close, open_record, read_name
from .seal import Seal
from .tables import MOST_PARTS, pack_rows, unpack_rows

_NONCE = Struct(">Q")
_PART = Struct(f">{DIGEST_BYTES}sHHH")


class Kind(IntEnum):
    """The kind byte of the envelope."""

    HEARTBEAT = 1
    PROBE = 2
    PROBE_ANSWER = 3
    PROBE_FOR = 4
    PROBE_REPORT = 5
    TABLE_REQUEST = 6
    TABLE_PART = 7


@dataclass(frozen=True, slots=True)
class Spoken:
    """Who says it, and the sender's number for it: the same four fields that begin a heartbeat."""

    cluster: str
    host: str
    boot_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Probe(Spoken):
    """Asks `target`, and only it, for an answer. asker: who wants to know, the sender or the leader."""

    nonce: int
    target: str
    asker: str


@dataclass(frozen=True, slots=True)
class ProbeAnswer(Spoken):
    """Answers a probe, with its nonce and asker; the sender is the host that was probed."""

    nonce: int
    asker: str


@dataclass(frozen=True, slots=True)
class ProbeFor(Spoken):
    """The sender asks the receiver to probe `target` and to report under this nonce."""

    nonce: int
    target: str


@dataclass(frozen=True, slots=True)
class ProbeReport(Spoken):
    """What came of the sender's probe of `target`, under the nonce of the ProbeFor that asked for it."""

    nonce: int
    target: str
    answered: bool


@dataclass(frozen=True, slots=True)
class TableRequest(Spoken):
    """Asks the receiver for its module table of this digest."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class TablePart(Spoken):
    """Part number `part` (from 0) of `parts` of the sender's module table."""

    digest: bytes
    part: int
    parts: int
    modules: tuple[ModuleKey, ...]


Message = Heartbeat | Probe | ProbeAnswer | ProbeFor | ProbeReport | TableRequest | TablePart


def pack(message: Message, seal: Seal) -> bytes:
    """Return the datagram. ValueError or struct.error when the message breaks a bound: our own mistake."""
    if message.cluster != seal.cluster:
        raise ValueError(f"a message of cluster {message.cluster} under the key of {seal.cluster}")
    match message:
        case Heartbeat():
            kind, body = Kind.HEARTBEAT, pack_body(message)
        case Probe():
            kind, body = Kind.PROBE, _with_names(message.nonce, message.target, message.asker)
        case ProbeAnswer():
            kind, body = Kind.PROBE_ANSWER, _with_names(message.nonce, message.asker)
        case ProbeFor():
            kind, body = Kind.PROBE_FOR, _with_names(message.nonce, message.target)
        case ProbeReport():
            kind = Kind.PROBE_REPORT
            body = _with_names(message.nonce, message.target) + bytes((message.answered,))
        case TableRequest():
            kind, body = Kind.TABLE_REQUEST, _digest(message.digest)
        case TablePart():
            if not 0 <= message.part < message.parts <= MOST_PARTS:
                raise ValueError(f"part {message.part} of {message.parts} cannot be")
            head = _PART.pack(_digest(message.digest), message.part, message.parts, len(message.modules))
            kind, body = Kind.TABLE_PART, head + pack_rows(message.modules)
    return close(seal, kind, message.host, message.boot_id, message.sequence, body)


def unpack(data: bytes, seal: Seal) -> Message | Refused:
    """Read a datagram from outside: a message whose tag held, or why not. Raises nothing for any bytes."""
    opened = open_record(seal, data)
    if isinstance(opened, Refused):
        return opened
    try:
        if opened.kind == 1:  # first and spelt out, since nine of ten messages are heartbeats
            return unpack_body(
                seal.cluster, opened.host, opened.boot_id, opened.sequence, data, opened.start, opened.end
            )
        read = _READERS.get(opened.kind)
        if read is None:
            return Refused(Reason.MALFORMED, f"messages of kind {opened.kind} are unknown", opened.host)
        spoken = (seal.cluster, opened.host, opened.boot_id, opened.sequence)
        return read(spoken, data[opened.start : opened.end])
    except (ValueError, IndexError, struct.error) as error:
        return Refused(Reason.MALFORMED, str(error), opened.host)


_Head = tuple[str, str, str, int]


def _read_probe(head: _Head, body: bytes) -> Message:
    nonce, (target, asker), rest = _names(body, 2)
    _ended(rest)
    return Probe(*head, nonce, target, asker)


def _read_probe_answer(head: _Head, body: bytes) -> Message:
    nonce, (asker,), rest = _names(body, 1)
    _ended(rest)
    return ProbeAnswer(*head, nonce, asker)


def _read_probe_for(head: _Head, body: bytes) -> Message:
    nonce, (target,), rest = _names(body, 1)
    _ended(rest)
    return ProbeFor(*head, nonce, target)


def _read_probe_report(head: _Head, body: bytes) -> Message:
    nonce, (target,), rest = _names(body, 1)
    if rest not in (b"\x00", b"\x01"):
        raise ValueError("a probe is answered or not")
    return ProbeReport(*head, nonce, target, rest == b"\x01")


def _read_table_request(head: _Head, body: bytes) -> Message:
    return TableRequest(*head, _digest(body))


def _read_table_part(head: _Head, body: bytes) -> Message:
    digest, part, parts, rows = _PART.unpack_from(body)
    if not 0 <= part < parts <= MOST_PARTS:
        raise ValueError(f"part {part} of {parts} cannot be")
    return TablePart(*head, digest, part, parts, unpack_rows(body[_PART.size :], rows))


_READERS: dict[int, Callable[[_Head, bytes], Message]] = {
    Kind.PROBE: _read_probe,
    Kind.PROBE_ANSWER: _read_probe_answer,
    Kind.PROBE_FOR: _read_probe_for,
    Kind.PROBE_REPORT: _read_probe_report,
    Kind.TABLE_REQUEST: _read_table_request,
    Kind.TABLE_PART: _read_table_part,
}


def _with_names(nonce: int, *names: str) -> bytes:
    raw = [name.encode("ascii") for name in names]
    return _NONCE.pack(nonce) + b"".join(bytes((len(name),)) + name for name in raw)


def _names(body: bytes, count: int) -> tuple[int, list[str], bytes]:
    (nonce,) = _NONCE.unpack_from(body)
    at = _NONCE.size
    names = []
    for _ in range(count):
        end = at + 1 + body[at]
        names.append(read_name(body[at + 1 : end]))
        at = end
    return nonce, names, body[at:]


def _ended(rest: bytes) -> None:
    if rest:
        raise ValueError(f"{len(rest)} bytes after the message's end")


def _digest(raw: bytes) -> bytes:
    if len(raw) != DIGEST_BYTES:
        raise ValueError(f"a table's digest has {DIGEST_BYTES} bytes, not {len(raw)}")
    return raw
