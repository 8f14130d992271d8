"""The state of machines on its way and at rest: hot stream, keep-alives, disks, packed pages, checkpoints, managers.

Checksums are put right before a parser is asked a second time, so that only what stands behind them can be wrong.
"""

import hashlib
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import zstandard

from outlive.errors import UsageInvalid
from outlive.replication import (
    beginning,
    checkpoint,
    checkpoint_files,
    checkpoint_folder,
    checkpoint_pages,
    comm_config,
    control,
    disk_writes,
    frames,
    handshake,
    keepalive,
    kernels,
    nbd,
    stream,
    tracking,
)
from outlive.replication.checkpoint_errors import CheckpointDamaged, GenerationOld
from outlive.replication.library import pages_library
from outlive.replication.link import LinkBroken
from outlive.replication.memory import PAGE_BYTES, Memory

from ..replication.page_scene import packed as pack_pages
from ..replication.page_scene import shared_memory, write
from .target import Target

REIGN = stream.Reign("0123456789abcdef", "vm1", 3, 7)
KEY = b"k" * 32
SIZES = (1 << 20, 4096)
HELLO = handshake.Hello(
    REIGN.cluster,
    REIGN.workload,
    3,
    7,
    "a",
    1 << 20,
    (handshake.DiskShape("disk0", SIZES[0]),),
    ("52:54:00:00:00:01",),
    KEY,
)
WELCOME = handshake.Welcome("welcome", "b", disks=(disk_writes.DiskLabel("disk0", 3, 6, 9, True),))
STATE = b"QEVM" + bytes(range(200))
FRAMES = frames.join_frames([b"frame" * 20, b"x" * 1514])
WRITES = (
    disk_writes.DiskWrite(0, 512, 1024, bytearray(b"w" * 1024)),
    disk_writes.DiskWrite(1, 0, 4096, None),
)


class Tape:
    """A connection in memory, one way."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    def send(self, data: stream.Bytes, within_s: float) -> None:
        self.content += data

    def receive_into(self, target: memoryview, within_s: float | None) -> None:
        if len(target) > len(self.content):
            raise LinkBroken("The tape ends here.")
        target[:] = self.content[: len(target)]
        del self.content[: len(target)]


def step() -> bytes:
    state = zstandard.ZstdCompressor(level=1).compress(STATE)
    head = handshake.StepHead(2, 1, len(state), (len(FRAMES),))
    return handshake.pack_head(head) + state + FRAMES


def writes() -> bytes:
    return b"".join(b"".join(bytes(part) for part in parts) for parts in disk_writes.pack(WRITES))


RAM_PAGES = 20


@cache
def packed(compress: bool) -> bytes:
    """Packed pages of a small machine: whole ones, zeros, and changes against what the receiver holds."""
    memory = shared_memory(RAM_PAGES)
    packer = kernels.Packer(RAM_PAGES, shadow_bytes=RAM_PAGES * PAGE_BYTES, compress=compress)
    for how in ("text", "zeros", "words"):
        for page in range(0, RAM_PAGES, 3):
            write(memory, page, how, page)
        frame = pack_pages(memory, list(range(0, RAM_PAGES, 2)), packer)
    return frame


PAYLOADS: tuple[tuple[stream.Kind, Callable[[], bytes]], ...] = (
    (stream.Kind.HELLO, lambda: handshake.pack(HELLO)),
    (stream.Kind.WELCOME, lambda: handshake.pack(WELCOME)),
    (stream.Kind.EPOCH, step),
    (stream.Kind.DISK, writes),
    (stream.Kind.INPUT, lambda: FRAMES),
    (stream.Kind.PAGES, lambda: packed(False)),
    (stream.Kind.ACKNOWLEDGED, lambda: b""),
)


def streams() -> list[bytes]:
    tape = Tape()
    sender = stream.Sender(tape, REIGN)
    for kind, payload in PAYLOADS:
        sender.send(kind, [payload()], epoch=4, within_s=1)
    return [bytes(tape.content)]


def judge_stream(data: bytes) -> None:
    """As it came; and with the next payload's length and checksum put right."""
    for content in (data, _framed(data)):
        receiver = stream.Receiver(Tape(content), REIGN)
        with suppress(LinkBroken, stream.StreamGarbage):
            while True:
                message = receiver.receive(1)
                judge_payload(bytes((message.kind,)) + bytes(message.payload))


