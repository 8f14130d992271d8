"""The file that holds memory pages: blocks of compressed pages, each with its own digest; later blocks win.

    file   = "OLPAGES1", page size (u32), 0 (u32), blocks
    block  = head, runs, payload;  head = "PBLK", data runs (u32), zero runs (u32), 0 (u32), payload bytes (u64), digest
    runs   = first page (u32), pages (u32), the data runs first;  payload = one zstd frame of the data runs' pages
    digest = BLAKE2b, 32 bytes, of the head before it, the runs and the payload

All numbers are little-endian. A block holds at most BLOCK_PAGES pages with content; its zero runs have none. What a
reader takes from a file is checked against its digest before it is used, and every length against its bound.
"""

import hashlib
import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zstandard

from .checkpoint import PAGE_BYTES, DataFile
from .checkpoint_errors import CheckpointDamaged

BLOCK_PAGES = 512
MOST_RUNS = 1 << 20
LEVEL = 1

Run = tuple[int, int]
"""First page, number of pages."""

_FILE_HEAD = struct.Struct("<8sII")
_HEAD = struct.Struct("<4sIIIQ")
_DIGEST_BYTES = 32
_MAGIC = b"OLPAGES1"
_BLOCK_MAGIC = b"PBLK"
_ZERO = bytes(PAGE_BYTES)
_MOST_PAYLOAD = BLOCK_PAGES * PAGE_BYTES + 65536

assert sys.byteorder == "little"


def page_count(runs: Sequence[Run]) -> int:
    """How many pages the runs have together."""
    return sum(count for _, count in runs)


