"""On a disk without room everything is refused with a sentence, and what was there before stays as it was."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outlive.depot import incoming
from outlive.depot.archive import read_archive, write_archive
from outlive.depot.errors import DepotFull, InstallFailed
from outlive.depot.install import LEASH, Installations
from outlive.depot.shelf import Shelf

from .package_scene import FILES, bring, files_in, memory_at, on_shelf

DISK_BYTES = 2 << 20
LARGE = {**FILES, "large": os.urandom(DISK_BYTES * 3 // 4)}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with memory_at(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


@pytest.fixture
def origin(tmp_path: Path) -> Shelf:
    """A shelf elsewhere, with room."""
    return Shelf(tmp_path / "origin")


def fill(folder: Path, left_bytes: int) -> None:
    """Leave only so much room on a file system."""
    free = shutil.disk_usage(folder).free - left_bytes
    (folder / "filling").write_bytes(bytes(free))


def test_what_there_is_certainly_no_room_for_is_refused_at_once(disk: Path, origin: Shelf) -> None:
    shelf = Shelf(disk / "depot")
    large = origin.manifest(on_shelf(origin, files=LARGE))
    fill(disk, 1 << 20)
    with pytest.raises(DepotFull, match=r"needs \d+ bytes, and \d+ are free"):
        shelf.receive(large)
    assert files_in(shelf.folder) == []


@pytest.mark.parametrize(("looks", "told"), [(True, "are free"), (False, "found no room")])
def test_a_disk_that_fills_up_while_a_package_comes_leaves_no_half_package(
    disk: Path, origin: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool, told: str
) -> None:
    """Whether it was seen in time, or the system says so."""
    if not looks:
        monkeypatch.setattr(incoming, "room_for", lambda *_: None)
    shelf = Shelf(disk / "depot")
    small, large = on_shelf(origin, "small"), on_shelf(origin, files=LARGE)
    bring(origin.manifest(small), origin, shelf)
    before = files_in(shelf.folder)
    with (tmp_path / "archive").open("wb") as target:
        write_archive(origin, large, target)

    class Filling:
        """An archive; while it is read, somebody else fills the disk."""

        def __init__(self) -> None:
            self.file = (tmp_path / "archive").open("rb")
            self.reads = 0

        def read(self, size: int, /) -> bytes:
            self.reads += 1
            if self.reads == 3:
                fill(disk, 100_000)
            return self.file.read(size)

    archive = Filling()
    with pytest.raises(DepotFull, match=told):
        read_archive(archive, shelf)
    archive.file.close()
    assert files_in(shelf.folder) == before
    assert shelf.verify(small) is None
    (disk / "filling").unlink()
    with (tmp_path / "archive").open("rb") as again:
        read_archive(again, shelf)
    assert shelf.verify(large) is None


def test_a_package_is_refused_before_the_disk_is_full(disk: Path, origin: Shelf) -> None:
    """The agent's own journal has to find room when nothing else does."""
    large = origin.manifest(on_shelf(origin, files=LARGE))
    need = sum(one.bytes for one in large.components)
    shelf = Shelf(disk / "depot")
    fill(disk, need + 50_000)
    with pytest.raises(DepotFull, match="are free in") as refused:
        shelf.receive(large)
    assert "stay free for the host itself" in refused.value.cause
    with pytest.raises(DepotFull, match="Installing web"):
        Installations(disk / "packages", origin).install(on_shelf(origin, files=LARGE))
    assert files_in(disk, but=["filling", "collecting.lock", ".lock", LEASH]) == []


def test_two_that_come_at_once_find_the_room_of_one(disk: Path, origin: Shelf) -> None:
    shelf = Shelf(disk / "depot")
    wanted = [origin.manifest(on_shelf(origin, version=f"{n}.0.0", files={"x": os.urandom(1_200_000)})) for n in (1, 2)]
    receptions = [shelf.receive(manifest) for manifest in wanted]
    with receptions[0], receptions[1], ExitStack() as stack:
        stack.enter_context(pytest.raises(DepotFull, match="Storing a component needs"))
        for manifest, reception in zip(wanted, receptions, strict=True):
            [one] = manifest.components
            with reception.receive(one) as coming:
                for piece in origin.components.read(one):
                    coming.append(piece)
    assert shutil.disk_usage(disk).free > 50_000


def test_what_could_be_kept_smaller_is_kept_as_it_is_where_both_find_no_room(disk: Path, origin: Shelf) -> None:
    text = os.urandom(1000) * 1200
    manifest = origin.manifest(on_shelf(origin, files={"x": text}))
    shelf = Shelf(disk / "depot")
    bring(manifest, origin, shelf)
    [one] = manifest.components
    assert (shelf.folder / "components" / one.digest[:2] / one.digest).exists()
    assert shelf.verify(*shelf.ids()) is None


def test_a_package_that_does_not_fit_is_not_installed(disk: Path, origin: Shelf) -> None:
    installations = Installations(disk / "packages", origin)
    old = installations.install(on_shelf(origin, version="1.0.0"))
    before = files_in(disk)
    fill(disk, 1 << 20)
    with pytest.raises(DepotFull, match="Installing web"):
        installations.install(on_shelf(origin, version="1.1.0", files=LARGE))
    (disk / "filling").unlink()
    assert files_in(disk) == before
    assert installations.verify(old) == ()


def test_an_install_command_that_fills_the_disk_fails_and_makes_room_again(disk: Path, origin: Shelf) -> None:
    installations = Installations(disk / "packages", origin)
    old = installations.install(on_shelf(origin, version="1.0.0"))
    before = files_in(disk)
    setup = b"#!/bin/sh\nhead -c 10000000 /dev/zero > much\n"
    id = on_shelf(origin, version="1.1.0", files={"bin/setup": setup}, more='[install]\ncommand = ["bin/setup"]')
    with pytest.raises(InstallFailed, match="ended with status 1") as caught:
        installations.install(id)
    assert "No space left" in caught.value.cause
    assert files_in(disk) == before
    assert installations.verify(old) == ()


def test_a_full_disk_still_lets_go_of_what_nobody_needs(disk: Path, origin: Shelf) -> None:
    shelf = Shelf(disk / "depot")
    installations = Installations(disk / "packages", shelf)
    id = on_shelf(origin)
    bring(origin.manifest(id), origin, shelf)
    installations.install(id)
    fill(disk, 0)
    assert len(installations.uninstall_unused(lambda: [])) == 1
    assert shelf.remove(id)
    assert shelf.collect(young_s=0.0).removed == 2
    assert files_in(disk, but=["filling", "collecting.lock", ".lock", LEASH]) == []
