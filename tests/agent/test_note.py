"""The word that one agent leaves for the next is whole or is none."""

from pathlib import Path

import pytest

from outlive.agent.note import Note, read_note, write_note
from outlive.cluster.commands import Role

NOTE = Note(7, {"shared": "/srv/shared/web"}, ("10.0.0.9/24%eth0",), Role.STANDBY, 3)


def test_it_is_read_as_it_was_written_and_the_newest_counts(tmp_path: Path) -> None:
    folder = tmp_path / "states" / "web"
    assert read_note(folder) is None
    for note in (Note(6, {}, ()), NOTE):
        write_note(folder, note)
        assert read_note(folder) == note
    assert [path.name for path in folder.iterdir()] == ["note"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\x00" * 20,
        b'{"generation": 7, "data": {}, "addresses": [], "role": "chief"}',
        b'{"generation": "7", "data": {}, "addresses": []}',
        b'{"generation": 7, "data": {"shared": 4}, "addresses": []}',
        b'{"generation": 7, "data": {}, "addr',
        b"[" * 100_000,
    ],
)
def test_one_that_is_garbled_is_none(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "note").write_bytes(raw)
    assert read_note(tmp_path) is None


def test_one_that_was_being_written_when_the_power_went_does_not_hide_the_last(tmp_path: Path) -> None:
    write_note(tmp_path, NOTE)
    (tmp_path / "note.new").write_bytes(b'{"generation": 8')
    assert read_note(tmp_path) == NOTE
    write_note(tmp_path, Note(8, {}, ()))
    assert read_note(tmp_path) == Note(8, {}, ())


def test_a_folder_in_its_place_is_none(tmp_path: Path) -> None:
    (tmp_path / "note").mkdir()
    assert read_note(tmp_path) is None