def _framed(data: bytes) -> bytes:
    header = bytearray(data[: stream.HEADER_BYTES - 4].ljust(stream.HEADER_BYTES - 4, b"\0"))
    body = data[stream.HEADER_BYTES :]
    header[:4] = stream.MAGIC
    header[4] = stream.VERSION
    header[8:32] = struct.pack("<QQQ", REIGN.scope, REIGN.generation, REIGN.pairing)
    header[32:40] = bytes(8)
    header[-4:] = len(body).to_bytes(4, "little")
    return bytes(header) + struct.pack("<I", zlib.crc32(body, zlib.crc32(header))) + body


def payloads() -> list[bytes]:
    return [bytes((kind,)) + payload() for kind, payload in PAYLOADS]


PAYLOAD_REFUSALS = (stream.StreamGarbage, kernels.PackedInvalid, frames.FramesInvalid)


def judge_payload(data: bytes) -> None:
    """A message's content, its kind before it: as the standby and the primary read it."""
    kind, payload = data[:1], memoryview(data)[1:]
    with suppress(*PAYLOAD_REFUSALS):
        match kind[0] if kind else 0:
            case stream.Kind.HELLO:
                handshake.unpack(payload, handshake.Hello)
            case stream.Kind.WELCOME:
                handshake.unpack(payload, handshake.Welcome)
            case stream.Kind.EPOCH:
                _, state, output = handshake.unpack_step(payload, 1)
                for one in output:
                    frames.split_frames(one)
                handshake.unpack_state(state)
            case stream.Kind.DISK:
                for write in disk_writes.unpack(payload, SIZES):
                    assert write.offset + write.length <= SIZES[write.disk]
            case stream.Kind.PAGES:
                judge_pages(bytes(payload))
            case _:
                frames.split_frames(bytes(payload))


def sealed_pages(frame: bytes) -> bytes:
    if len(frame) < kernels.HEADER_BYTES:
        return frame
    rest = struct.pack("<Q", len(frame)) + frame[16:]
    return frame[:4] + struct.pack("<I", pages_library().pages_crc32c(rest, len(rest), 0)) + rest


def judge_pages(data: bytes) -> None:
    memory = Memory.allocate(RAM_PAGES * PAGE_BYTES)
    for raw in (data, sealed_pages(data)):
        with suppress(kernels.PackedInvalid):
            kernels.packed_size(raw)
        with suppress(kernels.PackedInvalid):
            kernels.apply(kernels.check(raw, RAM_PAGES), memory)


def pulses() -> list[bytes]:
    return [keepalive.pack(keepalive.Pulse(primary, 5, 6), REIGN, KEY) for primary in (True, False)]


def judge_pulse(data: bytes) -> None:
    body = data[: keepalive.SIZE - 16]
    for raw in (data, body + hashlib.blake2b(body, key=KEY, digest_size=16).digest()):
        keepalive.unpack(raw, REIGN, KEY)


STATUS = control.Status("paired", 3, 7, port=4000)


def judge_control(data: bytes) -> None:
    for decode in (control.decode_command, control.decode_event):
        with suppress(msgspec.DecodeError):
            decode(data)


CONFIG = comm_config.CommConfig(
    "primary", REIGN.cluster, "a", "vm1", 3, 7, "/run/vm1", "/run/vm1/qmp", 77, "/dev/shm/vm1", 1 << 20, "/run/watch",
    (comm_config.Held("net0", "tap0", "/run/ours", "/run/theirs", "52:54:00:00:00:01"),),
    (comm_config.ReplicatedDisk("disk0", "node0", "/srv/disk0", 1 << 20),), comm_config.HotValues(),
)  # fmt: skip


