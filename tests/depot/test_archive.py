"""An archive that is right puts its package on the shelf; any other is refused with its reason, and leaves nothing."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.package import Manifest, PackageFile
from outlive.depot.archive import (
    Limits,
    archive_name,
    archive_pieces,
    build_archive,
    read_archive,
    write_archive,
)
from outlive.depot.errors import PackageInvalid
from outlive.depot.package import manifest_bytes, package_id
from outlive.depot.shelf import Shelf

from .package_scene import component, files_in, on_shelf, source

CONTENTS = (b"#!/bin/sh\n", b"port = 80\n" * 100, bytes(range(256)) * 5)
FILES = {f"etc/{number}": content for number, content in enumerate(CONTENTS)}
ORDER = sorted(CONTENTS, key=lambda content: component(content).digest)


@dataclass(frozen=True)
class Member:
    """A member of an archive to be made, any way one likes."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    size: int | None = None
    mode: int = 0o644
    link: str = ""
    time: int = 0
    format: Literal[0, 1, 2] = tarfile.USTAR_FORMAT

    def raw(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.size = len(self.content) if self.size is None else self.size
        info.mode, info.type, info.linkname, info.mtime = self.mode, self.kind, self.link, self.time
        return info.tobuf(self.format) + self.content + bytes(-len(self.content) % 512)


MANIFEST = Manifest(
    format=1,
    name="web",
    version="1.0.0",
    files=tuple(
        PackageFile(path, 0o644, len(content), component(content).digest) for path, content in sorted(FILES.items())
    ),
)
MEMBERS = [
    Member("manifest.json", manifest_bytes(MANIFEST)),
    *(Member(f"components/{component(content).digest}", content) for content in ORDER),
]
END = bytes(1024)


def packed(raw: bytes, level: int = 1) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(raw)


def tar(members: Iterable[Member], end: bytes = END) -> bytes:
    return b"".join(member.raw() for member in members) + end


GOOD = tar(MEMBERS)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "depot")


def refused(raw: bytes, shelf: Shelf, limits: Limits | None = None) -> str:
    """Why an archive is refused, having seen that nothing of it is left."""
    before = files_in(shelf.folder)
    with pytest.raises(PackageInvalid) as caught:
        read_archive(io.BytesIO(raw), shelf, limits or Limits())
    assert files_in(shelf.folder) == before
    assert caught.value.sentence[-1] == "."
    assert caught.value.cause.isprintable()
    return caught.value.cause


def test_a_package_is_written_and_read(shelf: Shelf, tmp_path: Path) -> None:
    id = on_shelf(shelf)
    archive = io.BytesIO()
    write_archive(shelf, id, archive)
    assert archive.getvalue() == b"".join(archive_pieces(shelf, id))
    archive.seek(0)
    other = Shelf(tmp_path / "other")
    assert read_archive(archive, other) == shelf.manifest(id)
    assert other.verify(id) is None
    archive.seek(0)
    read_archive(archive, other)
    assert other.ids() == {id}


def test_what_is_taken_in_is_whole_also_where_some_of_it_was_here_and_damaged(shelf: Shelf) -> None:
    read_archive(io.BytesIO(packed(GOOD)), shelf)
    for path in (shelf.folder / "components").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    read_archive(io.BytesIO(packed(GOOD)), shelf)
    assert shelf.verify(package_id(MANIFEST)) is None


def test_the_archive_is_what_this_test_thinks(shelf: Shelf) -> None:
    assert read_archive(io.BytesIO(packed(GOOD)), shelf) == MANIFEST
    assert (
        zstandard.ZstdDecompressor().decompressobj().decompress(b"".join(archive_pieces(shelf, package_id(MANIFEST))))
        == GOOD
    )


def test_a_folder_is_made_an_archive_without_a_shelf(shelf: Shelf, tmp_path: Path) -> None:
    archive = io.BytesIO()
    manifest = build_archive(source(tmp_path), archive, within=tmp_path)
    assert archive_name(manifest) == "web-1.0.0.tar.zst"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web-1.0.0"]
    archive.seek(0)
    assert read_archive(archive, shelf) == manifest


def test_anybody_can_look_into_it(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD)
    with tarfile.open(path) as archive:
        assert archive.getnames() == [member.name for member in MEMBERS]


def test_an_empty_package_travels_too(shelf: Shelf) -> None:
    empty = Manifest(format=1, name="web", version="1.0.0")
    assert read_archive(io.BytesIO(packed(tar([Member("manifest.json", manifest_bytes(empty))]))), shelf) == empty


# --- hostile


