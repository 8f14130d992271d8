"""Guest pages reach the other side as they were: packed frames agree with the plain twin, and RAM with RAM."""

import gc
import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.errors import Failed
from outlive.replication.kernels import HEADER_BYTES, Packer, Staging, apply, check, checksum, packed_size
from outlive.replication.library import KernelFailed
from outlive.replication.memory import PAGE_BYTES, Memory, Runs, nonzero

from . import page_twin as twin
from .page_scene import PAGES, epochs, packed, shared_memory, stage, write


def laid_out(lengths: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs that lie a gap apart, as far as RAM goes."""
    runs, end = [], 0
    for gap, count in lengths:
        if end + gap + count <= PAGES:
            runs.append((end + gap, count))
            end += gap + count
    return runs


runs_lists = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20))).map(laid_out)


@given(st.binary(max_size=3000))
def test_checksum_is_the_twins_with_and_without_the_processors_instruction(data: bytes) -> None:
    assert checksum(data) == checksum(data, by_tables=True) == twin.crc32c(data)


def test_checksum_is_the_published_one() -> None:
    assert checksum(b"123456789") == 0xE3069283


@settings(max_examples=40)
@given(epochs, st.sampled_from((0, 7, 64, PAGES)))
def test_frames_are_the_twins_bit_for_bit(history: list[list[tuple[int, str, int]]], slots: int) -> None:
    memory, other = shared_memory(), bytearray(PAGES * PAGE_BYTES)
    packer = Packer(PAGES, shadow_bytes=slots * PAGE_BYTES, compress=False)
    plain = twin.TwinPacker(PAGES, slots)
    for written in history:
        for page, how, seed in written:
            write(memory, page, how, seed)
        pages = sorted({page for page, _, _ in written})
        frame = packed(memory, pages, packer)
        assert frame == plain.encode([(page, twin.page_of(memory.view, page)) for page in pages])
        twin.apply(frame, other)
    assert other == memory.view


@settings(max_examples=40)
@given(epochs, st.sampled_from((0, 7, PAGES)), st.booleans())
def test_other_side_holds_what_the_guest_held(
    history: list[list[tuple[int, str, int]]], slots: int, twice: bool
) -> None:
    memory, other = shared_memory(), Memory.allocate(PAGES * PAGE_BYTES)
    packer = Packer(PAGES, shadow_bytes=slots * PAGE_BYTES)
    for written in history:
        for page, how, seed in written:
            write(memory, page, how, seed)
        pages = sorted({page for page, _, _ in written})
        frame = packed(memory, pages, packer)
        counts = packer.counts
        accepted = check(frame, PAGES)
        assert accepted.pages == counts.zero + counts.delta + counts.raw == len(pages) - counts.same
        assert counts.packed_bytes == len(frame) == packed_size(frame[:HEADER_BYTES])
        for _ in range(1 + twice):
            assert apply(accepted, other) == accepted.pages
        assert other.view == memory.view


def test_frame_applied_again_after_half_of_it_gives_the_same_ram() -> None:
    memory, other = shared_memory(), Memory.allocate(PAGES * PAGE_BYTES)
    packer = Packer(PAGES, shadow_bytes=PAGES * PAGE_BYTES)
    for how in ("noise", "words"):
        for page in range(PAGES):
            write(memory, page, how, page)
        frame = packed(memory, list(range(PAGES)), packer)
        if how == "words":
            assert packer.counts.delta > PAGES // 2
            other.view[: PAGES // 2 * PAGE_BYTES] = memory.view[: PAGES // 2 * PAGE_BYTES]
        apply(check(frame, PAGES), other)
    assert other.view == memory.view


def test_forgotten_receiver_gets_whole_pages() -> None:
    memory = shared_memory()
    packer = Packer(PAGES, shadow_bytes=PAGES * PAGE_BYTES)
    write(memory, 5, "noise", 1)
    packed(memory, [5], packer)
    packed(memory, [5], packer)
    assert (packer.counts.same, packer.counts.packed_bytes) == (1, HEADER_BYTES)
    packer.forget()
    packed(memory, [5], packer)
    assert packer.counts.raw == 1


def test_compression_is_left_out_where_it_does_not_pay() -> None:
    memory = shared_memory()
    for page in range(100):
        write(memory, page, "noise" if page < 64 else "text", page)
    frame = packed(memory, list(range(100)))
    (first, second) = (40, 40 + 16 + 64 * (PAGE_BYTES + 8))
    assert struct.unpack_from("<II", frame, first) == (64, 0)
    assert struct.unpack_from("<II", frame, second) == (36, 1)
    assert len(frame) < second + 36 * 100


def test_nothing_dirty_makes_a_frame_of_no_pages() -> None:
    frame = Packer(PAGES).encode(Staging(1))
    assert len(frame) == HEADER_BYTES
    assert apply(check(frame, PAGES), Memory.allocate(PAGES * PAGE_BYTES)) == 0


@given(runs_lists, st.one_of(st.integers(0, 30), st.integers(0, PAGES + 5)), st.integers(1, PAGES))
def test_copies_come_in_order_in_as_many_pieces_as_there_is_room_for(
    runs: list[tuple[int, int]], skip: int, room: int
) -> None:
    memory = shared_memory()
    for page in range(PAGES):
        memory.view[page * PAGE_BYTES] = page
    staging = Staging(room)
    wanted = twin.pages_of(runs)[skip : skip + room]
    assert staging.copy_out(memory, Runs.of(runs), skip) == len(wanted)
    assert list(staging.numbers) == wanted
    assert [staging.data[at] for at in range(0, len(wanted) * PAGE_BYTES, PAGE_BYTES)] == wanted


@pytest.mark.parametrize("runs", [[(PAGES, 1)], [(PAGES - 1, 2)], [(2**32 - 1, 2**32 - 1)]])
def test_runs_beyond_ram_are_refused(runs: list[tuple[int, int]]) -> None:
    memory = shared_memory()
    with pytest.raises(KernelFailed):
        Staging(10).copy_out(memory, Runs.of(runs))
    with pytest.raises(KernelFailed):
        nonzero(memory, Runs.of(runs), Runs.for_pages(PAGES))


@given(runs_lists, runs_lists)
def test_runs_are_added_up(some: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    runs = Runs.for_pages(PAGES)
    runs.set(some)
    runs.add(Runs.of(more))
    together = sorted(set(twin.pages_of(some)) | set(twin.pages_of(more)))
    assert (list(runs), runs.pages) == (twin.runs_of(together), len(together))


@given(runs_lists, st.sets(st.integers(0, PAGES - 1)), st.integers(0, PAGE_BYTES - 1))
def test_only_pages_that_are_not_zero_are_left(runs: list[tuple[int, int]], full: set[int], offset: int) -> None:
    memory = shared_memory()
    for page in full:
        memory.view[page * PAGE_BYTES + offset] = 1
    left = nonzero(memory, Runs.of(runs), Runs.for_pages(PAGES))
    pages = [page for page in twin.pages_of(runs) if page in full]
    assert (list(left), left.pages) == (twin.runs_of(pages), len(pages))


def test_looking_for_pages_that_are_not_zero_does_not_fill_a_file(tmp_path: Path) -> None:
    memory = shared_memory(5000)
    memory.view[1234 * PAGE_BYTES + 77] = 9
    before = os.fstat(memory.fd).st_blocks
    assert list(nonzero(memory, Runs.of([(0, 5000)]), Runs.for_pages(5000))) == [(1234, 1)]
    assert os.fstat(memory.fd).st_blocks == before


def test_packer_refuses_pages_beyond_its_ram_before_it_remembers_anything() -> None:
    memory = shared_memory()
    write(memory, 3, "noise", 1)
    packer = Packer(100, shadow_bytes=100 * PAGE_BYTES)
    with pytest.raises(KernelFailed):
        packer.encode(stage(memory, [3, 100]))
    packer.encode(stage(memory, [3]))
    assert packer.counts.raw == 1


def test_packer_without_room_says_so() -> None:
    packer = Packer(PAGES, room_pages=10)
    memory = shared_memory()
    with pytest.raises(KernelFailed):
        packer.encode(stage(memory, list(range(11))))


def test_a_view_outlives_the_object_that_made_it() -> None:
    memory = shared_memory()
    memory.view[:5] = b"alive"
    view = memory.view[:5]
    del memory
    gc.collect()
    assert bytes(view) == b"alive"


def test_memory_is_unmapped_and_its_file_closed_with_its_last_view() -> None:
    memory = shared_memory()
    address, fd = f"{memory.address:x}-", memory.fd
    assert address in Path("/proc/self/maps").read_text()
    del memory
    gc.collect()
    assert address not in Path("/proc/self/maps").read_text()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_shorter_than_the_ram_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(3 * PAGE_BYTES))
    with pytest.raises(KernelFailed):
        Memory.map_file(tmp_path / "ram", 4 * PAGE_BYTES, writable=False)
    with pytest.raises(KernelFailed):
        Memory.map_file(tmp_path / "none", 4 * PAGE_BYTES, writable=False)


@pytest.mark.parametrize("size_bytes", [0, -4096, 4095, 4097, 2**44])
def test_impossible_sizes_are_refused(size_bytes: int, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(PAGE_BYTES))
    with pytest.raises(Failed):
        Memory.map_file(tmp_path / "ram", size_bytes, writable=False)


def test_a_read_only_mapping_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(random.Random(1).randbytes(PAGE_BYTES))
    memory = Memory.map_file(tmp_path / "ram", PAGE_BYTES, writable=False)
    with pytest.raises(TypeError):
        memory.view[0] = 1


def test_what_is_given_back_reads_as_zeros_and_the_rest_stays() -> None:
    memory = Memory.allocate(10 * PAGE_BYTES)
    memory.view[:] = b"x" * len(memory.view)
    memory.give_back(3 * PAGE_BYTES - 1)
    assert bytes(memory.view) == b"x" * 3 * PAGE_BYTES + bytes(7 * PAGE_BYTES)
