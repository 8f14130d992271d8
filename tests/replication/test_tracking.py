"""No write to a guest's RAM is missed, by the kernel's tracking and by comparing alike, on a real process."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.replication.memory import PAGE_BYTES, Memory, Runs
from outlive.replication.tracking import (
    CompareTracker,
    Region,
    Tracker,
    TrackingFailed,
    WriteTracker,
    read_pagewatch,
)

from .page_twin import pages_of
from .watched import Watched

PAGES = 3000

Make = Callable[[Watched], Tracker]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path, PAGES)
    yield watched
    watched.close()


def by_kernel(guest: Watched) -> Tracker:
    return WriteTracker(guest.process.pid, guest.region(), guest.memory())


def by_comparing(guest: Watched) -> Tracker:
    return CompareTracker(guest.memory())


trackers = pytest.mark.parametrize("make", [by_kernel, by_comparing])


@trackers
def test_each_scan_tells_what_was_written_since_the_last(guest: Watched, make: Make) -> None:
    tracker, runs, draw = make(guest), Runs.for_pages(PAGES), random.Random(7)
    tracker.scan(runs)
    for value in range(1, 60):
        pages = set(draw.sample(range(PAGES), draw.choice((0, 1, 5, 700))))
        guest.write(dict.fromkeys(pages, value))
        assert pages_of(tracker.scan(runs)) == sorted(pages)
        assert runs.pages == len(pages)
        assert all(tracker.source.view[page * PAGE_BYTES + 100] == value for page in pages)
    assert pages_of(tracker.scan(runs)) == []
    tracker.close()


@trackers
def test_a_scan_that_only_looks_changes_nothing(guest: Watched, make: Make) -> None:
    tracker, runs = make(guest), Runs.for_pages(PAGES)
    tracker.scan(runs)
    guest.write({5: 1, 6: 1, 2000: 1})
    for _ in range(3):
        assert list(tracker.scan(runs, protect=False)) == [(5, 2), (2000, 1)]
    assert list(tracker.scan(runs)) == [(5, 2), (2000, 1)]
    assert list(tracker.scan(runs, protect=False)) == []
    tracker.close()


@trackers
def test_the_first_scan_tells_all_that_was_ever_written(guest: Watched, make: Make) -> None:
    guest.write({0: 1, 17: 1, PAGES - 1: 1})
    tracker = make(guest)
    assert {0, 17, PAGES - 1} <= set(pages_of(tracker.scan(Runs.for_pages(PAGES))))
    tracker.close()


@trackers
def test_no_page_is_missed_where_the_runs_have_too_little_room(guest: Watched, make: Make) -> None:
    tracker, small = make(guest), Runs(10)
    tracker.scan(Runs.for_pages(PAGES))
    guest.write(dict.fromkeys(range(0, PAGES, 2), 3))
    with pytest.raises(TrackingFailed, match="No space"):
        tracker.scan(small, protect=False)
    assert tracker.scan(Runs.for_pages(PAGES)).pages == PAGES // 2
    tracker.close()


def test_comparing_ships_what_it_compared_and_not_what_came_after(guest: Watched) -> None:
    tracker = CompareTracker(guest.memory())
    guest.write({9: 1})
    assert list(tracker.scan(Runs.for_pages(PAGES))) == [(9, 1)]
    guest.write({9: 2})
    assert tracker.source.view[9 * PAGE_BYTES + 100] == 1
    guest.write({9: 1})
    assert list(tracker.scan(Runs.for_pages(PAGES))) == []


def test_comparing_does_not_fill_a_guests_file(guest: Watched) -> None:
    guest.write({9: 1})
    before = guest.ram.stat().st_blocks
    assert CompareTracker(guest.memory()).scan(Runs.for_pages(PAGES)).pages == 1
    assert guest.ram.stat().st_blocks == before


def test_the_end_of_the_process_is_told(guest: Watched) -> None:
    tracker = by_kernel(guest)
    guest.process.kill()
    guest.process.wait()
    with pytest.raises(TrackingFailed):
        tracker.scan(Runs.for_pages(PAGES))
    with pytest.raises(TrackingFailed):
        WriteTracker(guest.process.pid, Region(4096, PAGES * PAGE_BYTES), Memory.allocate(PAGES * PAGE_BYTES))


def test_a_mapping_that_is_not_tracked_is_refused_at_once(tmp_path: Path) -> None:
    guest = Watched(tmp_path, PAGES, preload=False)
    try:
        maps = Path(f"/proc/{guest.process.pid}/maps").read_text().splitlines()
        (line,) = [line for line in maps if "memfd:guest" in line]
        with pytest.raises(TrackingFailed):
            WriteTracker(guest.process.pid, Region(int(line.split("-")[0], 16), PAGES * PAGE_BYTES), guest.memory())
    finally:
        guest.close()


def test_what_the_page_watch_says_is_read_with_suspicion(tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert read_pagewatch(told, 4096) is None
    told.write_text("7f0000000000 2000\n7f1000000000 1000\n")
    assert read_pagewatch(told, 4096) == Region(0x7F1000000000, 4096)
    assert read_pagewatch(told, 4097) is None
    for wrong in ("failed: userfaultfd: Operation not permitted\n", "7f00", "x 1000\n", "\xff"):
        told.write_text(wrong, encoding="latin-1")
        with pytest.raises(TrackingFailed):
            read_pagewatch(told, 4096)
