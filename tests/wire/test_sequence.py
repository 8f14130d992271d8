"""Sequence numbers grow over crashes, lost files and old snapshots."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import outlive
from outlive.wire import sequence
from outlive.wire.sequence import BLOCK, Origin, Sequences, SequenceUnwritable


def test_numbers_grow_over_a_restart(tmp_path: Path) -> None:
    first = Sequences(tmp_path / "sequence", wall_us=1000)
    numbers = [first.next() for _ in range(5)]
    again = Sequences(tmp_path / "sequence", wall_us=0)
    assert numbers == [1000, 1001, 1002, 1003, 1004]
    assert again.origin is Origin.CONTINUED
    assert again.next() > numbers[-1]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=8))
def test_no_number_is_ever_given_twice(tmp_path_factory: pytest.TempPathFactory, lives: list[tuple[int, int]]) -> None:
    path = tmp_path_factory.mktemp("life") / "sequence"
    given_out: list[int] = []
    for used, reserves in lives:
        numbers = Sequences(path, wall_us=1)
        for _ in range(reserves):
            given_out.extend(numbers.next() for _ in range(used))
            numbers.reserve()
    assert given_out == sorted(set(given_out))


def test_a_crash_at_any_moment_repeats_no_number(tmp_path: Path) -> None:
    path = tmp_path / "sequence"
    program = (
        "import sys; sys.path.append(sys.argv[2])\n"
        "from pathlib import Path\n"
        "from outlive.wire.sequence import Sequences\n"
        "numbers = Sequences(Path(sys.argv[1]), 1)\n"
        "while True:\n"
        "    print(numbers.next(), file=sys.stderr, flush=True)\n"
        "    numbers.reserve()\n"
    )
    source = str(Path(outlive.__file__).parent.parent)
    given_out: list[int] = []
    for lines in (1, 3, 10):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path), source],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            given_out.extend(int(process.stderr.readline()) for _ in range(lines))
            process.kill()
    assert given_out == sorted(set(given_out))


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0" * 40, b"outlive-sequence 1\n5\n00000000\n", b"\xff\xfe", b"outlive-sequence 2\n5\n5\n"],
)
def test_a_damaged_file_is_overtaken_by_the_clock(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "sequence").write_bytes(garbage)
    numbers = Sequences(tmp_path / "sequence", wall_us=5_000_000)
    assert numbers.origin is Origin.DAMAGED
    assert numbers.next() == 5_000_000


def test_an_old_copy_of_the_file_is_overtaken_by_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "sequence"
    Sequences(path, wall_us=1)
    snapshot = path.read_bytes()
    later = Sequences(path, wall_us=10 * BLOCK)
    used = [later.next() for _ in range(3)]
    path.write_bytes(snapshot)
    assert Sequences(path, wall_us=20 * BLOCK).next() > used[-1]


def test_a_number_that_others_have_heard_can_be_passed(tmp_path: Path) -> None:
    numbers = Sequences(tmp_path / "sequence", wall_us=1)
    numbers.raise_to(10 * BLOCK)
    assert numbers.next() == 10 * BLOCK + 1
    numbers.raise_to(5)
    assert numbers.next() == 10 * BLOCK + 2
    assert Sequences(tmp_path / "sequence", wall_us=1).next() > 10 * BLOCK + 2


def test_numbers_that_cannot_be_reserved_are_not_given(tmp_path: Path) -> None:
    with pytest.raises(SequenceUnwritable, match="cannot be kept"):
        Sequences(tmp_path / "missing" / "sequence", wall_us=1)


def test_a_reserve_that_fails_later_stops_only_when_it_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence, "BLOCK", 10)
    numbers = Sequences(tmp_path / "sequence", wall_us=1)
    (tmp_path / "sequence.new").mkdir()
    given_out = [numbers.next() for _ in range(10)]
    assert numbers.low
    with pytest.raises(SequenceUnwritable):
        numbers.reserve()
    with pytest.raises(SequenceUnwritable, match="used up"):
        numbers.next()
    (tmp_path / "sequence.new").rmdir()
    numbers.reserve()
    assert numbers.next() > given_out[-1]


async def test_numbers_are_reserved_in_time_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "BLOCK", 10)
    monkeypatch.setattr(sequence, "LOOK_EVERY_S", 0.001)
    numbers = Sequences(tmp_path / "sequence", wall_us=1)
    keeper = asyncio.create_task(numbers.keep_reserved())
    given_out: list[int] = []
    async with asyncio.timeout(60):
        while len(given_out) < 50:
            while numbers.low:  # noqa: ASYNC110 -- nothing tells when it has reserved
                await asyncio.sleep(0.001)
            given_out.append(numbers.next())
    keeper.cancel()
    assert given_out == sorted(set(given_out))