def in_folder(name: str, judge: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A judge of a file of that name."""

    def judged(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(data)
            judge(Path(folder))

    return judged


HARDWARE = checkpoint.Hardware("7.2.22", "pc-q35-7.2", "qemu64", "tcg", 1, 1, ("-device x",))
DISKS = (checkpoint.DiskChain("disk0", 1 << 20, (checkpoint.DiskLayer("web/disk0.raw", "raw"),)),)
DIGEST = "0" * 64


def manifest(**more: object) -> checkpoint.Checkpoint:
    told = checkpoint.Checkpoint(
        checkpoint.FORMAT, "web", checkpoint.name_of(3, 2), 3, 2, checkpoint.name_of(3, 1), "a", 1.5, "asked", HARDWARE,
        checkpoint.DataFile("memory.pages", 100, DIGEST, 1, 2, 3), checkpoint.DataFile("device.state", 9, DIGEST),
        DISKS, 2.0, "before",
    )  # fmt: skip
    return replace(told, **more)  # type: ignore[arg-type]


def judge_manifest(data: bytes) -> None:
    with suppress(CheckpointDamaged):
        checkpoint.unpack(data, checkpoint.name_of(3, 2))
    told = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("checkpoint", msgspec.Raw(data))
    again = msgspec.json.encode(msgspec.json.decode(told, type=checkpoint.Checkpoint))
    sealed = b'{"checksum":"%s","checkpoint":%s}' % (hashlib.blake2b(again, digest_size=16).hexdigest().encode(), again)
    found = checkpoint.unpack(sealed, checkpoint.name_of(3, 2))
    assert checkpoint.unpack(checkpoint.pack(found), found.name) == found


def judge_records(folder: Path) -> None:
    """The small files beside checkpoints, all of which are tried with the one content."""
    raw = (folder / "content").read_bytes()
    for name in (
        checkpoint_folder.HEADS,
        checkpoint_folder.REIGN,
        beginning.ORIGIN,
        beginning.INCOMING,
        "lock",
        "labels",
    ):
        (folder / name).write_bytes(raw)
    for read in (
        lambda: checkpoint_folder.read_heads(folder),
        lambda: checkpoint_folder.check_reign(folder, 3),
        lambda: checkpoint_folder._lock_generation(folder / "lock"),
        lambda: beginning.read_origin(folder),
        lambda: beginning.opened_the_same(folder, "a"),
    ):
        with suppress(CheckpointDamaged, GenerationOld):
            read()


PAGES = HARDWARE.memory_mib * 256


def blocks() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        fd = checkpoint_files.make_file(Path(folder) / "memory.pages")
        writer = checkpoint_pages.PageWriter(fd)
        writer.append([(0, 2), (7, 1)], b"a" * PAGE_BYTES + bytes(PAGE_BYTES) + b"b" * PAGE_BYTES)
        writer.append_zeros([(20, 30)])
        os.close(fd)
        return [(Path(folder) / "memory.pages").read_bytes()]


HEAD_BYTES, BLOCK_HEAD_BYTES, BLOCK_DIGEST_BYTES = 16, 24, 32


def judge_pages_file(data: bytes) -> None:
    """A file of pages as it is; and its first block with the digest that it should have, so that its body is read."""
    body = data[HEAD_BYTES + BLOCK_HEAD_BYTES + BLOCK_DIGEST_BYTES :]
    head = data[HEAD_BYTES:][:BLOCK_HEAD_BYTES]
    digest = hashlib.blake2b(head + body, digest_size=BLOCK_DIGEST_BYTES).digest()
    for raw in (data, data[:HEAD_BYTES] + head + digest + body):
        told = checkpoint.DataFile("memory.pages", len(raw), DIGEST, 1, 4 * PAGES, 4 * PAGES)
        with tempfile.TemporaryFile() as file, suppress(CheckpointDamaged):
            file.write(raw)
            file.flush()
            for block in checkpoint_pages.read_blocks(file.fileno(), told, PAGES):
                assert len(block.content()) == checkpoint_pages.page_count(block.data) * PAGE_BYTES


def judge_state(folder: Path) -> None:
    raw = (folder / "device.state").read_bytes()
    told = checkpoint.DataFile("device.state", len(raw), hashlib.blake2b(raw, digest_size=32).hexdigest())
    checkpoint_files.read_state(folder, told)


def states() -> list[bytes]:
    return [zstandard.ZstdCompressor(level=1).compress(STATE)]


def image(data: bytes) -> None:
    """The header of a disk's layer."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "layer").write_bytes(data)
        checkpoint_files._header(Path(folder) / "layer", checkpoint.DiskLayer("layer", "qcow2"))


QCOW2 = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 104, 5, 16, 1 << 20).ljust(104, b"\0") + b"below"


