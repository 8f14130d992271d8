"""A campaign in pieces: each seed is run once, whatever was interrupted, and a file that is none is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.sim.campaign_log import BadLog, Piece, add, decisions, read, still_to_run


def piece(first: int, seeds: int, hosts: int = 5) -> Piece:
    return Piece(first, seeds, hosts, (), 1.0, 2.0, decisions())


def test_what_was_added_is_read_and_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read(log) == []
    add(log, piece(0, 500))
    with log.open("ab") as file:
        file.write(b'{"first_seed": 500, "se')
    assert read(log) == [piece(0, 500)]
    add(log, piece(500, 500))
    assert read(log) == [piece(0, 500), piece(500, 500)]


@given(
    st.integers(0, 50), st.integers(1, 100), st.integers(1, 30),
    st.lists(st.builds(piece, st.integers(0, 150), st.integers(1, 40), st.sampled_from([3, 5])), max_size=8),
)  # fmt: skip
def test_every_seed_that_no_piece_has_is_still_to_run_once(
    first: int, count: int, most: int, pieces: list[Piece]
) -> None:
    stretches = still_to_run(pieces, first, count, 5, most)
    left = [seed for begin, seeds in stretches for seed in range(begin, begin + seeds)]
    have = {seed for each in pieces if each.hosts == 5 for seed in range(each.first_seed, each.first_seed + each.seeds)}
    assert left == [seed for seed in range(first, first + count) if seed not in have]
    assert all(1 <= seeds <= most for _, seeds in stretches)


@pytest.mark.parametrize(
    "line", [b"nonsense", b"{}", b"[1]", b'{"first_seed":-1,"seeds":5}', b"\xff\xfe", b'{"first_seed":"x"}']
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, line: bytes) -> None:
    log = tmp_path / "log"
    add(log, piece(0, 5))
    with log.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(BadLog):
        read(log)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    log = tmp_path_factory.getbasetemp() / "junk"
    log.write_bytes(junk)
    try:
        read(log)
    except BadLog:
        return
