"""What peers say over UDP, and what lies in a datastore: datagrams, slots, tables, the protected list, run locks."""

import json
import os
import tempfile
import zlib
from pathlib import Path

import msgspec

from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from outlive.datastore import locks, opening, protected, slots, tables
from outlive.datastore.block import CONTENT_BYTES
from outlive.wire import record
from outlive.wire.datagram import (
    Probe,
    ProbeAnswer,
    ProbeFor,
    ProbeReport,
    TablePart,
    TableRequest,
    pack,
    unpack,
)
from outlive.wire.receiver import Receiver
from outlive.wire.record import Refused
from outlive.wire.seal import Seal, Use
from outlive.wire.tables import TableAssembler

from .target import Target

SEAL = Seal("0123456789abcdef", b"k" * 32)
BOOT = "ab" * 16
HEAD = (SEAL.cluster, "a", BOOT, 7)
TABLE = ModuleTable((ModuleKey("web", 3, "main"), ModuleKey("web", 3, "side"), ModuleKey("redis", 2**63, "main")))
HEARTBEAT = Heartbeat(*HEAD, Flags.STORE_REACHABLE, 0.5, 9, TABLE.digest(), (ModuleStatus.RUNNING,) * 3)
MESSAGES = (
    HEARTBEAT,
    Probe(*HEAD, 5, "b", "c"),
    ProbeAnswer(*HEAD, 5, "c"),
    ProbeFor(*HEAD, 5, "b"),
    ProbeReport(*HEAD, 5, "b", True),
    TableRequest(*HEAD, TABLE.digest()),
    TablePart(*HEAD, TABLE.digest(), 0, 1, TABLE.modules),
)


def datagrams() -> list[bytes]:
    return [pack(message, SEAL) for message in MESSAGES]


def resealed(data: bytes) -> bytes:
    """The same datagram with the frame that it should have, so that only what it says can be wrong."""
    body = data[record.HEADER.size : -16]
    head = bytearray(data[: record.HEADER.size].ljust(record.HEADER.size, b"\0"))
    size = len(head) + len(body) + 16
    head[:3] = bytes((*record.MAGIC, record.VERSION))
    head[4:6] = (size & 0xFFFF).to_bytes(2, "big")
    head[8:16] = SEAL.cluster_bytes
    untagged = bytes(head) + body
    return untagged + SEAL.tag(Use.DATAGRAM, untagged)


def judge_datagram(data: bytes) -> None:
    assembler = TableAssembler()
    receiver = Receiver(SEAL, "own")
    for each in (data, resealed(data)):
        message = unpack(each, SEAL)
        receiver.accept(each, 1.0)
        if isinstance(message, Refused):
            continue
        assert unpack(pack(message, SEAL), SEAL) == message
        if isinstance(message, TablePart):
            assembler.add(message.host, message.digest, message.part, message.parts, message.modules)


def judge_slot(data: bytes) -> None:
    reader = slots.SlotReader(SEAL)
    reader.read("a", data)
    content = resealed(data[:1200]) if len(data) > 60 else data
    padded = content[:CONTENT_BYTES].ljust(CONTENT_BYTES, b"\0")
    block = padded + zlib.crc32(padded).to_bytes(4, "big")
    reader.read("a", block + SEAL.tag(Use.SLOT, block))


def judge_table(data: bytes) -> None:
    for raw in (data, data[:-16] + SEAL.tag(Use.TABLE, data[:-16])):
        tables.unpack_table("a", TABLE.digest(), raw, SEAL)
        tables.unpack_table("a", raw[12:20], raw, SEAL)


LISTED = protected.ProtectedList("a", 9, (protected.ProtectedWorkload("web", 3, "a"),))


def judge_protected(data: bytes) -> None:
    protected.unpack_protected(data, SEAL)
    try:
        content = msgspec.json.decode(data, type=protected.ProtectedList)
    except (ValueError, RecursionError):
        return
    protected.unpack_protected(protected.pack_protected(content, SEAL), SEAL)


def judge_marker(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / opening.MARKER).write_bytes(data)
        root = os.open(folder, os.O_RDONLY)
        try:
            opening.marker_in(root)
        finally:
            os.close(root)


def judge_lock(data: bytes) -> None:
    """The state that a holder of a run lock left, and what the program that looks at one answers."""
    locks._record(data.decode("latin-1"))
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        state.write_bytes(data)
        locks._read_state(state)


TARGETS = (
    Target("wire-datagram", judge_datagram, datagrams, most_bytes=1400),
    Target("datastore-slot", judge_slot, lambda: [slots.pack_slot(HEARTBEAT, SEAL)], most_bytes=5000),
    Target("datastore-table", judge_table, lambda: [tables.pack_table("a", TABLE, SEAL)]),
    Target(
        "datastore-protected", judge_protected,
        lambda: [protected.pack_protected(LISTED, SEAL), msgspec.json.encode(LISTED)], text=True,
    ),
    Target(
        "datastore-marker", judge_marker,
        lambda: [json.dumps({"format": opening.FORMAT, "cluster": SEAL.cluster}).encode()],
        refusals=(opening.FolderTrouble,), text=True,
    ),
    Target(
        "datastore-lock", judge_lock,
        lambda: [
            b"web 3", b'{"boot_id":"%s","pid":3,"start_ticks":4,"owner":"web","generation":3,"file":"/x","held":true}'
            % BOOT.encode(),
        ],
        text=True,
    ),
)  # fmt: skip
