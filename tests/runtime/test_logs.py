"""Lines come back in order of time and whole, through rotation, noise and files that are not there yet."""

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from outlive.runtime.logs import Follower, LogLine, last_lines, log_path, parsed, read


def line(ms: int, text: str, stream: str = "o") -> bytes:
    return f"{ms} {stream} {text}\n".encode()


def texts(lines: list[LogLine]) -> list[str]:
    return [each.text for each in lines]


def test_a_line_is_read_with_its_time_and_stream() -> None:
    assert parsed("m", b"1700000000000 e a b  c") == LogLine(1_700_000_000_000, "m", "err", "a b  c")
    assert parsed("m", b"5 o ") == LogLine(5, "m", "out", "")


@given(noise=st.binary(max_size=60).filter(lambda raw: b"\n" not in raw))
def test_noise_is_passed_over_and_raises_nothing(noise: bytes) -> None:
    told = parsed("m", noise)
    assert told is None or told.module == "m"


def test_the_last_lines_come_from_older_files_too(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    path.with_name("m.log.2").write_bytes(line(1, "one") + line(2, "two"))
    path.with_name("m.log.1").write_bytes(line(3, "three"))
    path.write_bytes(line(4, "four") + b"5 o not whole")
    assert texts(last_lines(path, "m", 3)) == ["two", "three", "four"]
    assert texts(last_lines(path, "m", 100)) == ["one", "two", "three", "four"]
    assert last_lines(tmp_path / "none.log", "m", 3) == []


def test_lines_longer_than_a_block_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    wanted = [str(number) * 50_000 for number in range(6)]
    path.write_bytes(b"".join(line(number, text) for number, text in enumerate(wanted)))
    assert texts(last_lines(path, "m", 10)) == wanted


def test_a_follower_sees_only_what_comes_later_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    path.write_bytes(line(1, "old"))
    follower = Follower(path, "m")
    assert follower.read() == []
    with path.open("ab") as file:
        file.write(line(2, "new") + b"3 o hal")
    assert texts(follower.read()) == ["new"]
    with path.open("ab") as file:
        file.write(b"f\n")
    assert texts(follower.read()) == ["half"]
    follower.close()


def test_a_follower_misses_nothing_when_the_log_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    path.write_bytes(line(1, "one"))
    follower = Follower(path, "m", from_start=True)
    assert texts(follower.read()) == ["one"]
    with path.open("ab") as file:
        file.write(line(2, "two"))
    path.rename(path.with_name("m.log.1"))
    path.write_bytes(line(3, "three"))
    assert texts(follower.read() + follower.read()) == ["two", "three"]
    follower.close()


def test_a_follower_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "m.log"
    follower = Follower(path, "m")
    assert follower.read() == []
    path.write_bytes(line(1, "one"))
    assert texts(follower.read()) == ["one"]
    follower.close()


async def test_modules_are_merged_by_time_and_a_later_one_is_followed_too(tmp_path: Path) -> None:
    web, db, late = (log_path(tmp_path, "shop", name) for name in ("web", "db", "late"))
    web.parent.mkdir()
    web.write_bytes(line(1, "a") + line(4, "d"))
    db.write_bytes(line(2, "b") + line(3, "c"))
    found: list[str] = []
    async with asyncio.timeout(60):
        async for told in read(tmp_path, "shop", (), 3, follow=True):
            found.append(f"{told.module} {told.text}")
            if len(found) == 3:
                late.write_bytes(line(5, "e"))
            if len(found) == 4:
                break
    assert found == ["db b", "db c", "web d", "late e"]
