"""The files of a datastore: what is written where, and what is never touched."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import Heartbeat
from outlive.datastore.block import BLOCK_BYTES
from outlive.datastore.errors import DatastoreDamaged, DatastoreForeign, DatastoreVanished
from outlive.datastore.folder import Folder
from outlive.datastore.formatting import format_datastore
from outlive.datastore.opening import MARKER, FolderTrouble, Trouble
from outlive.datastore.slots import pack_slot, unpack_slot
from outlive.wire.seal import Seal

Build = Callable[..., Heartbeat]
CLUSTER = "0123456789abcdef"


def folder_of(path: Path, host: str = "a", cluster: str = CLUSTER) -> Folder:
    return Folder(str(path), cluster, host)


def all_files(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*") if not found.is_dir()}


@pytest.fixture(params=["disk", "memory"])
def either(request: pytest.FixtureRequest, folder: Path, tmp_path: Path, seal: Seal) -> Path:
    """A datastore on a file system that knows O_DIRECT, and one on tmpfs, which may not."""
    if request.param == "disk":
        return folder
    mounts = request.getfixturevalue("mounts")
    (tmp_path / "memory").mkdir()
    mounts.mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path / "memory")
    format_datastore("memory", tmp_path / "memory", seal.cluster)
    return tmp_path / "memory"


def test_a_slot_is_made_once_and_then_written_in_place(either: Path, seal: Seal, heartbeat: Build) -> None:
    folder = folder_of(either)
    folder.write_slot(pack_slot(heartbeat(1), seal))
    inode = (either / "heartbeats/a.slot").stat().st_ino
    folder.write_slot(pack_slot(heartbeat(2), seal))
    assert (either / "heartbeats/a.slot").stat().st_ino == inode
    assert folder.read_slots(None) == {"a": pack_slot(heartbeat(2), seal)}
    assert all_files(either) == {MARKER, "heartbeats/a.slot"}


@pytest.mark.parametrize("wrong", ["short", "long", "empty", "pipe", "link", "dangling"])
def test_whatever_stands_in_the_slots_place_is_read_safely_and_then_replaced(
    folder: Path, tmp_path: Path, seal: Seal, heartbeat: Build, wrong: str
) -> None:
    place, outside = folder / "heartbeats/a.slot", tmp_path / "outside"
    outside.write_bytes(b"o" * BLOCK_BYTES)
    match wrong:
        case "short":
            place.write_bytes(b"x" * 100)
        case "long":
            place.write_bytes(b"x" * 100_000)
        case "empty":
            place.touch()
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to(outside)
        case "dangling":
            place.symlink_to(tmp_path / "nowhere")
    worker = folder_of(folder)
    found = worker.read_slots(["a"])["a"]
    assert isinstance(found, str) or not isinstance(unpack_slot("a", found, seal), Heartbeat)
    worker.write_slot(pack_slot(heartbeat(), seal))
    assert worker.read_slots(["a"]) == {"a": pack_slot(heartbeat(), seal)}
    assert outside.read_bytes() == b"o" * BLOCK_BYTES
    assert not (tmp_path / "nowhere").exists()


def test_readers_never_see_half_of_a_slot_that_is_being_written(either: Path, seal: Seal, heartbeat: Build) -> None:
    writer, reader = folder_of(either), folder_of(either, host="b")
    writer.write_slot(pack_slot(heartbeat(1), seal))
    slots = [pack_slot(heartbeat(sequence), seal) for sequence in range(1, 301)]

    def write_all() -> None:
        for slot in slots:
            writer.write_slot(slot)

    writing = threading.Thread(target=write_all)
    writing.start()
    read = []
    while writing.is_alive():
        found = reader.read_slots(["a"])["a"]
        assert isinstance(found, bytes)
        heartbeat_read = unpack_slot("a", found, seal)
        assert isinstance(heartbeat_read, Heartbeat)
        read.append(heartbeat_read.sequence)
    writing.join()
    assert read == sorted(read)


def test_all_slots_are_those_of_hosts(folder: Path, seal: Seal, heartbeat: Build) -> None:
    for host in ("a", "b"):
        folder_of(folder, host).write_slot(pack_slot(heartbeat(host=host), seal))
    (folder / "heartbeats/.b.1.1.new").touch()
    (folder / "heartbeats/notes.txt").touch()
    (folder / "heartbeats/ä.slot").touch()
    worker = folder_of(folder, "c")
    assert set(worker.read_slots(None)) == {"a", "b"}
    assert set(worker.read_slots(["b", "missing"])) == {"b"}


def test_older_tables_of_the_host_are_removed_but_for_the_one_before(folder: Path) -> None:
    folder_of(folder, "a-b").write_table("1111111111111111", b"another host's")
    worker = folder_of(folder, "a")
    for digest in ("aaaa", "bbbb", "cccc", "cccc"):
        worker.write_table(digest, digest.encode())
    assert all_files(folder / "tables") == {"a-b-1111111111111111", "a-bbbb", "a-cccc"}
    assert worker.read_table("a", "cccc", 100) == b"cccc"
    assert worker.read_table("a", "aaaa", 100) is None


def test_what_a_killed_worker_left_is_swept_up_by_the_next(folder: Path, seal: Seal, heartbeat: Build) -> None:
    left = [".a.123.1.new", "heartbeats/.a.123.2.new", "tables/.a.9.1.new"]
    others = [".a-b.123.1.new", "heartbeats/.b.1.1.new"]
    for name in left + others:
        (folder / name).touch()
    folder_of(folder).write_slot(pack_slot(heartbeat(), seal))
    assert all_files(folder) == {MARKER, "heartbeats/a.slot", *others}


def test_a_data_folder_is_made_for_the_workload_alone(folder: Path) -> None:
    worker = folder_of(folder)
    assert worker.ensure_data_folder("web") == str(folder / "data/web")
    assert worker.ensure_data_folder("web") == str(folder / "data/web")
    assert (folder / "data/web").stat().st_mode & 0o777 == 0o700
    assert (folder / "data").stat().st_mode & 0o777 == 0o711


def test_a_data_folder_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "data/web").symlink_to(tmp_path)
    with pytest.raises(FolderTrouble, match="not a folder"):
        folder_of(folder).ensure_data_folder("web")


@pytest.mark.parametrize("name", ["", ".", "..", "../web", "a/b", "/etc", ".hidden", "x\0y", "ä", "n" * 101])
def test_no_name_leads_out_of_its_folder(folder: Path, name: str) -> None:
    worker = folder_of(folder)
    for call in (
        lambda: worker.ensure_data_folder(name),
        lambda: worker.read_slots([name]),
        lambda: worker.read_table(name, "aa", 10),
        lambda: worker.read_table("a", name, 10),
        lambda: worker.write_table(name, b""),
        lambda: Folder(str(folder), CLUSTER, name),
    ):
        with pytest.raises(FolderTrouble, match="cannot be a name"):
            call()


def test_an_empty_mount_point_is_never_written(tmp_path: Path, seal: Seal, heartbeat: Build) -> None:
    empty = tmp_path / "mountpoint"
    empty.mkdir()
    for path in (empty, tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(FolderTrouble) as raised:
            folder_of(path).write_slot(pack_slot(heartbeat(), seal))
        assert raised.value.trouble is Trouble.VANISHED
    assert list(empty.iterdir()) == []


def test_another_clusters_datastore_is_never_written(folder: Path, seal: Seal, heartbeat: Build) -> None:
    with pytest.raises(FolderTrouble) as raised:
        folder_of(folder, cluster="fedcba9876543210").write_slot(pack_slot(heartbeat(), seal))
    assert raised.value.trouble is Trouble.FOREIGN
    assert all_files(folder) == {MARKER}


def test_formatting_marks_a_folder_once_and_leaves_its_files(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    assert format_datastore("shared", tmp_path, CLUSTER) is True
    assert format_datastore("shared", tmp_path, CLUSTER) is False
    assert (tmp_path / "precious").read_text() == "kept"


def test_formatting_leaves_another_clusters_datastore_alone(folder: Path) -> None:
    before = (folder / MARKER).read_bytes()
    with pytest.raises(DatastoreForeign, match="another cluster"):
        format_datastore("shared", folder, "fedcba9876543210")
    assert (folder / MARKER).read_bytes() == before


@pytest.mark.parametrize(
    "marker", [b"", b"[]", b"{}", b'{"cluster": 5, "format": 1}', b"\xff", b'{"cluster": "x", "format": 2}']
)
def test_a_garbled_marker_is_refused_as_such(folder: Path, marker: bytes) -> None:
    (folder / MARKER).write_bytes(marker)
    with pytest.raises(DatastoreDamaged, match="marker"):
        format_datastore("shared", folder, CLUSTER)


def test_a_folder_that_is_not_there_is_not_formatted(tmp_path: Path) -> None:
    with pytest.raises(DatastoreVanished, match="missing"):
        format_datastore("shared", tmp_path / "missing", CLUSTER)
