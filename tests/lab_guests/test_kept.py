"""What is kept is made once, by one maker at a time, and half of it is never taken for the whole."""

import os
import threading
import time
from pathlib import Path

import pytest

from outlive.lab.guests.kept import GuestNotMade, kept


def quiet(line: str) -> None:
    pass


def test_it_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(scratch: Path) -> None:
        made.append(scratch)
        (scratch / "file").write_text("whole")

    place = kept(tmp_path, "thing", make, quiet)
    assert (place / "file").read_text() == "whole"
    assert kept(tmp_path, "thing", make, quiet) == place
    assert len(made) == 1


def test_two_makers_do_not_collide_and_the_second_is_told_to_wait(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[str] = []
    told: list[str] = []

    def slowly(scratch: Path) -> None:
        begun.set()
        assert go_on.wait(30)
        made.append("slowly")

    def waiting(line: str) -> None:
        told.append(line)
        go_on.set()

    first = threading.Thread(target=kept, args=(tmp_path, "thing", slowly, quiet))
    first.start()
    assert begun.wait(30)
    place = kept(tmp_path, "thing", lambda scratch: made.append("again"), waiting)
    first.join()
    assert place.is_dir()
    assert made == ["slowly"]
    assert told == ["another process is making thing; waiting for it"]


def test_a_failed_maker_leaves_nothing(tmp_path: Path) -> None:
    def fail(scratch: Path) -> None:
        (scratch / "half").write_text("half")
        raise GuestNotMade("No.")

    with pytest.raises(GuestNotMade):
        kept(tmp_path, "thing", fail, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_what_a_killed_maker_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "thing.new-x").mkdir()
    kept(tmp_path, "thing", lambda scratch: None, quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing", "thing.lock"]


def test_a_folder_that_cannot_be_written_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GuestNotMade) as caught:
        kept(tmp_path / "file", "thing", lambda scratch: time.sleep(0), quiet)
    assert caught.value.id == "guest.not-made"
    assert caught.value.remedy


def test_what_is_long_out_of_date_goes_and_the_last_of_it_stays(tmp_path: Path) -> None:
    for number in range(3):
        kept(tmp_path, f"thing-{number}", lambda scratch: None, quiet)
        os.utime(tmp_path / f"thing-{number}", (number, number))
    kept(tmp_path, "other-9", lambda scratch: None, quiet)
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["other-9", "thing-1", "thing-2"]