def with_manifest(**changes: object) -> Callable[[list[Member]], list[Member]]:
    raw = manifest_bytes(msgspec.structs.replace(MANIFEST, **changes))
    return lambda members: [Member("manifest.json", raw), *members[1:]]


def with_path(path: str, mode: int = 0o644) -> Callable[[list[Member]], list[Member]]:
    return with_manifest(files=(PackageFile(path, mode, 1, "a" * 64),))


def second(**changes: object) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [members[0], replace(members[1], **changes), *members[2:]]  # type: ignore[arg-type]


def before_second(member: Member) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [members[0], member, *members[1:]]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (with_path("../../etc/cron.d/x"), "part '..'"),
        (with_path("/etc/passwd"), "begins at the root"),
        (with_path("a\x1b[2Jb"), "cannot be printed"),
        (with_path("bin/x", 0o4755), "setuid"),
        (with_manifest(files=(MANIFEST.files[0], MANIFEST.files[0])), "named twice"),
        (with_manifest(name="../web"), "Its name"),
        (before_second(Member("../../etc/passwd", b"x")), "has a file '../../etc/passwd' where components/"),
        (before_second(Member("/etc/passwd", b"x")), "has a file '/etc/passwd' where"),
        (before_second(Member("link", kind=tarfile.SYMTYPE, link="/etc/passwd")), "a symbolic link 'link'"),
        (before_second(Member("link", kind=tarfile.LNKTYPE, link="manifest.json")), "a hard link 'link'"),
        (before_second(Member("dev", kind=tarfile.CHRTYPE)), "a device 'dev'"),
        (before_second(Member("dev", kind=tarfile.BLKTYPE)), "a device 'dev'"),
        (before_second(Member("pipe", kind=tarfile.FIFOTYPE)), "a pipe 'pipe'"),
        (before_second(Member("dir", kind=tarfile.DIRTYPE)), "a folder 'dir/'"),
        (before_second(Member("a\x1b[2J")), "'a\\x1b[2J'"),
        (before_second(Member("x" * 90, b"1", format=tarfile.PAX_FORMAT, kind=b"x")), "an extended header"),
        (before_second(Member("y" * 90, kind=tarfile.GNUTYPE_LONGNAME)), "a long name"),
        (before_second(Member("y" * 90, kind=tarfile.GNUTYPE_SPARSE)), "a sparse file"),
        (lambda members: [*members[:2], members[1], *members[2:]], "where components/"),
        (lambda members: [members[0], *members[:0:-1]], "where components/"),
        (lambda members: [*members, members[-1]], "not in its manifest: a file 'components/"),
        (lambda members: [*members, Member("extra", b"x")], "not in its manifest: a file 'extra'"),
        (lambda members: members[:-1], "It lacks components/"),
        (lambda members: members[1:], "where manifest.json should be"),
        (lambda members: [members[0], members[0], *members[1:]], "where components/"),
        (lambda members: [], "It lacks manifest.json"),
        (second(kind=tarfile.SYMTYPE, content=b"", link="/etc/passwd"), "a symbolic link 'components/"),
        (second(kind=tarfile.LNKTYPE, content=b"", link="manifest.json"), "a hard link 'components/"),
        (second(mode=0o4755), "other permissions, owner, time or kind"),
        (second(time=1), "other permissions, owner, time or kind"),
        (second(kind=tarfile.AREGTYPE), "other permissions, owner, time or kind"),
        (second(content=ORDER[0] + b"x"), "in another size"),
        (second(content=ORDER[0][:-1]), "in another size"),
        (second(size=8 << 30, format=tarfile.GNU_FORMAT), "It has components/"),
        (second(content=b"x" + ORDER[0][1:]), "not what its name says"),
        (lambda members: [Member("manifest.json", b"{}"), *members[1:]], "cannot be read"),
        (lambda members: [Member("manifest.json", bytes(5 << 20)), *members[1:]], "longer than"),
    ],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    shelf: Shelf, changed: Callable[[list[Member]], list[Member]], told: str
) -> None:
    on_shelf(shelf, "else", files={"etc/0": CONTENTS[0]})
    assert told in refused(packed(tar(changed(MEMBERS))), shelf)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "ends too early"),
        (b"no archive at all", "cannot be unpacked"),
        (GOOD, "cannot be unpacked"),
        (packed(b"x" * 5000), "no tar archive"),
        (packed(b"PK\x03\x04" + bytes(600)), "no tar archive"),
        (packed(GOOD) + b"x", "cannot be unpacked"),
        (packed(GOOD) + packed(b"x"), "behind its end"),
        (packed(tar(MEMBERS, END + b"\0")), "behind its end"),
        (packed(tar(MEMBERS, END + bytes(10240))), "behind its end"),
        (packed(tar(MEMBERS, b"")), "ends too early"),
        (packed(tar(MEMBERS, bytes(512))), "ends too early"),
        (zstandard.ZstdCompressor(write_content_size=False, compression_params=None).compress(GOOD)[:-9], "early"),
    ],
    ids=range(12),
)
def test_what_is_no_archive_is_refused(shelf: Shelf, raw: bytes, told: str) -> None:
    assert told in refused(raw, shelf)


