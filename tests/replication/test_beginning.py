"""How a guest begins: from the newest whole checkpoint that it has come through, never over what it did since."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlive.replication.beginning import (
    INCOMING,
    ORIGIN,
    SHUT_DOWN,
    Beginning,
    begin,
    note_incoming,
    note_shut_down,
    opened_the_same,
    read_origin,
)
from outlive.replication.checkpoint import DiskChain, DiskLayer
from outlive.replication.checkpoint_errors import CheckpointDamaged, CheckpointMissing, HardwareDiffers
from outlive.replication.checkpoint_folder import begin_reign, write_heads

from .checkpoint_made import HARDWARE, datastore_with_folder, made, page

GARBLED = [b"", b"{", b"[]", b"null", b"\xff" * 40, b'{"generation": "x"}', b"[" * 3000, b'{"generation": 1']


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return datastore_with_folder(tmp_path)


def begun(folder: Path, generation: int = 2, at: str = "") -> Beginning:
    return begin(folder, HARDWARE, generation=generation, host="b", at=at)


def damage(folder: Path, name: str) -> None:
    (folder / name / "memory.pages").write_bytes(b"short")


def disks(folder: Path) -> tuple[DiskChain, ...]:
    path = folder.parent.parent / "root.raw"
    path.write_bytes(bytes(4096))
    return (DiskChain("root", 4096, (DiskLayer("root.raw", "raw"),)),)


class Reigns(RuleBasedStateMachine):
    """A guest's life, with a model of the checkpoints that lie behind it: `line`, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = datastore_with_folder(self.root)
        self.generation = 1
        self.line: list[str] = []
        self.lines: dict[str, list[str]] = {}
        self.damaged: set[str] = set()
        self.shut_down = False

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule()
    def checkpoint(self) -> None:
        if not self.shut_down:
            begin_reign(self.folder, self.generation, "a")
            name = made(self.folder, {1: page(1)}, generation=self.generation).name
            self.line = [*self.line, name]
            self.lines[name] = self.line

    @rule()
    def powers_itself_off(self) -> None:
        note_shut_down(self.folder)
        self.shut_down = True

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def bit_rot(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.lines)))
        damage(self.folder, name)
        self.damaged.add(name)

    @rule(restarted_in_place=st.booleans())
    def begins(self, restarted_in_place: bool) -> None:
        self.generation += not restarted_in_place
        come_through = [] if self.shut_down else self.line
        whole = [name for name in come_through if name not in self.damaged]
        expected = whole[-1] if whole else ""
        got = begun(self.folder, self.generation)
        assert got.checkpoint == expected
        assert [each.name for each in got.skipped] == [name for name in reversed(come_through) if name > expected]
        self.line = come_through[: come_through.index(expected) + 1] if expected else []
        self.shut_down = False

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def operator_goes_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.lines)))
        self.generation += 1
        try:
            assert begun(self.folder, self.generation, at=name).checkpoint == name
        except CheckpointDamaged:
            assert name in self.damaged
            return
        assert name not in self.damaged
        # One of another course of things is known alone: what it came through is not remembered.
        on_line = name in self.line and not self.shut_down
        self.line = self.line[: self.line.index(name) + 1] if on_line else [name]
        self.shut_down = False

    @invariant()
    def all_that_was_taken_is_still_there(self) -> None:
        assert all((self.folder / name / "manifest.json").exists() for name in self.lines)


TestReigns = Reigns.TestCase
TestReigns.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip


def test_a_guest_that_restarts_in_place_after_it_shut_down_is_never_taken_back_to_before_that(folder: Path) -> None:
    made(folder, {1: page(1)})
    note_shut_down(folder)
    assert begun(folder, 1).checkpoint == ""
    # It died before its next checkpoint, in the same reign and in the next.
    assert begun(folder, 1).checkpoint == ""
    assert begun(folder, 2).checkpoint == ""


