"""A folder of checkpoints: who may write, what counts, what is kept, and what a damaged one leads to."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.replication import checkpoint_keeping
from outlive.replication.checkpoint import Checkpoint, DiskChain, DiskLayer
from outlive.replication.checkpoint_errors import (
    CheckpointDamaged,
    CheckpointMissing,
    GenerationOld,
    HardwareDiffers,
)
from outlive.replication.checkpoint_folder import (
    begin,
    begin_reign,
    commit,
    list_checkpoints,
    named,
    names,
    read_heads,
    write_heads,
)
from outlive.replication.checkpoint_keeping import Keeping, mergeable, note_merged, sweep, tidy
from outlive.replication.checkpoint_reading import fill_memory, make_layer, newest_whole, prepare_resume, verify

from .checkpoint_made import HARDWARE, datastore_with_folder, made, memory_of, page, unfinished

KEEP_TWO = Keeping(keep=2, slack=0, mib_s=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return datastore_with_folder(tmp_path)


def chain(folder: Path, length: int) -> list[Checkpoint]:
    """A base and increments; page 0 stays, page 1 is written each time, and each writes one of its own."""
    noise = {100 + number: os.urandom(4096) for number in range(8)}
    found = [made(folder, {0: page("first"), 1: page(0), 2: page("gone"), **noise})]
    for number in range(1, length):
        found.append(made(folder, {1: page(number), 10 + number: page(number)}, found[-1]))
    return found


def disk(folder: Path) -> DiskChain:
    """A raw disk of 1 MiB on the datastore."""
    path = folder.parent.parent / "data" / "root.raw"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return DiskChain("root", 1 << 20, (DiskLayer("data/root.raw", "raw"),))


def test_a_folder_without_a_manifest_is_no_checkpoint_and_is_swept(folder: Path) -> None:
    whole = made(folder, {1: page(1)})
    half = unfinished(folder, {2: page(2)})
    (folder / whole.name / ".manifest.json.new").write_bytes(b"{")
    (folder / whole.name / "merged.pages").write_bytes(b"half")
    assert [entry.name for entry in list_checkpoints(folder)] == [whole.name]
    assert half.name in sweep(folder)
    assert names(folder) == [whole.name]
    assert sorted(os.listdir(folder / whole.name)) == ["device.state", "manifest.json", "memory.pages"]
    assert verify(folder, whole.name) == whole


def test_an_older_generation_is_refused_at_each_step(folder: Path) -> None:
    whole = made(folder, {1: page(1)})
    late = unfinished(folder, {2: page(2)}, whole)
    begin_reign(folder, 2, "b")
    for attempt in (
        lambda: begin(folder, 1),
        lambda: commit(folder, late),
        lambda: write_heads(folder, 1, ()),
        lambda: begin_reign(folder, 1, "a"),
        lambda: tidy(folder, 1, Keeping()),
        lambda: note_merged(folder, 1, "root", ()),
    ):
        with pytest.raises(GenerationOld):
            attempt()
    assert [entry.name for entry in list_checkpoints(folder)] == [whole.name]


def test_the_run_locks_record_refuses_an_older_generation(folder: Path, tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    lock.write_bytes(b"")
    begin_reign(folder, 3, "a", lock)
    lock.write_bytes(json.dumps({"generation": 5, "owner": "b"}).encode().ljust(494) + b"#0123456789abcdef\n")
    with pytest.raises(GenerationOld, match="generation 5"):
        begin_reign(folder, 4, "a", lock)
    begin_reign(folder, 5, "b", lock)
    lock.write_bytes(b"garbled")
    with pytest.raises(CheckpointDamaged, match="never taken for old"):
        begin_reign(folder, 6, "b", lock)


def test_a_garbled_reign_is_never_taken_for_an_old_one(folder: Path) -> None:
    (folder / "reign.json").write_bytes(b"\0\0")
    with pytest.raises(CheckpointDamaged, match="never taken for old"):
        begin(folder, 9)


def test_merging_keeps_each_kept_checkpoint_as_it_was_and_frees_the_rest(folder: Path) -> None:
    all_ = chain(folder, 6)
    before = {one.name: memory_of(folder, one.name) for one in all_}
    told = tidy(folder, 1, KEEP_TWO)
    kept = [one.name for one in all_[-2:]]
    assert told.merged == (kept[0],)
    assert names(folder) == kept
    for name in kept:
        assert memory_of(folder, name) == before[name]
        verify(folder, name)
    assert list_checkpoints(folder)[-1].checkpoint is not None
    assert sorted(os.listdir(folder / kept[0])) == ["device.state", "manifest.json", "merged.pages"]
    newest = made(folder, {2: bytes(4096)}, list_checkpoints(folder)[0].checkpoint)
    assert 2 not in memory_of(folder, newest.name)


def test_nothing_is_merged_before_it_is_worth_it(folder: Path) -> None:
    all_ = chain(folder, 5)
    assert tidy(folder, 1, Keeping(keep=2, slack=8, mib_s=None)) == checkpoint_keeping.Kept()
    assert names(folder) == [one.name for one in all_]


def test_a_merge_that_is_interrupted_leaves_everything_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_ = chain(folder, 5)

    def interrupted(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for act in ("sync_folder", "write_whole"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_keeping, act, interrupted)
            with pytest.raises(OSError, match="No space"):
                tidy(folder, 1, KEEP_TWO)
        for one in all_:
            assert verify(folder, one.name) == one
    assert tidy(folder, 1, KEEP_TWO).merged == (all_[3].name,)


def test_damage_is_found_by_merging_and_not_merged(folder: Path) -> None:
    all_ = chain(folder, 5)
    flip(folder / all_[1].name / "memory.pages", 100)
    told = tidy(folder, 1, KEEP_TWO)
    assert told.damaged
    assert told.removed == ()
    assert names(folder) == [one.name for one in all_]


def test_the_newest_whole_checkpoint_is_found_and_the_damaged_ones_are_named(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    two = made(folder, {1: page(2)}, one)
    three = made(folder, {1: page(3)})
    four = made(folder, {1: page(4)}, three)
    flip(folder / three.name / "memory.pages", 90)  # four rests on it
    found, skipped = newest_whole(folder, HARDWARE)
    assert found == two
    assert [entry.name for entry in skipped] == [four.name, three.name]
    assert all("digest" in entry.reason for entry in skipped)
    (folder / two.name / "manifest.json").write_bytes(b'{"checksum": ')
    (folder / one.name / "device.state").unlink()
    with pytest.raises(CheckpointMissing) as refused:
        newest_whole(folder, HARDWARE)
    assert two.name in refused.value.cause


def test_other_hardware_is_refused_before_anything_is_changed(folder: Path) -> None:
    made(folder, {1: page(1)}, disks=(disk(folder),))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for said, here in (
        ("9.1.0", replace(HARDWARE, emulator="9.1.0")),
        ("max", replace(HARDWARE, cpu_model="max")),
        ("pc-q35-9.1", replace(HARDWARE, machine="pc-q35-9.1")),
    ):
        with pytest.raises(HardwareDiffers) as refused:
            prepare_resume(folder, here, generation=2, host="b")
        assert said in refused.value.cause
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_resumed_checkpoint_stays_as_it_is_and_can_be_resumed_again(folder: Path, tmp_path: Path) -> None:
    base = made(folder, {1: page(1), 7: page(7)}, disks=(disk(folder),))
    last = made(folder, {7: bytes(4096), 8: page(8)}, base, disks=(disk_of(base),), label="before")
    files = set()
    for generation in (2, 3):
        resume = prepare_resume(folder, HARDWARE, generation=generation, host="b", name="before")
        files.add(resume.disk_files()["root"])
        ram = tmp_path / "ram"
        ram.write_bytes(b"left" * 1024)
        os.truncate(ram, 1 << 20)
        fill_memory(resume, ram)
        memory = ram.read_bytes()
        assert {n: memory[n * 4096 :][:4096] for n in range(256) if any(memory[n * 4096 :][:4096])} == {
            1: page(1), 8: page(8)
        }  # fmt: skip
        heads = read_heads(folder)
        assert heads is not None
        assert heads.disks[0].layers == (*disk_of(base).layers, resume.disks[0].layers[-1])
        assert verify(folder, "before") == last
    assert len(files) == 2
    assert subprocess.run(["qemu-img", "check", "-q", str(files.pop())], check=False).returncode == 0


def test_the_layers_are_given_to_the_user_that_reads_them_here(folder: Path) -> None:
    layered = make_layer(folder, disk(folder))
    made(folder, {}, disks=(layered,))
    resume = prepare_resume(folder, HARDWARE, generation=2, host="b", owner=(65534, 65534))
    paths = [folder.parent.parent / layer.path for layer in resume.disks[0].layers]
    assert len(paths) == 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(65534, 65534)}


def test_a_named_checkpoint_that_is_damaged_is_refused_and_not_replaced(folder: Path) -> None:
    made(folder, {1: page(1)})
    two = made(folder, {1: page(2)}, label="mine")
    flip(folder / two.name / "device.state", 10)
    with pytest.raises(CheckpointDamaged):
        prepare_resume(folder, HARDWARE, generation=2, host="b", name="mine")
    assert read_heads(folder) is None
    with pytest.raises(CheckpointMissing):
        named(folder, "never")


def test_a_disk_whose_layer_is_missing_or_lies_on_another_is_damage(folder: Path) -> None:
    layered = make_layer(folder, make_layer(folder, disk(folder)))
    whole = made(folder, {}, disks=(layered,))
    verify(folder, whole.name)
    without = made(folder, {}, disks=(replace(layered, layers=layered.layers[1:]),))
    with pytest.raises(CheckpointDamaged, match="lie on"):
        verify(folder, without.name)
    (folder / "disks" / "root.1.qcow2").unlink()
    with pytest.raises(CheckpointDamaged, match="No such file"):
        verify(folder, whole.name)


def test_only_layers_that_nobody_needs_apart_are_mergeable(folder: Path) -> None:
    chains = [disk(folder)]
    for _ in range(5):
        chains.append(make_layer(folder, chains[-1]))
    running = chains[5]
    layers = running.layers
    other = replace(running, layers=(*layers[:2], DiskLayer("checkpoints/web/disks/root.99.qcow2", "qcow2")))
    assert mergeable(folder, [running]) == {"root": layers[:5]}
    write_heads(folder, 1, [running])
    made(folder, {}, disks=(chains[4],))
    assert mergeable(folder, [running]) == {"root": layers[:5]}
    made(folder, {}, disks=(chains[0],))
    assert mergeable(folder, [running]) == {"root": layers[1:5]}
    made(folder, {}, disks=(other,))
    assert mergeable(folder, [running]) == {"root": layers[2:5]}
    note_merged(folder, 1, "root", layers[2:5])
    told = [entry.checkpoint.disks[0].layers for entry in list_checkpoints(folder) if entry.checkpoint]
    assert told == [other.layers, layers[:1], layers[:3]]
    heads = read_heads(folder)
    assert heads is not None
    assert heads.disks[0].layers == (*layers[:3], layers[5])
    assert mergeable(folder, heads.disks) == {}


def test_a_named_checkpoint_stays_and_what_lies_between_it_and_the_newest_goes(folder: Path) -> None:
    one = made(folder, {1: page(1), **{100 + number: os.urandom(4096) for number in range(8)}})
    named_one = made(folder, {2: page(2)}, one, label="mine")
    last = named_one
    for number in range(6):
        last = made(folder, {3: page(number)}, last)
        tidy(folder, 1, KEEP_TWO)
        last = replace(last, memory=list_checkpoints(folder)[0].checkpoint.memory)  # type: ignore[union-attr]
    before_last, newest = names(folder)[-2:]
    assert names(folder) == [named_one.name, before_last, newest]
    assert memory_of(folder, newest)[3] == page(5)
    assert memory_of(folder, before_last)[3] == page(4)
    assert 3 not in memory_of(folder, named_one.name)
    assert verify(folder, "mine").parent is None


def test_merged_layers_are_told_everywhere_before_their_files_go(folder: Path) -> None:
    two = make_layer(folder, make_layer(folder, disk(folder)))
    three = make_layer(folder, two)
    kept = made(folder, {}, disks=(two,))
    write_heads(folder, 1, [three])
    bottom, *gone = two.layers
    note_merged(folder, 1, "root", two.layers)
    found, heads = list_checkpoints(folder)[0].checkpoint, read_heads(folder)
    assert found is not None
    assert heads is not None
    assert found == replace(kept, disks=(replace(two, layers=(bottom,)),))
    assert heads.disks[0].layers == (bottom, three.layers[-1])
    assert os.listdir(folder / "disks") == [Path(three.layers[-1].path).name]
    assert len(gone) == 2
    note_merged(folder, 1, "root", two.layers)  # said twice, it is said once


def test_no_layer_goes_while_a_manifest_cannot_be_read(folder: Path) -> None:
    layered = make_layer(folder, disk(folder))
    garbled = made(folder, {}, disks=(layered,))
    (folder / garbled.name / "manifest.json").write_bytes(b"{}")
    made(folder, {})
    sweep(folder)
    assert os.listdir(folder / "disks") == ["root.1.qcow2"]
    assert mergeable(folder, [layered]) == {}


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)


def disk_of(checkpoint: Checkpoint) -> DiskChain:
    return checkpoint.disks[0]