def test_padding_that_is_not_empty_is_refused(shelf: Shelf) -> None:
    at = len(MEMBERS[0].raw()) - 1
    assert "between its members" in refused(packed(GOOD[:at] + b"x" + GOOD[at + 1 :]), shelf)


def test_more_than_the_limits_is_refused_before_anything_is_taken(shelf: Shelf) -> None:
    archive = packed(GOOD)
    assert "at most 2 are taken" in refused(archive, shelf, Limits(files=2))
    assert "at most 100 are taken" in refused(archive, shelf, Limits(bytes=100))
    assert not (shelf.folder / "components").exists()


def test_a_window_that_takes_much_memory_is_refused(shelf: Shelf) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert "cannot be unpacked" in refused(packer.compress(GOOD) + packer.flush(), shelf)


_BOMB = """
import io, resource, sys, zstandard
from pathlib import Path
from outlive.depot.archive import read_archive
from outlive.depot.errors import PackageInvalid
from outlive.depot.shelf import Shelf

limit = 400 << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    read_archive(open(sys.argv[1], "rb"), Shelf(Path(sys.argv[2])))
except PackageInvalid as error:
    print(error.cause)
"""


@pytest.mark.parametrize("where", ["manifest", "component", "end"])
def test_a_bomb_takes_neither_memory_nor_room(tmp_path: Path, where: str) -> None:
    """Each unpacks to 1 GiB; the process that reads it has 400 MiB."""
    huge = bytes(64 << 20)
    begin = {
        "manifest": Member("manifest.json", size=4 << 30).raw(),
        "component": tar([MEMBERS[0], replace(MEMBERS[1], content=b"", size=4 << 30)], b""),
        "end": tar(MEMBERS),
    }[where]
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    with (tmp_path / "bomb").open("wb") as file:
        file.write(packer.compress(begin))
        for _ in range(16):
            file.write(packer.compress(huge))
        file.write(packer.flush())
    assert (tmp_path / "bomb").stat().st_size < 2 << 20
    words = [sys.executable, "-c", _BOMB, str(tmp_path / "bomb"), str(tmp_path / "depot")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    told = {"manifest": "longer than", "component": "another size", "end": "behind its end"}[where]
    assert told in done.stdout
    assert files_in(tmp_path / "depot") == []


_LARGE = """
import sys
from pathlib import Path
from outlive.depot.archive import build_archive, read_archive
from outlive.depot.shelf import Shelf

here = Path(sys.argv[1])
with open(here / "archive", "wb") as file:
    build_archive(here / "web-1.0.0", file, within=here)
with open(here / "archive", "rb") as file:
    print(read_archive(file, Shelf(here / "depot")).bytes)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_package(tmp_path: Path) -> None:
    folder = source(tmp_path, files={"noise": os.urandom(2 << 20), "large": b""})
    os.truncate(folder / "files" / "large", 128 << 20)
    words = [sys.executable, "-c", _LARGE, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    size_bytes, peak_kib = map(int, done.stdout.split())
    assert size_bytes == 130 << 20
    assert peak_kib < 100 << 10


# --- fuzzing

ARCHIVE = packed(GOOD)


@settings(max_examples=150)
@given(st.integers(0, len(ARCHIVE) - 1))
def test_an_archive_that_is_cut_off_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    refused(ARCHIVE[:length], Shelf(tmp_path_factory.mktemp("a") / "depot"))


@settings(max_examples=150)
@given(st.integers(0, len(GOOD)), st.integers(0, 600), st.binary(max_size=8) | st.just(bytes(512)), st.booleans())
def test_an_archive_with_any_change_is_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, without: int, instead: bytes, inside: bool
) -> None:
    whole = GOOD if inside else ARCHIVE
    changed = whole[:at] + instead + whole[at + without :]
    shelf = Shelf(tmp_path_factory.mktemp("a") / "depot")
    try:
        manifest = read_archive(io.BytesIO(packed(changed) if inside else changed), shelf)
    except PackageInvalid as error:
        assert error.cause.isprintable()  # noqa: PT017 – whatever it says is fit to be shown
        assert files_in(shelf.folder) == []
        return
    assert manifest == MANIFEST
    assert shelf.verify(package_id(manifest)) is None
    assert changed == whole or not inside
