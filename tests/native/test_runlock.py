"""A run lock has one holder, never goes back to an older generation, and ends with its holder."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive import native, spawn

from .guarding import until


class Holder:
    """One outlive-runlock, and its answer."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [native.find("outlive-runlock"), *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.answer = self.process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        if self.answer == "HELD":
            self.process.kill()
        self.process.wait(60)  # one that is refused ends by itself
        assert self.process.stdout is not None
        self.process.stdout.close()


LOCK = Callable[..., Holder]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "web.lock"


@pytest.fixture
def lock(file: Path) -> Iterator[LOCK]:
    """Try to take the lock as an owner at a generation."""
    started: list[Holder] = []

    def start(generation: int, owner: str, *options: str) -> Holder:
        started.append(Holder(*options, str(file), str(generation), owner))
        return started[-1]

    yield start
    for holder in started:
        holder.close()


def probe(file: Path) -> str:
    told = subprocess.run(
        [native.find("outlive-runlock"), "--probe", str(file)], capture_output=True, text=True, timeout=60, check=True
    )
    return told.stdout.rstrip("\n")


def refused(holder: Holder) -> str:
    assert holder.process.wait(60) == 3
    return holder.answer


def test_a_lock_has_one_holder(lock: LOCK, file: Path) -> None:
    assert probe(file) == "FREE"
    assert lock(5, "a").answer == "HELD"
    assert refused(lock(5, "a")) == "BUSY a 5"
    assert refused(lock(6, "b")) == "BUSY a 5"
    assert probe(file) == "HELD a 5"


def test_the_death_of_its_holder_frees_it_and_the_record_stays(lock: LOCK, file: Path) -> None:
    first = lock(5, "a")
    for number in (1, 2, 3, 10, 12, 13, 14, 15):
        first.process.send_signal(number)
    assert probe(file) == "HELD a 5"
    first.close()
    assert probe(file) == "FREE a 5"
    assert lock(6, "b").answer == "HELD"
    assert probe(file) == "HELD b 6"


def test_an_older_generation_is_refused_also_when_nobody_holds_it(lock: LOCK, file: Path) -> None:
    lock(7, "a").close()
    assert refused(lock(6, "a")) == "NEWER a 7"
    assert refused(lock(6, "b")) == "NEWER a 7"
    assert refused(lock(7, "b")) == "OTHER a 7"
    assert lock(7, "a").answer == "HELD"
    assert probe(file) == "HELD a 7"


def test_a_damaged_record_is_refused_and_left_as_it_is(lock: LOCK, file: Path) -> None:
    lock(7, "a").close()
    good = file.read_bytes()
    damaged = (
        good.replace(b'"generation":7', b'"generation":3'),
        good.replace(b'"owner":"a"', b'"owner":"b"'),
        good[:-1],
        good + b"\n",
        good[:100],
        b"\0" * 512,
        b"nonsense\n",
        b"{}",
        b'{"generation":1,"owner":"a","boot_id":"b"}',
        good.replace(b" #", b"  "),
    )
    for text in damaged:
        file.write_bytes(text)
        assert refused(lock(9, "a")).startswith("GARBLED the record")
        assert probe(file).startswith("GARBLED the record")
        assert file.read_bytes() == text
    file.write_bytes(good)
    assert lock(9, "a").answer == "HELD"


def test_a_lock_over_a_damaged_record_is_still_busy(lock: LOCK, file: Path) -> None:
    lock(7, "a")
    file.write_bytes(b"nonsense")
    assert refused(lock(9, "b")) == "BUSY ? 0"
    assert probe(file).startswith("GARBLED ")


def test_no_bytes_make_an_older_generation_be_taken(tmp_path: Path) -> None:
    file = tmp_path / "fuzz.lock"
    Holder(str(file), "7", "a").close()
    good = file.read_bytes()

    @settings(max_examples=60)
    @given(st.integers(0, 511), st.integers(1, 255), st.integers(0, 600))
    def hold(at: int, change: int, size: int) -> None:
        text = bytearray(good)
        text[at] ^= change
        file.write_bytes(bytes(text[:size]) if size > 512 or size < at else bytes(text))
        holder = Holder(str(file), "8", "b")
        holder.close()
        assert holder.answer.startswith("GARBLED ") or (holder.answer == "HELD" and size == 0)

    hold()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "link", "pipe", "no/where"):
        holder = Holder(str(tmp_path / name), "1", "a")
        assert holder.process.wait(60) == 1, name
        assert holder.answer.startswith("ERR the lock file cannot be "), holder.answer
        holder.close()
    assert not (tmp_path / "target").exists()


def test_the_holder_lives_in_the_cgroup_and_is_named_in_its_state_file(lock: LOCK, file: Path, root: Path) -> None:
    state = file.parent / "lock.json"
    (root / "_runner").mkdir()
    holder = lock(5, "host-a", f"--cgroup={root / '_runner'}", f"--state={state}")
    assert holder.answer == "HELD"
    pid = holder.process.pid
    assert (root / "_runner" / "cgroup.procs").read_text().split() == [str(pid)]
    assert state.read_text() == (
        f'{{"boot_id":"{spawn.boot_id()}","pid":{pid},"start_ticks":{spawn.start_ticks(pid)},"generation":5,'
        f'"owner":"host-a","file":"{file}","held":true}}\n'
    )
    (root / "cgroup.kill").write_text("1")
    until(lambda: probe(file) == "FREE host-a 5")


def test_one_that_is_refused_never_says_that_it_holds(lock: LOCK, file: Path) -> None:
    state = file.parent / "lock.json"
    lock(5, "a")
    assert refused(lock(6, "b", f"--state={state}")) == "BUSY a 5"
    assert '"held":false' in state.read_text()


def test_options_that_make_no_sense_are_refused(file: Path) -> None:
    for words in (
        (),
        (str(file),),
        (str(file), "x", "a"),
        (str(file), "-1", "a"),
        (str(file), "1", "a b"),
        (str(file), "1", ""),
        (str(file), "1", "x" * 200),
        ("--probe",),
        ("--probe", str(file), "1"),
    ):
        assert subprocess.run([native.find("outlive-runlock"), *words], capture_output=True).returncode == 2, words
    assert not file.exists()