class Disk:
    """What a client of NBD writes to."""

    size_bytes = 1 << 20

    def write(self, offset: int, data: bytearray) -> None:
        assert offset + len(data) <= self.size_bytes

    def zero(self, offset: int, length: int) -> None:
        assert offset + length <= self.size_bytes


def judge_nbd(data: bytes) -> None:
    """What QEMU says to the disk journal."""
    ours, theirs = socket.socketpair()
    with ours, theirs, suppress(EOFError):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        disk = nbd._negotiate(ours, {"disk0": Disk()})
        if disk is not None:
            nbd._transmit(ours, disk)


OPTION, NBD_REQUEST = struct.Struct(">8sII"), struct.Struct(">IHHQQI")
NBD = b"".join(
    (
        struct.pack(">I", 3),
        OPTION.pack(b"IHAVEOPT", 7, 11) + struct.pack(">I5sH", 5, b"disk0", 0),
        NBD_REQUEST.pack(0x25609513, 0, 1, 7, 4096, 8) + b"written.",
        NBD_REQUEST.pack(0x25609513, 0, 6, 8, 0, 4096),
        NBD_REQUEST.pack(0x25609513, 0, 3, 9, 0, 0),
        NBD_REQUEST.pack(0x25609513, 0, 2, 10, 0, 0),
    )
)


TARGETS = (
    Target("machine-stream", judge_stream, streams),
    Target("machine-message", judge_payload, payloads),
    Target("machine-pages", judge_pages, lambda: [packed(False), packed(True)]),
    Target("machine-pulse", judge_pulse, pulses, most_bytes=200),
    Target(
        "machine-control", judge_control,
        lambda: [control.encode(STATUS), control.encode(control.Adopt(3))],
        text=True,
    ),
    Target(
        "machine-config", in_folder("comm.json", lambda folder: comm_config.read_config(folder / "comm.json")),
        lambda: [msgspec.json.encode(CONFIG)], (UsageInvalid,), text=True,
    ),
    Target(
        "checkpoint-manifest", judge_manifest, lambda: [checkpoint.pack(manifest())],
        (CheckpointDamaged, ValueError, RecursionError), text=True,
    ),
    Target(
        "checkpoint-records", in_folder("content", judge_records),
        lambda: [
            msgspec.json.encode(checkpoint_folder.Heads(3, DISKS)), b'{"generation":3,"host":"a"}',
            msgspec.json.encode(beginning.Origin(3, ("g",), "g")),
        ],
        text=True,
    ),
    Target("checkpoint-pages", judge_pages_file, blocks, (CheckpointDamaged,)),
    Target("checkpoint-state", in_folder("device.state", judge_state), states, (CheckpointDamaged,)),
    Target("machine-nbd", judge_nbd, lambda: [NBD], (ValueError, OSError), most_bytes=16_384),
    Target(
        "machine-watch", in_folder("watch", lambda folder: tracking.read_pagewatch(folder / "watch", 1 << 20)),
        lambda: [b"7f0000000000 100000\n"], (tracking.TrackingFailed,), text=True,
    ),
    Target("checkpoint-image", image, lambda: [QCOW2], (ValueError, OSError), most_bytes=4096),
)  # fmt: skip
