"""What stands in a checkpoint is read back as it was written, or refused with a reason; nothing else happens."""

import contextlib
import os
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.replication.checkpoint import (
    DataFile,
    DiskChain,
    DiskLayer,
    Hardware,
    is_inside,
    is_label,
    name_of,
    order_of,
    pack,
    refusal,
    unpack,
)
from outlive.replication.checkpoint_errors import CheckpointDamaged
from outlive.replication.checkpoint_files import make_file
from outlive.replication.checkpoint_hardware import hardware_of
from outlive.replication.checkpoint_merging import merge
from outlive.replication.checkpoint_pages import PageSet, PageWriter, pieces, read_blocks

from .checkpoint_made import HARDWARE, PAGES, datastore_with_folder, page, unfinished

DISK = DiskChain("root", 1 << 20, (DiskLayer("data/web/root.raw", "raw"),))


def test_names_sort_by_generation_and_then_sequence() -> None:
    names = [name_of(2, 1), name_of(10, 1), name_of(2, 11), name_of(2, 2)]
    assert [order_of(name) for name in sorted(names)] == [(2, 1), (2, 2), (2, 11), (10, 1)]
    with pytest.raises(ValueError, match="no checkpoint"):
        name_of(10**20, 1)


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    told = unfinished(datastore_with_folder(tmp_path), {3: page(3)}, disks=(DISK,), label="before-upgrade")
    assert unpack(pack(told), told.name) == told


@pytest.mark.parametrize(
    "changed",
    [
        {"name": name_of(1, 2)},
        {"generation": 2},
        {"parent": name_of(1, 7)},
        {"parent": "../../etc"},
        {"workload": "../x"},
        {"label": "a/b"},
        {"label": name_of(1, 1)},
        {"memory": DataFile("../memory.pages", 1, "0" * 64)},
        {"memory": DataFile("memory.state", 1, "0" * 64)},
        {"memory": DataFile("memory.pages", -1, "0" * 64)},
        {"device": DataFile("device.state", 1, "xyz")},
        {"hardware": replace(HARDWARE, memory_mib=0)},
        {"disks": (DISK, DISK)},
        {"disks": (replace(DISK, name="../x"),)},
        {"disks": (replace(DISK, layers=()),)},
        {"disks": (replace(DISK, layers=(DiskLayer("/etc/passwd", "raw"),)),)},
        {"disks": (replace(DISK, layers=(DiskLayer("data/../../x", "raw"),)),)},
        {"disks": (replace(DISK, layers=(DiskLayer("data/x", "vmdk"),)),)},
    ],
)
def test_what_no_checkpoint_can_be_is_neither_written_nor_believed(tmp_path: Path, changed: dict[str, object]) -> None:
    told = unfinished(datastore_with_folder(tmp_path), {})
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence is not what this is about
        pack(replace(told, **changed))  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=300))
def test_noise_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(CheckpointDamaged):
        unpack(raw, name_of(1, 1))


def test_a_manifest_that_was_changed_anywhere_is_refused(tmp_path: Path) -> None:
    told = unfinished(datastore_with_folder(tmp_path), {1: page(1)}, disks=(DISK,))
    raw = pack(told)
    chance = random.Random(7)
    for _ in range(500):
        garbled = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            match chance.randrange(3):
                case 0:
                    garbled[chance.randrange(len(garbled))] = chance.randrange(256)
                case 1:
                    del garbled[chance.randrange(len(garbled)) :]
                case _:
                    garbled.insert(chance.randrange(len(garbled) + 1), chance.randrange(256))
        with contextlib.suppress(CheckpointDamaged):
            assert unpack(bytes(garbled), told.name) == told  # only white space may differ


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_path_of_a_manifest_never_leaves_the_datastore(path: str) -> None:
    if is_inside(path):
        assert os.path.normpath(f"/ds/{path}") == f"/ds/{path}"


def test_a_label_is_a_plain_word_and_no_name_of_a_checkpoint() -> None:
    assert is_label("before-upgrade_2")
    assert not any(map(is_label, ("", "a b", "../x", ".x", name_of(1, 1), "x" * 300)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("emulator", "9.0.0"), ("cpu_model", "max"), ("machine", "pc-q35-8.0"), ("accelerator", "kvm"), ("cpus", 2)],
)
def test_other_hardware_is_refused_with_both_values(field: str, value: object) -> None:
    reason = refusal(HARDWARE, replace(HARDWARE, **{field: value}))  # type: ignore[arg-type]
    assert str(getattr(HARDWARE, field)) in reason
    assert str(value) in reason
    assert refusal(HARDWARE, replace(HARDWARE)) == ""


def test_other_devices_are_refused_by_name() -> None:
    assert "-device y" in refusal(HARDWARE, replace(HARDWARE, devices=("-device x", "-device y")))


