"""Disks as files: made once, whole or not at all, never over another."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.cluster.machine import Disk, DiskFormat
from outlive.runtime.vm.disks import DiskFailed, DiskMissing, ensure, make

EMPTY = Disk("root", size_mib=8)
MIB = 1024 * 1024


def sparse(path: Path, size: int, **runs: bytes) -> Path:
    """A file with holes: each run's name says where it begins, in KiB."""
    with path.open("wb") as file:
        file.truncate(size)
        for at, data in runs.items():
            file.seek(int(at.removeprefix("at")) * 1024)
            file.write(data)
    return path


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_empty_disk_takes_no_room(tmp_path: Path) -> None:
    await make(EMPTY, tmp_path / "root.raw")
    found = os.stat(tmp_path / "root.raw")
    assert (found.st_size, found.st_blocks, found.st_mode & 0o777) == (8 * MIB, 0, 0o600)
    assert left_over(tmp_path) == ["root.raw"]


async def test_a_copy_keeps_holes_and_may_be_larger_than_its_source(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", 4 * MIB + 512, at64=b"x" * 5000, at4096=b"end")
    await make(replace(EMPTY, source=str(source)), tmp_path / "vm" / "root.raw")
    copy = tmp_path / "vm" / "root.raw"
    assert copy.read_bytes() == source.read_bytes().ljust(8 * MIB, b"\0")
    assert copy.stat().st_blocks * 512 < MIB
    assert left_over(tmp_path / "vm") == ["root.raw"]


async def test_a_source_larger_than_the_disk_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", 9 * MIB)
    with pytest.raises(DiskFailed, match="more than size_mib = 8"):
        await make(replace(EMPTY, source=str(source)), tmp_path / "root.raw")
    assert left_over(tmp_path) == ["source"]


@pytest.mark.parametrize("form", list(DiskFormat))
@pytest.mark.parametrize("of", list(DiskFormat))
async def test_a_source_of_either_format_becomes_what_the_file_says(
    tmp_path: Path, of: DiskFormat, form: DiskFormat
) -> None:
    raw = sparse(tmp_path / "raw", 2 * MIB, at1024=b"hello")
    source = raw
    if of is DiskFormat.QCOW2:
        source = tmp_path / "source.qcow2"
        await make(Disk("source", DiskFormat.QCOW2, source=str(raw)), source)
    await make(replace(EMPTY, format=form, source=str(source)), tmp_path / "made")
    await make(Disk("back", source=str(tmp_path / "made")), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == raw.read_bytes().ljust(8 * MIB, b"\0")
    assert ((tmp_path / "made").read_bytes()[:4] == b"QFI\xfb") is (form is DiskFormat.QCOW2)


async def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "root.raw"
    path.write_bytes(b"precious")
    with pytest.raises(DiskFailed, match="is there already"):
        await make(EMPTY, path)
    await ensure([EMPTY], {"root": path}, may_make=True)
    assert path.read_bytes() == b"precious"
    assert left_over(tmp_path) == ["root.raw"]


async def test_a_missing_disk_is_not_made_where_it_may_not_be(tmp_path: Path) -> None:
    with pytest.raises(DiskMissing):
        await ensure([EMPTY], {"root": tmp_path / "root.raw"}, may_make=False)
    assert left_over(tmp_path) == []


async def test_what_an_interrupted_try_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "root.raw.making-0123").write_bytes(b"half")
    await make(EMPTY, tmp_path / "root.raw")
    assert left_over(tmp_path) == ["root.raw"]


async def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskFailed, match="No such file"):
        await make(replace(EMPTY, source=str(tmp_path / "none")), tmp_path / "root.raw")
