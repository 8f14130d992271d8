"""Whatever comes as a packed frame: it is refused in words, or applied inside of RAM; nothing in between.

`tests/fuzz` has the kernels built with sanitizers read much more of the kind.
"""

import ctypes
import struct
from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.replication.kernels import HEADER_BYTES, PackedInvalid, Packer, apply, check, packed_size
from outlive.replication.library import Fault, pages_library
from outlive.replication.memory import PAGE_BYTES, Memory

from . import page_twin as twin
from .page_scene import packed, shared_memory, write

RAM_PAGES = 130
FILLED = b"\xa5"


@cache
def frames(compress: bool) -> list[bytes]:
    """Frames with every kind of page, in one block and in several."""
    memory = shared_memory(RAM_PAGES)
    packer = Packer(RAM_PAGES, shadow_bytes=RAM_PAGES * PAGE_BYTES, compress=compress)
    made = []
    for how in ("text", "words", "noise", "byte", "zeros", "words"):
        for page in range(0, RAM_PAGES, 3 if how == "text" else 11):
            write(memory, page, how, page)
        made.append(packed(memory, list(range(0, RAM_PAGES, 1 if how == "text" else 11)), packer))
    return made


def seal(frame: bytes) -> bytes:
    """Give a frame the length and checksum that it should have, so that only its content can be wrong."""
    if len(frame) < HEADER_BYTES:
        return frame
    rest = struct.pack("<Q", len(frame)) + frame[16:]
    return frame[:4] + struct.pack("<I", pages_library().pages_crc32c(rest, len(rest), 0)) + rest


