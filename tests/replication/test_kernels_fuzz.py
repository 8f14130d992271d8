"""Whatever comes as a packed frame: it is refused in words, or applied inside of RAM; nothing in between.

The same tests run once more with the kernels built with sanitizers, by test_kernels_sanitized.py.
"""

import ctypes
import struct
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


@settings(max_examples=300)
@given(
    st.lists(st.tuples(numbers, st.integers(0, 4), numbers, st.binary(max_size=40)), min_size=1, max_size=8),
    st.integers(-1, 1),
)
def test_blocks_made_up_from_nothing_are_judged_as_the_twin_judges_them(
    entries: list[tuple[int, int, int, bytes]], off: int
) -> None:
    table = b"".join(
        struct.pack("<IHH", number, kind, len(body) if kind else length & 0xFFFF)
        for number, kind, length, body in sorted(entries, key=lambda entry: entry[0])
    )
    bodies = b"".join(body for _, kind, _, body in sorted(entries, key=lambda entry: entry[0]) if kind)
    content = table + bodies
    block = struct.pack("<IIII", len(entries) + off, 0, len(content), len(content)) + content
    head = struct.pack("<QQIIII", 0, RAM_PAGES, len(entries) + off, 1, 1, 0)
    frame = seal(b"OLPG" + bytes(4) + head + block)
    assert offer(frame) == twin.holds(frame, RAM_PAGES)


@given(st.binary(max_size=300))
def test_noise_is_no_frame(noise: bytes) -> None:
    with pytest.raises(PackedInvalid):
        check(noise, RAM_PAGES)
    with pytest.raises(PackedInvalid):
        packed_size(noise)


def test_frame_for_another_ram_is_refused_in_words() -> None:
    with pytest.raises(PackedInvalid, match="another size"):
        check(frames(True)[0], RAM_PAGES + 1)
