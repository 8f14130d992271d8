"""What is said to etcd's JSON gateway, and what it answers, as values.

Integers of 64 bits travel as texts, keys and values in base64, and what is empty or nought is left out; all of that
is dealt with here. Everything that a gateway sends is read with suspicion: what is not of the right shape raises
`Garbled`, and nothing else.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from outlive.cluster.transaction import Compare, Delete, Field, Put, Transaction

PAGE_KEYS = 1000
NAMED_CERTIFICATE = "its gateway takes no certificate with a CommonName while users are on: this host's must have none"

T = TypeVar("T")


class Garbled(Exception):
    """An answer that is not of the shape that etcd's answers have; the text says in what way."""


class Header(msgspec.Struct, frozen=True):
    """Who answered, and how far its store was."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


class Kv(msgspec.Struct, frozen=True):
    """A key as etcd has it."""

    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0


class Ranged(msgspec.Struct, frozen=True):
    """Keys, all as they were at one revision; `more` when there were more than asked for."""

    header: Header
    kvs: tuple[Kv, ...] = ()
    more: bool = False
    count: int = 0


class Transacted(msgspec.Struct, frozen=True):
    """Whether the comparisons held, and the revision after it."""

    header: Header
    succeeded: bool = False


class Granted(msgspec.Struct, frozen=True):
    """A lease that was granted."""

    header: Header
    ID: int = 0
    TTL: int = 0


class KeptAlive(msgspec.Struct, frozen=True):
    """A lease's time after it began anew; 0: it is not known."""

    header: Header
    TTL: int = 0


class Done(msgspec.Struct, frozen=True):
    """An answer of which only the header matters."""

    header: Header = Header()


class Token(msgspec.Struct, frozen=True):
    """What shows who asks."""

    token: str
    header: Header = Header()


class Alarm(msgspec.Struct, frozen=True):
    """Something that a member complains of: NOSPACE, CORRUPT."""

    memberID: int = 0
    alarm: str = "NONE"


class Alarms(msgspec.Struct, frozen=True):
    """All that members complain of."""

    header: Header = Header()
    alarms: tuple[Alarm, ...] = ()


class Status(msgspec.Struct, frozen=True):
    """How one member is."""

    header: Header
    version: str = ""
    dbSize: int = 0
    leader: int = 0
    raftIndex: int = 0
    raftAppliedIndex: int = 0
    errors: tuple[str, ...] = ()
    isLearner: bool = False


class Member(msgspec.Struct, frozen=True):
    """One member of an etcd cluster."""

    ID: int = 0
    name: str = ""
    peerURLs: tuple[str, ...] = ()
    clientURLs: tuple[str, ...] = ()
    isLearner: bool = False


class Members(msgspec.Struct, frozen=True):
    """The members of an etcd cluster."""

    header: Header = Header()
    members: tuple[Member, ...] = ()


class Event(msgspec.Struct, frozen=True):
    """A change that a watch tells."""

    kv: Kv
    type: str = "PUT"


class Watched(msgspec.Struct, frozen=True):
    """One message of a watch. fragment: the last revision's changes go on in the next message."""

    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: tuple[Event, ...] = ()


class Fault(msgspec.Struct, frozen=True):
    """An answer that says why not. code: as gRPC numbers them; 2 is 'unknown'."""

    message: str
    code: int = 2


class _Streamed(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _FaultText(msgspec.Struct, frozen=True):
    message: str = ""
    error: str = ""
    code: int | None = None
    grpc_code: int | None = None


def read(raw: bytes, kind: type[T]) -> T:
    """One answer. Raises Garbled."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"{error}: {raw[:80]!r}") from error


def read_streamed(line: bytes, kind: type[T]) -> T | Fault:
    """One line of an answer that is a stream: a result of that kind, or why there is none. Raises Garbled."""
    streamed = read(line, _Streamed)
    if bytes(streamed.error):
        return read_fault(bytes(streamed.error))
    if not bytes(streamed.result):
        raise Garbled(f"neither result nor error: {line[:80]!r}")
    return read(bytes(streamed.result), kind)


def read_fault(raw: bytes) -> Fault:
    """Why a request was not done, in the ways that gateways of different versions say it. Raises Garbled."""
    if raw.startswith(b"CommonName of client"):
        return Fault(NAMED_CERTIFICATE, 7)
    told = read(raw, _FaultText)
    text = told.message or told.error
    code = told.grpc_code if told.grpc_code is not None else told.code
    if not text and code is None:
        raise Garbled(f"no reason: {raw[:80]!r}")
    return Fault(text, 2 if code is None else code)


def after_prefix(prefix: bytes) -> bytes:
    """The first key after all that start with `prefix`; b"\\0" when there is none, as etcd has it."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def range_request(key: bytes, end: bytes = b"", *, revision: int = 0, count_only: bool = False) -> bytes:
    """Ask for one key, or for those from `key` to before `end`, as at `revision` (0: now), linearizable."""
    request: dict[str, Any] = {"key": key, "limit": str(PAGE_KEYS)}
    if count_only:
        request = {"key": key, "count_only": True}
    if end:
        request["range_end"] = end
    if revision:
        request["revision"] = str(revision)
    return msgspec.json.encode(request)


def transaction_request(transaction: Transaction, prefix: bytes) -> bytes:
    """Ask for a transaction on keys below `prefix`.

    etcd takes one that neither writes nor reads for one that may be answered from the past; so where nothing is
    written, something is read.
    """
    looks = [] if transaction.writes else [{"request_range": {"key": prefix, "count_only": True}}]
    return msgspec.json.encode(
        {
            "compare": [_compare(each, prefix) for each in transaction.compares],
            "success": [_write(each, prefix) for each in transaction.writes] or looks,
            "failure": looks,
        }
    )


def absent_then_put(key: bytes, value: bytes) -> bytes:
    """Ask for a key to be written if there is none."""
    compare = {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": "0"}
    return msgspec.json.encode({"compare": [compare], "success": [{"request_put": {"key": key, "value": value}}]})


def put_request(key: bytes) -> bytes:
    """Ask for an empty key to be written."""
    return msgspec.json.encode({"success": [{"request_put": {"key": key}}]})


def watch_request(key: bytes, end: bytes, start_revision: int) -> bytes:
    """Ask for all changes from `start_revision` on, large ones in fragments."""
    create = {"key": key, "range_end": end, "start_revision": str(start_revision), "fragment": True}
    return msgspec.json.encode({"create_request": create})


def request(**fields: int | str | bool) -> bytes:
    """Ask with plain fields."""
    return msgspec.json.encode({name: _number(value) for name, value in fields.items()})


def _number(value: int | str | bool) -> str | bool:
    return value if isinstance(value, (bool, str)) else str(value)


def _compare(compare: Compare, prefix: bytes) -> dict[str, Any]:
    target = "CREATE" if compare.field is Field.CREATED else "MOD"
    key = prefix + compare.key.encode()
    return {"key": key, "target": target, "result": "EQUAL", compare.field.value: str(compare.revision)}


def _write(write: Put | Delete, prefix: bytes) -> dict[str, Any]:
    key = prefix + write.key.encode()
    if isinstance(write, Delete):
        return {"request_delete_range": {"key": key}}
    put: dict[str, Any] = {"key": key, "value": write.value}
    if write.lease is not None:
        put["lease"] = str(write.lease)
    return {"request_put": put}


def last_revision(events: Iterable[Event]) -> int:
    """The highest revision that changed anything among these; 0 for none."""
    return max((event.kv.mod_revision for event in events), default=0)