numbers = st.one_of(
    st.integers(0, 70),
    st.sampled_from((RAM_PAGES - 1, RAM_PAGES, 511, 512, 513, 4096, 2**16 - 1, 2**31, 2**32 - 1)),
)
mutations = st.lists(
    st.tuples(
        st.integers(0, 2**20),
        st.sampled_from(("byte", "u16", "u32", "cut", "insert", "double")),
        numbers,
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def mutate(frame: bytes, changes: list[tuple[int, str, int, bool]]) -> bytes:
    out = bytearray(frame)
    for where, what, value, early in changes:
        at = where % (min(len(out), 120) if early else len(out)) if out else 0
        if what == "cut":
            del out[at : at + value]
        elif what == "insert":
            out[at:at] = bytes(value % 50)
        elif what == "double":
            out[at:at] = out[at : at + value % 5000]
        else:
            size = {"byte": 1, "u16": 2, "u32": 4}[what]
            out[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(out)


def offer(frame: bytes) -> bool:
    """Check a frame and apply it if it is accepted; it may only touch RAM, and must not when it is refused."""
    around = Memory.allocate((RAM_PAGES + 2) * PAGE_BYTES)
    around.view[:] = FILLED * len(around.view)
    ram = around.address + PAGE_BYTES
    scratch = Memory.allocate(pages_library().pages_scratch_bytes())
    try:
        accepted = check(frame, RAM_PAGES)
    except PackedInvalid:
        # Even where check is not asked: what is written stays inside.
        pages_library().pages_apply(frame, len(frame), RAM_PAGES, scratch.address, ctypes.byref(Fault()), ram)
        holds = False
    else:
        memory = Memory.allocate(RAM_PAGES * PAGE_BYTES)
        assert apply(accepted, memory) == accepted.pages
        if twin.is_plain(frame):
            expected = bytearray(RAM_PAGES * PAGE_BYTES)
            twin.apply(frame, expected)
            assert memory.view == expected
        holds = True
    edges = (around.view[:PAGE_BYTES], around.view[-PAGE_BYTES:])
    assert all(bytes(edge) == FILLED * PAGE_BYTES for edge in edges)
    return holds


@given(st.booleans(), st.integers(0, 5), st.integers(0, 2**20), st.integers(1, 255))
def test_any_changed_byte_is_noticed(compress: bool, which: int, where: int, flip: int) -> None:
    frame = bytearray(frames(compress)[which])
    frame[where % len(frame)] ^= flip
    with pytest.raises(PackedInvalid):
        check(frame, RAM_PAGES)


@given(st.booleans(), st.integers(0, 5), st.integers(0, 2**20))
def test_any_part_of_a_frame_is_refused(compress: bool, which: int, length: int) -> None:
    frame = frames(compress)[which]
    with pytest.raises(PackedInvalid):
        check(memoryview(frame)[: length % len(frame)], RAM_PAGES)


@settings(max_examples=150)
@given(st.integers(0, 5), mutations)
def test_sealed_nonsense_is_judged_as_the_twin_judges_it(which: int, changes: list[tuple[int, str, int, bool]]) -> None:
    # A frame of few pages, since the twin is slow.
    frame = frames(False)[which]
    small = frame if len(frame) < 20_000 else frames(False)[3]
    mutated = seal(mutate(small, changes))
    assert offer(mutated) == twin.holds(mutated, RAM_PAGES)


@settings(max_examples=300)
@given(st.integers(0, 5), mutations)
def test_sealed_compressed_nonsense_stays_inside_ram(which: int, changes: list[tuple[int, str, int, bool]]) -> None:
    offer(seal(mutate(frames(True)[which], changes)))


@dataclass
class Entry:
    """One page of a frame as fields that can be wrong one by one."""

    number: int
    kind: int
    changes: list[list[int]]
    length: int = 0

    def body(self) -> bytes:
        if self.kind == twin.WHOLE:
            return bytes([self.number % 256]) * PAGE_BYTES
        if self.kind == twin.ZERO:
            return b""
        return b"".join(
            struct.pack("<HH", passed, words) + bytes([words % 256]) * fill for passed, words, fill in self.changes
        )


@st.composite
def made_up(draw: st.DrawFn) -> bytes:
    """A valid frame with, mostly, one thing wrong; sealed, so that nothing else gives it away."""
    entries = []
    for number in sorted(draw(st.sets(st.integers(0, RAM_PAGES - 1), min_size=1, max_size=5))):
        kind = draw(st.sampled_from((twin.ZERO, twin.CHANGED, twin.CHANGED, twin.WHOLE)))
        changes: list[list[int]] = []
        word = 0
        for _ in range(draw(st.integers(1, 3))):
            passed, words = draw(st.integers(0, 100)), draw(st.integers(1, 60))
            changes.append([passed, words, words * 8])
            word += passed + words
        if draw(st.booleans()):
            # Up to the page's very end.
            changes.append([512 - word - 1, 1, 8])
        entries.append(Entry(number, kind, changes))
        entries[-1].length = len(entries[-1].body())
    at = draw(st.integers(0, len(entries) - 1))
    entry, off = entries[at], draw(st.sampled_from((-8, -1, 1, 2, 8, 600, 65_535)))
    count, size, stored, method, pages, blocks, tail = len(entries), 0, 0, 0, len(entries), 1, b""
    wrong = draw(st.sampled_from(WRONGS))
    if wrong == "number":
        entry.number = draw(st.sampled_from((0, entries[at - 1].number, RAM_PAGES - 1, RAM_PAGES, 2**31, 2**32 - 1)))
    elif wrong == "kind":
        entry.kind = draw(st.sampled_from((0, 1, 2, 3, 65_535)))
    elif wrong == "length":
        entry.length = max(0, entry.length + off) & 0xFFFF
    elif wrong in ("passed", "words", "fill"):
        change = draw(st.sampled_from(entry.changes))
        field = ("passed", "words", "fill").index(wrong)
        change[field] = max(0, change[field] + off) if draw(st.booleans()) else 0
        change[field] = min(change[field], 65_535 if field < 2 else 5000)
        if draw(st.booleans()):
            change[2] = min(change[1] * 8, 4096 * 4)
        entry.length = len(entry.body()) & 0xFFFF
    elif wrong == "count":
        count = max(0, count + off)
    elif wrong == "pages":
        pages = max(0, pages + off)
    elif wrong == "blocks":
        blocks = draw(st.sampled_from((0, 2, 2**32 - 1)))
    elif wrong == "method":
        method = draw(st.sampled_from((2, 2**32 - 1)))
    elif wrong == "size":
        size = off
    elif wrong == "stored":
        stored = off
    elif wrong == "tail":
        tail = bytes(draw(st.integers(1, 40)))
    table = b"".join(struct.pack("<IHH", each.number, each.kind & 0xFFFF, each.length) for each in entries)
    content = table + b"".join(each.body() for each in entries)
    if wrong == "content":
        content += bytes(draw(st.sampled_from((1, 8, 300_000))))
    sizes = [max(0, len(content) + more) for more in (stored, size)]
    block = struct.pack("<IIII", count, method, *sizes) + content
    if wrong == "cut":
        block = block[: -draw(st.integers(1, len(block)))]
    head = struct.pack("<QQIIII", 0, RAM_PAGES, pages, blocks, 1, 0)
    return seal(b"OLPG" + bytes(4) + head + block + tail)


WRONGS = (
    "nothing", "number", "kind", "length", "passed", "words", "fill", "count", "pages", "blocks", "method", "size",
    "stored", "tail", "content", "cut",
)  # fmt: skip


@settings(max_examples=600)
@given(made_up())
def test_made_up_frames_are_judged_as_the_twin_judges_them(frame: bytes) -> None:
    assert offer(frame) == twin.holds(frame, RAM_PAGES)


def block_of(entries: list[tuple[int, int, bytes]]) -> bytes:
    table = b"".join(struct.pack("<IHH", number, kind, len(body)) for number, kind, body in entries)
    content = table + b"".join(body for _, _, body in entries)
    return struct.pack("<IIII", len(entries), 0, len(content), len(content)) + content


def frame_of(*blocks: bytes, pages: int) -> bytes:
    return seal(b"OLPG" + bytes(4) + struct.pack("<QQIIII", 0, RAM_PAGES, pages, len(blocks), 1, 0) + b"".join(blocks))


WHOLE = b"w" * PAGE_BYTES
ONE = struct.pack("<HH", 511, 1) + b"changed!"


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (frame_of(block_of([(5, 0, b""), (5, 0, b"")]), pages=2), "do not grow"),
        (frame_of(block_of([(5, 0, b"")]), block_of([(5, 2, WHOLE)]), pages=2), "do not grow"),
        (frame_of(block_of([(6, 0, b"")]), block_of([(5, 0, b"")]), pages=2), "do not grow"),
        (frame_of(block_of([(RAM_PAGES, 2, WHOLE)]), pages=1), "beyond the end of RAM"),
        (frame_of(block_of([(1, 3, b"")]), pages=1), "kind"),
        (frame_of(block_of([(1, 0, b"x")]), pages=1), "longer or shorter"),
        (frame_of(block_of([(1, 2, WHOLE[1:])]), pages=1), "longer or shorter"),
        (frame_of(block_of([(1, 2, WHOLE + b"x")]), pages=1), "longer or shorter"),
        (frame_of(block_of([(1, 1, b"\0\0\1")]), pages=1), "reaches beyond"),
        (frame_of(block_of([(1, 1, struct.pack("<HH", 1, 0))]), pages=1), "reaches beyond"),
        (frame_of(block_of([(1, 1, struct.pack("<HH", 512, 1) + b"8 bytes.")]), pages=1), "reaches beyond"),
        (frame_of(block_of([(1, 1, struct.pack("<HH", 0, 2) + b"8 bytes.")]), pages=1), "reaches beyond"),
        (frame_of(block_of([(1, 1, ONE + struct.pack("<HH", 0, 1) + b"8 bytes.")]), pages=1), "reaches beyond"),
        (frame_of(block_of([(1, 0, b"")]), pages=2), "more or fewer pages"),
        (frame_of(block_of([(1, 0, b"")]) + b"x", pages=1), "more or fewer pages"),
        (frame_of(block_of([]), pages=0), "block is longer"),
        (frame_of(block_of([(number, 0, b"") for number in range(65)]), pages=65), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 0, 9, 9) + bytes(8), pages=1), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 0, 8, 9) + bytes(9), pages=1), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 2, 8, 8) + bytes(8), pages=1), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 0, 9, 9) + bytes(9), pages=1), "longer or shorter"),
        (frame_of(struct.pack("<IIII", 1, 0, 300_000, 300_000) + bytes(300_000), pages=1), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 1, 8, 2**32 - 1) + bytes(8), pages=1), "block is longer"),
        (frame_of(struct.pack("<IIII", 1, 1, 8, 40) + bytes(8), pages=1), "cannot be decompressed"),
    ],
)
def test_each_fault_is_told_in_words(frame: bytes, cause: str) -> None:
    with pytest.raises(PackedInvalid, match=cause):
        check(frame, RAM_PAGES)
    assert not offer(frame)


def test_the_last_word_of_the_last_page_can_change() -> None:
    frame = frame_of(block_of([(RAM_PAGES - 1, 1, ONE)]), pages=1)
    memory = Memory.allocate(RAM_PAGES * PAGE_BYTES)
    apply(check(frame, RAM_PAGES), memory)
    assert bytes(memory.view[-16:]) == bytes(8) + b"changed!"


@given(st.binary(max_size=300))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(PackedInvalid):
        check(noise, RAM_PAGES)
    with pytest.raises(PackedInvalid):
        packed_size(noise)


def test_frame_for_another_ram_is_refused_in_words() -> None:
    with pytest.raises(PackedInvalid, match="another size"):
        check(frames(True)[0], RAM_PAGES + 1)