def read_fully(fd: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`; fewer only where the file ends."""
    found = os.pread(fd, size, offset)
    while 0 < len(found) < size:
        more = os.pread(fd, size - len(found), offset + len(found))
        if not more:
            break
        found += more
    return found


def write_fully(fd: int, raw: bytes | bytearray | memoryview, offset: int) -> None:
    """All of `raw` at `offset`."""
    rest = memoryview(raw)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


class PageWriter:
    """Appends blocks to an open, empty file. `finish` says what the manifest must know of it."""

    def __init__(self, fd: int, level: int = LEVEL) -> None:
        self._fd = fd
        self._compress = zstandard.ZstdCompressor(level=level, write_checksum=False)
        self._all = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self.pages = self.zero_pages = self.blocks = 0
        head = _FILE_HEAD.pack(_MAGIC, PAGE_BYTES, 0)
        write_fully(fd, head, 0)
        self.bytes = len(head)

    def append(self, runs: Sequence[Run], content: bytes | bytearray | memoryview) -> None:
        """Write at most BLOCK_PAGES pages. content: their bytes in the order of the runs; zero pages are found."""
        data, zeros, kept = _without_zeros(runs, content)
        self._put(data, zeros, self._compress.compress(kept) if kept else b"")

    def append_zeros(self, runs: Sequence[Run]) -> None:
        """Write that these pages, any number, are zero."""
        if runs:
            self._put((), runs, b"")

    def append_block(self, block: "Block") -> None:
        """Take over a block as it is, after its digest was checked by reading it."""
        self._put(block.data, block.zeros, block.payload)

    def finish(self, name: str) -> DataFile:
        """What was written. It is not synced."""
        return DataFile(name, self.bytes, self._all.hexdigest(), self.blocks, self.pages, self.zero_pages)

    def _put(self, data: Sequence[Run], zeros: Sequence[Run], payload: bytes) -> None:
        head = _HEAD.pack(_BLOCK_MAGIC, len(data), len(zeros), 0, len(payload))
        runs = array("I", [number for run in (*data, *zeros) for number in run]).tobytes()
        digest = _digest(head, runs, payload)
        for part in (head + digest + runs, payload):
            write_fully(self._fd, part, self.bytes)
            self.bytes += len(part)
        self._all.update(digest)
        self.blocks += 1
        self.pages += page_count(data)
        self.zero_pages += page_count(zeros)


@dataclass(frozen=True, slots=True)
class Block:
    """One block as it stands in a file, its digest already checked."""

    data: tuple[Run, ...]
    zeros: tuple[Run, ...]
    payload: bytes

    def content(self) -> bytes:
        """The pages of the data runs, one after the other."""
        size = page_count(self.data) * PAGE_BYTES
        if not size:
            return b""
        try:
            told = zstandard.frame_content_size(self.payload)
            if told != size:  # looked at before there is room made for it
                raise CheckpointDamaged(f"A block of pages has {told} bytes, not {size}.")
            return zstandard.ZstdDecompressor().decompress(self.payload)
        except zstandard.ZstdError as error:
            raise CheckpointDamaged("A block of pages cannot be unpacked.", cause=str(error)) from error


def read_blocks(fd: int, told: DataFile, memory_pages: int) -> Iterator[Block]:
    """The blocks of a file, in order, each checked. Raises CheckpointDamaged, at the latest at the end.

    told: what the manifest says of the file; its digest is of all blocks', so that none is missing or changed places.
    """
    if os.fstat(fd).st_size != told.bytes:
        raise CheckpointDamaged(f"{told.name} has {os.fstat(fd).st_size} bytes, not {told.bytes}.")
    if read_fully(fd, _FILE_HEAD.size, 0) != _FILE_HEAD.pack(_MAGIC, PAGE_BYTES, 0):
        raise CheckpointDamaged(f"{told.name} does not begin as files of pages do.")
    over_all = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    at, blocks, pages, zero_pages = _FILE_HEAD.size, 0, 0, 0
    while at < told.bytes:
        block, digest, at = _read_block(fd, at, told, memory_pages)
        over_all.update(digest)
        blocks += 1
        pages, zero_pages = pages + page_count(block.data), zero_pages + page_count(block.zeros)
        if pages > told.pages or zero_pages > told.zero_pages:
            # A few bytes can name all of memory again and again.
            raise CheckpointDamaged(f"{told.name} names more pages than were written.")
        yield block
    if over_all.hexdigest() != told.digest or blocks != told.blocks:
        raise CheckpointDamaged(f"{told.name} does not hold the blocks that were written.")


def _read_block(fd: int, at: int, told: DataFile, memory_pages: int) -> tuple[Block, bytes, int]:
    raw = read_fully(fd, _HEAD.size + _DIGEST_BYTES, at)
    where = f"{told.name}, block at {at}"
    if len(raw) < _HEAD.size + _DIGEST_BYTES:
        raise CheckpointDamaged(f"{where}: it ends too early.")
    head, digest = raw[: _HEAD.size], raw[_HEAD.size :]
    magic, data_runs, zero_runs, _, payload_bytes = _HEAD.unpack(head)
    runs_bytes = (data_runs + zero_runs) * 8
    begin = at + len(raw)
    end = begin + runs_bytes + payload_bytes
    if magic != _BLOCK_MAGIC or data_runs > BLOCK_PAGES or zero_runs > MOST_RUNS or payload_bytes > _MOST_PAYLOAD:
        raise CheckpointDamaged(f"{where}: it does not begin as blocks do.")
    if end > told.bytes:
        raise CheckpointDamaged(f"{where}: it ends too early.")
    body = read_fully(fd, runs_bytes + payload_bytes, begin)
    if _digest(head, body) != digest:
        raise CheckpointDamaged(f"{where}: its digest does not hold.")
    numbers = array("I", body[:runs_bytes])
    runs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    data, zeros = runs[:data_runs], runs[data_runs:]
    if page_count(data) > BLOCK_PAGES or any(count < 1 or first + count > memory_pages for first, count in runs):
        raise CheckpointDamaged(f"{where}: it names pages that the machine does not have.")
    return Block(data, zeros, body[runs_bytes:]), digest, end


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _without_zeros(
    runs: Sequence[Run], content: bytes | bytearray | memoryview
) -> tuple[list[Run], list[Run], bytes | bytearray | memoryview]:
    """Split the runs into those with content and those without, and return the content that is left."""
    if page_count(runs) * PAGE_BYTES != len(content) or len(content) > BLOCK_PAGES * PAGE_BYTES:
        raise ValueError(f"{len(content)} bytes are not the pages of these runs, or too many")
    data: list[Run] = []
    zeros: list[Run] = []
    kept: list[bytes] = []
    at = 0
    for first, count in runs:
        for page in range(first, first + count):
            one = bytes(content[at : at + PAGE_BYTES])
            at += PAGE_BYTES
            into = zeros if one == _ZERO else data
            if into is data:
                kept.append(one)
            if into and sum(into[-1]) == page:
                into[-1] = (into[-1][0], into[-1][1] + 1)
            else:
                into.append((page, 1))
    return data, zeros, content if not zeros else b"".join(kept)


def pieces(runs: Sequence[Run], most: int = BLOCK_PAGES) -> Iterator[list[Run]]:
    """The same pages in the same order, in groups of at most `most` pages."""
    group: list[Run] = []
    room = most
    for first, count in runs:
        while count:
            taken = min(count, room)
            group.append((first, taken))
            first, count, room = first + taken, count - taken, room - taken
            if not room:
                yield group
                group, room = [], most
    if group:
        yield group


class PageSet:
    """A set of page numbers of one machine, a byte a page, that gives its members as runs."""

    def __init__(self, pages: int) -> None:
        self._marks = bytearray(pages)

    def add(self, runs: Sequence[Run]) -> None:
        for first, count in runs:
            self._marks[first : first + count] = b"\1" * count

    def clear(self) -> None:
        self._marks = bytearray(len(self._marks))

    def runs(self) -> list[Run]:
        """Its members in order, as runs."""
        found: list[Run] = []
        at = self._marks.find(1)
        while at >= 0:
            end = self._marks.find(0, at)
            end = len(self._marks) if end < 0 else end
            found.append((at, end - at))
            at = self._marks.find(1, end)
        return found