def test_hardware_is_what_the_guest_sees_of_a_command_line() -> None:
    def words(ram: str, tap: str) -> list[str]:
        return [
            "/usr/bin/qemu", "-machine", "pc-q35-7.2,usb=off,memory-backend=ram0", "-accel", "tcg", "-cpu", "qemu64",
            "-object", f'{{"id":"ram0","mem-path":"{ram}"}}', "-netdev", f"tap,id=n0,ifname={tap}",
            "-device", '{"id":"nic0","driver":"virtio-net-pci"}',
        ]  # fmt: skip

    here = hardware_of(words("/dev/shm/a", "tap0"), "7.2.22", 512, 2)
    assert here == hardware_of(words("/dev/shm/b", "tap7"), "7.2.22", 512, 2)
    assert here == Hardware(
        "7.2.22", "pc-q35-7.2", "qemu64", "tcg", 2, 512,
        ("-machine usb=off", '-device {"driver":"virtio-net-pci","id":"nic0"}'),
    )  # fmt: skip


runs = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 40)), max_size=8)


@settings(max_examples=50, deadline=None)
@given(rounds=st.lists(st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3), max_size=40), max_size=5))
def test_merging_is_the_newest_of_every_page(rounds: list[dict[int, int]]) -> None:
    files = []
    truth: dict[int, bytes] = {}
    fds = [os.memfd_create("pages") for _ in range(len(rounds) + 1)]
    try:
        for fd, pages in zip(fds, rounds, strict=False):
            writer = PageWriter(fd)
            numbers = sorted(pages)
            for piece in pieces([(number, 1) for number in numbers], 7):
                contents = [page(pages[first]) if pages[first] else bytes(4096) for first, _ in piece]
                writer.append(piece, b"".join(contents))
                truth.update(zip([first for first, _ in piece], contents, strict=True))
            files.append((fd, writer.finish("memory.pages")))
        merged = PageWriter(fds[-1])
        merge(files, PAGES, merged)
        found: dict[int, bytes] = {}
        for block in read_blocks(fds[-1], merged.finish("merged.pages"), PAGES):
            content = block.content()
            for first, count in block.data:
                for number in range(first, first + count):
                    assert number not in found
                    found[number], content = content[:4096], content[4096:]
            assert block.zeros == ()
        assert found == {number: content for number, content in truth.items() if any(content)}
    finally:
        for fd in fds:
            os.close(fd)


def test_every_changed_byte_of_a_file_of_pages_is_found(tmp_path: Path) -> None:
    fd = make_file(tmp_path / "memory.pages")
    writer = PageWriter(fd)
    writer.append([(0, 2), (9, 1)], page(0) + bytes(4096) + page(9))
    writer.append([(4, 1)], page(4))
    told = writer.finish("memory.pages")
    chance = random.Random(3)
    for at in [*range(60), *(chance.randrange(told.bytes) for _ in range(100))]:
        before = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([before[0] ^ 1 << chance.randrange(8)]), at)
        with pytest.raises(CheckpointDamaged):
            list(read_blocks(fd, told, PAGES))
        os.pwrite(fd, before, at)
    assert len(list(read_blocks(fd, told, PAGES))) == 2
    os.truncate(fd, told.bytes - 1)
    with pytest.raises(CheckpointDamaged, match="bytes"):
        list(read_blocks(fd, told, PAGES))
    os.close(fd)


def test_a_small_file_that_names_all_of_memory_again_and_again_is_refused(tmp_path: Path) -> None:
    fd = make_file(tmp_path / "memory.pages")
    writer = PageWriter(fd)
    for _ in range(3):
        writer.append_zeros([(0, PAGES)] * 100)
    told = writer.finish("memory.pages")
    assert len(list(read_blocks(fd, told, PAGES))) == 3
    with pytest.raises(CheckpointDamaged, match="more pages than were written"):
        list(read_blocks(fd, replace(told, zero_pages=64 * PAGES), PAGES))
    os.close(fd)
    whole = unfinished(datastore_with_folder(tmp_path), {3: page(3)})
    with pytest.raises(ValueError, match="more pages than the machine could have written"):
        pack(replace(whole, memory=replace(whole.memory, zero_pages=told.zero_pages)))


def test_blocks_that_changed_places_or_are_missing_are_found(tmp_path: Path) -> None:
    fd = make_file(tmp_path / "memory.pages")
    writer = PageWriter(fd)
    ends = [writer.bytes]
    for number in (1, 2):
        writer.append([(number, 1)], page(7))
        ends.append(writer.bytes)
    told = writer.finish("memory.pages")
    head, one, two = (os.pread(fd, end - begin, begin) for begin, end in zip([0, *ends], ends, strict=False))
    os.pwrite(fd, head + two + one, 0)
    with pytest.raises(CheckpointDamaged, match="blocks that were written"):
        list(read_blocks(fd, told, PAGES))
    os.close(fd)


@settings(deadline=None)
@given(runs=runs)
def test_a_set_of_pages_gives_back_what_was_put_in(runs: list[tuple[int, int]]) -> None:
    pages = PageSet(PAGES + 64)
    pages.add(runs)
    told = pages.runs()
    wanted = sorted({number for first, count in runs for number in range(first, first + count)})
    assert [number for first, count in told for number in range(first, first + count)] == wanted
    assert all(end < first for (begin, count), (first, _) in pairwise(told) for end in [begin + count])
