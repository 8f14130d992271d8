"""What lies on a shelf is read through now and then, at a pace, and what is damaged leaves with all that has it."""

import os
import threading
import time
from pathlib import Path

import pytest

from outlive.depot.errors import PackageMissing
from outlive.depot.shelf import Shelf
from outlive.depot.verifying import EACH_S, Pace, damaged, due, throw_out

from .package_scene import FILES, component, on_shelf

NOW = time.time()
AT_ONCE = Pace(threading.Event(), 1e15)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "depot")


def spoil(shelf: Shelf, content: bytes) -> None:
    """Turn a bit of the component with this content, wherever and however it is kept."""
    [file] = (shelf.folder / "components").glob(f"*/{component(content).digest}*")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def test_each_is_due_some_days_after_it_came_or_was_read_and_the_oldest_first(shelf: Shelf) -> None:
    assert due(shelf, NOW) is None
    first, second = on_shelf(shelf), on_shelf(shelf, "other", files={"a": b"a"})
    shelf.was_read(first, NOW)
    shelf.was_read(second, NOW - 10.0)
    assert due(shelf, NOW + EACH_S - 11.0) is None
    assert due(shelf, NOW + EACH_S) == second
    assert damaged(shelf, second, AT_ONCE, NOW + EACH_S) == ()
    assert due(shelf, NOW + EACH_S) == first


def test_a_time_that_is_yet_to_come_makes_it_due(shelf: Shelf) -> None:
    id = on_shelf(shelf)
    shelf.was_read(id, NOW + 1e6)
    assert due(shelf, NOW) == id


def test_what_is_damaged_leaves_with_every_package_that_has_it_and_all_else_stays(shelf: Shelf) -> None:
    both = {"x": b"shared" * 100, "y": b"own"}
    one, two = on_shelf(shelf, "one", files=both), on_shelf(shelf, "two", files={"x": both["x"]})
    other = on_shelf(shelf, "other", files=FILES)
    spoil(shelf, both["x"])
    wrong = damaged(shelf, one, AT_ONCE, NOW)
    assert wrong is not None
    assert len(wrong) == 1
    assert throw_out(shelf, wrong) == {one, two}
    assert shelf.ids() == {other}
    assert damaged(shelf, other, AT_ONCE, NOW) == ()
    assert not shelf.components.has(wrong[0])
    assert on_shelf(shelf, "two", files={"x": both["x"]}) == two
    assert damaged(shelf, two, AT_ONCE, NOW) == ()


def test_a_manifest_that_is_damaged_is_no_package_any_more(shelf: Shelf) -> None:
    id = on_shelf(shelf)
    manifest = shelf.folder / "packages" / id
    os.chmod(manifest, 0o600)
    manifest.write_bytes(manifest.read_bytes()[:-1])
    with pytest.raises(PackageMissing) as missing:
        damaged(shelf, id, AT_ONCE, NOW)
    assert "damaged" in missing.value.cause
    assert shelf.ids() == frozenset()


def test_reading_takes_its_time_and_ends_when_it_is_to(shelf: Shelf) -> None:
    id = on_shelf(shelf, files={"big": os.urandom(1000)})
    shelf.was_read(id, 0.0)
    ending = threading.Event()
    slowly = threading.Thread(target=damaged, args=(shelf, id, Pace(ending, 1e-3), NOW))
    slowly.start()
    ending.set()
    slowly.join(20.0)
    assert not slowly.is_alive()
    assert shelf.read_at()[id] == 0.0, "what was broken off was not read"
