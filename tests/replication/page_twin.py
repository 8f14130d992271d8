"""What the page kernels do, in plain Python: the same frames bit for bit, where nothing is compressed.

Slow and simple on purpose; written from the description of the format in `native/pages.h`.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PAGE = 4096
WORD = 8
BLOCK_PAGES = 64
CHANGE_MOST = PAGE * 3 // 4
ZERO, CHANGED, WHOLE = range(3)
ZEROS = bytes(PAGE)

Run = tuple[int, int]


def _after_bits(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_AFTER_BYTE = [_after_bits(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """CRC-32C, byte by byte."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _AFTER_BYTE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def page_of(ram: bytes | bytearray | memoryview, number: int) -> bytes:
    return bytes(ram[number * PAGE : (number + 1) * PAGE])


def pages_of(runs: Iterable[Run]) -> list[int]:
    return [page for first, count in runs for page in range(first, first + count)]


def runs_of(pages: Iterable[int]) -> list[Run]:
    runs: list[Run] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


def change(now: bytes, held: bytes) -> bytes | None:
    """The words that changed, None when they are too many to be worth it (or none)."""
    out = b""
    behind = word = 0
    differs = [now[at : at + WORD] != held[at : at + WORD] for at in range(0, PAGE, WORD)]
    while word < len(differs):
        if not differs[word]:
            word += 1
            continue
        end = word
        while end < len(differs) and differs[end]:
            end += 1
        out += struct.pack("<HH", word - behind, end - word) + now[word * WORD : end * WORD]
        if len(out) > CHANGE_MOST:
            return None
        behind = word = end
    return out or None


@dataclass
class TwinPacker:
    """Packs without compression; `slots` 0 remembers nothing."""

    ram_pages: int
    slots: int = 0
    held: dict[int, tuple[int, bytes]] = field(default_factory=dict)

    def encode(self, pages: Sequence[tuple[int, bytes]]) -> bytes:
        blocks = [self._block(pages[at : at + BLOCK_PAGES]) for at in range(0, len(pages), BLOCK_PAGES)]
        blocks = [block for block in blocks if block[0]]
        rest = b"".join(content for _, content in blocks)
        head = struct.pack(
            "<QQIIII", 40 + len(rest), self.ram_pages, sum(count for count, _ in blocks), len(blocks), 1, 0
        )
        return b"OLPG" + struct.pack("<I", crc32c(head + rest)) + head + rest

    def _block(self, pages: Sequence[tuple[int, bytes]]) -> tuple[int, bytes]:
        entries = bodies = b""
        count = 0
        for number, now in pages:
            known, held = self.held.get(number % self.slots, (-1, b"")) if self.slots else (-1, b"")
            if known == number and held == now:
                continue
            kind, body = WHOLE, now
            if now == ZEROS:
                kind, body = ZERO, b""
            elif known == number and (changed := change(now, held)):
                kind, body = CHANGED, changed
            if self.slots:
                self.held[number % self.slots] = (number, now)
            entries += struct.pack("<IHH", number, kind, len(body))
            bodies += body
            count += 1
        content = entries + bodies
        return count, struct.pack("<IIII", count, 0, len(content), len(content)) + content


def is_plain(packed: bytes) -> bool:
    """Whether a valid frame has no compressed blocks."""
    at = 40
    while at < len(packed):
        _, method, stored, _ = struct.unpack_from("<IIII", packed, at)
        if method != 0:
            return False
        at += 16 + stored
    return True


def apply(packed: bytes, ram: bytearray) -> None:
    """Apply a valid frame without compressed blocks."""
    at = 40
    (blocks,) = struct.unpack_from("<I", packed, 28)
    for _ in range(blocks):
        count, method, stored, size = struct.unpack_from("<IIII", packed, at)
        assert method == 0
        assert stored == size
        _apply_content(packed[at + 16 : at + 16 + stored], count, ram)
        at += 16 + stored
    assert at == len(packed)


def _apply_content(content: bytes, count: int, ram: bytearray) -> None:
    body = count * 8
    for index in range(count):
        number, kind, length = struct.unpack_from("<IHH", content, index * 8)
        page = bytearray(page_of(ram, number))
        if kind == ZERO:
            page[:] = ZEROS
        elif kind == WHOLE:
            page[:] = content[body : body + length]
        else:
            word, at = 0, body
            while at < body + length:
                passed, words = struct.unpack_from("<HH", content, at)
                word += passed
                page[word * WORD : (word + words) * WORD] = content[at + 4 : at + 4 + words * WORD]
                word += words
                at += 4 + words * WORD
        ram[number * PAGE : (number + 1) * PAGE] = page
        body += length


def holds(packed: bytes, ram_pages: int) -> bool:
    """Whether a frame without compressed blocks is whole and valid for this RAM."""
    if len(packed) < 40 or packed[:4] != b"OLPG":
        return False
    checksum, size, ram, pages, blocks, version, zero = struct.unpack_from("<IQQIIII", packed, 4)
    if (version, zero, size, ram) != (1, 0, len(packed), ram_pages) or checksum != crc32c(packed[8:]):
        return False
    at, seen = 40, [-1]
    for _ in range(blocks):
        if len(packed) - at < 16:
            return False
        count, method, stored, content_size = struct.unpack_from("<IIII", packed, at)
        content = packed[at + 16 : at + 16 + stored]
        if not 1 <= count <= BLOCK_PAGES or method != 0 or stored != content_size or len(content) != stored:
            return False
        if not _content_holds(content, count, ram_pages, seen):
            return False
        at += 16 + stored
    return at == len(packed) and len(seen) - 1 == pages


def _content_holds(content: bytes, count: int, ram_pages: int, seen: list[int]) -> bool:
    if not count * 8 <= len(content) <= BLOCK_PAGES * (PAGE + 8):
        return False
    body = count * 8
    for index in range(count):
        number, kind, length = struct.unpack_from("<IHH", content, index * 8)
        changed = content[body : body + length]
        if not seen[-1] < number < ram_pages or len(changed) != length:
            return False
        if kind == CHANGED and not _change_holds(changed):
            return False
        if kind != CHANGED and length != {ZERO: 0, WHOLE: PAGE}.get(kind, -1):
            return False
        seen.append(number)
        body += length
    return body == len(content)


def _change_holds(changed: bytes) -> bool:
    word = at = 0
    while at < len(changed):
        if len(changed) - at < 4:
            return False
        passed, words = struct.unpack_from("<HH", changed, at)
        word += passed + words
        at += 4 + words * WORD
        if words == 0 or word * WORD > PAGE or at > len(changed):
            return False
    return True