def test_what_a_damaged_one_held_is_not_gone_on_from_once_it_can_be_read_again(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    two = made(folder, {1: page(2)})
    pages = folder / two.name / "memory.pages"
    whole = pages.read_bytes()
    damage(folder, two.name)
    assert begun(folder).checkpoint == one.name
    pages.write_bytes(whole)
    assert begun(folder, 3).checkpoint == one.name


def test_a_writer_of_an_older_reign_that_wakes_up_is_not_listened_to(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    assert begun(folder, 5).checkpoint == one.name
    (folder / "reign.json").unlink()  # as if it had looked before the new reign began
    late = made(folder, {1: page(2)}, generation=4)
    assert late.name > one.name
    assert begun(folder, 6).checkpoint == one.name


def test_without_a_folder_the_guest_is_booted_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "web"
    assert begun(folder) == Beginning("", {})
    note_shut_down(folder)
    assert (note_incoming(folder, "b"), opened_the_same(folder, "b")) == ({}, True)
    assert list(tmp_path.iterdir()) == []


def test_other_hardware_is_refused_before_anything_is_changed(folder: Path) -> None:
    made(folder, {1: page(1)})
    before = contents(folder)
    with pytest.raises(HardwareDiffers):
        begin(folder, replace(HARDWARE, cpus=7), generation=2, host="b")
    assert contents(folder) == before


@pytest.mark.parametrize("raw", GARBLED)
def test_a_garbled_record_is_refused_without_harm_and_an_operator_gets_past_it(folder: Path, raw: bytes) -> None:
    one = made(folder, {1: page(1)})
    made(folder, {1: page(2)})
    (folder / ORIGIN).write_bytes(raw)
    before = contents(folder)
    with pytest.raises(CheckpointDamaged):
        begun(folder)
    assert contents(folder) == before
    assert begun(folder, 3, at=one.name).checkpoint == one.name
    assert begun(folder, 4).checkpoint == one.name


def test_a_checkpoint_that_is_not_there_is_refused_without_harm(folder: Path) -> None:
    made(folder, {1: page(1)})
    begun(folder)
    before = contents(folder)
    for at in ("nightly", "g00000000000000000009-0000000001", "../../etc"):
        with pytest.raises(CheckpointMissing):
            begun(folder, 3, at=at)
    assert contents(folder) == before


def test_a_label_names_the_checkpoint(folder: Path) -> None:
    one = made(folder, {1: page(1)}, label="nightly")
    made(folder, {1: page(2)})
    assert begun(folder, 2, at="nightly").checkpoint == one.name


def test_unreadable_manifests_are_passed_over_and_told(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    two = made(folder, {1: page(2)})
    (folder / two.name / "manifest.json").write_bytes(b"{}")
    got = begun(folder)
    assert (got.checkpoint, [each.name for each in got.skipped]) == (one.name, [two.name])
    assert all(each.reason for each in got.skipped)


def test_disks_are_told_as_they_lie_whether_resumed_or_booted(folder: Path) -> None:
    one = made(folder, {1: page(1)}, disks=disks(folder))
    resumed = begun(folder)
    assert resumed.checkpoint == one.name
    assert list(resumed.disks) == ["root"]
    assert resumed.disks["root"] != str(folder.parent.parent / "root.raw")
    note_shut_down(folder)
    # Booted from what the guest wrote to last, not from what lies below it.
    assert begun(folder, 3) == Beginning("", resumed.disks)


def test_the_shut_down_counts_until_the_guest_has_begun_again(folder: Path) -> None:
    made(folder, {1: page(1)})
    note_shut_down(folder)
    note_shut_down(folder)
    begun(folder)
    assert not (folder / SHUT_DOWN).exists()
    origin = read_origin(folder)
    assert origin is not None
    assert (origin.generation, origin.line) == (2, ())


def test_layers_that_were_opened_are_the_same_only_while_nothing_changed(folder: Path) -> None:
    chain = disks(folder)
    write_heads(folder, 1, chain)
    opened = note_incoming(folder, "b")
    assert opened == {"root": str(folder.parent.parent / "root.raw")}
    assert opened_the_same(folder, "b")
    assert not opened_the_same(folder, "c")
    (folder.parent.parent / "newer.qcow2").touch()
    write_heads(folder, 1, [replace(chain[0], layers=(*chain[0].layers, DiskLayer("newer.qcow2", "qcow2")))])
    assert not opened_the_same(folder, "b")


@pytest.mark.parametrize("raw", [*GARBLED, b'{"host": "b", "disks": []}', b"x" * (1 << 20)])
def test_garbled_word_of_an_incoming_host_is_never_taken_for_the_same(folder: Path, raw: bytes) -> None:
    note_incoming(folder, "b")
    (folder / INCOMING).write_bytes(raw)
    assert not opened_the_same(folder, "b")
    (folder / INCOMING).unlink()
    assert not opened_the_same(folder, "b")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
