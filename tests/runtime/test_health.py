"""Checks say '' when all is well and a sentence when not, within their time, leaving nothing behind."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outlive.cluster.workload import Check, CheckKind
from outlive.runtime.health import Sick, Surroundings, tried, watched

from ..serving import serving

HERE = Surroundings({"PATH": os.environ["PATH"], "COLOUR": "green"})


def command(*words: str, timeout_s: float = 20.0) -> Check:
    return Check(CheckKind.COMMAND, words, timeout_s=timeout_s)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """A TCP server on loopback that answers any first bytes with `answer`, or with silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
            writer.close()

    async with serving(serve) as port:
        yield port


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_command_is_well_when_it_exits_zero() -> None:
    assert await tried(command("sh", "-c", "test $COLOUR = green"), HERE) == ""


async def test_a_failing_command_is_told_with_its_last_words() -> None:
    said = await tried(command("sh", "-c", "echo noise; echo out of memory >&2; exit 4"), HERE)
    assert said == "exit code 4, 'out of memory'"


async def test_a_command_that_is_not_there_is_told() -> None:
    assert "127" in await tried(command("/no/such/program"), HERE)


async def test_a_command_starts_in_its_folder(tmp_path: Path) -> None:
    where = Surroundings(HERE.environment, folder=str(tmp_path))
    assert await tried(command("sh", "-c", f'test "$(pwd)" = "{tmp_path}"'), where) == ""


async def test_a_command_runs_as_its_user() -> None:
    where = Surroundings(HERE.environment, user="nobody")
    assert await tried(command("sh", "-c", 'test "$(id -un)" = nobody'), where) == ""


async def test_a_hanging_command_ends_with_all_its_children(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    assert "no answer within" in await tried(command("sh", "-c", script, timeout_s=1.0), HERE)
    await gone(int((tmp_path / "pid").read_text()))


async def test_a_command_that_writes_without_end_does_not_fill_the_memory() -> None:
    assert "no answer" in await tried(command("yes", timeout_s=0.5), HERE)


async def test_a_port_that_accepts_is_well_and_one_that_refuses_is_not() -> None:
    async with server(None) as port:
        assert await tried(Check(CheckKind.TCP, port=port), HERE) == ""
    assert await tried(Check(CheckKind.TCP, port=port), HERE) == "connection refused"


async def test_http_wants_the_status_it_was_told() -> None:
    async with server(b"HTTP/1.1 204 No Content\r\n\r\n") as port:
        assert await tried(Check(CheckKind.HTTP, port=port, status=204), HERE) == ""
        assert await tried(Check(CheckKind.HTTP, port=port), HERE) == "status 204 instead of 200"


@pytest.mark.parametrize(
    "answer", [b"", b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 \xff\r\n", b"x" * 200_000]
)
async def test_http_from_something_else_is_told(answer: bytes) -> None:
    async with server(answer) as port:
        assert await tried(Check(CheckKind.HTTP, port=port), HERE) != ""


async def test_http_that_never_answers_ends_in_time() -> None:
    async with server(None) as port:
        assert await tried(Check(CheckKind.HTTP, port=port, timeout_s=0.3), HERE) == "no answer within 0.3 s"


async def test_single_failures_are_borne_and_a_row_of_them_is_not(tmp_path: Path) -> None:
    # Fails on every second try until the file says to fail always.
    script = f"""cd {tmp_path}; echo x >> tries; [ -e always ] && exit 1; exit $(( $(wc -l < tries) % 2 ))"""
    check = Check(CheckKind.COMMAND, ("sh", "-c", script), interval_s=0.01, timeout_s=60, failures=2, grace_s=60)
    first = asyncio.Event()
    watching = asyncio.create_task(watched(check, HERE, first.set))
    async with asyncio.timeout(60):
        await first.wait()
        while (tmp_path / "tries").read_text().count("x") < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert not watching.done()
        (tmp_path / "always").touch()
        with pytest.raises(Sick, match="failed 2 times in a row: exit code 1"):
            await watching


async def test_before_the_first_success_only_the_grace_counts() -> None:
    check = Check(CheckKind.COMMAND, ("false",), interval_s=0.01, timeout_s=60, failures=1, grace_s=0.3)
    with pytest.raises(Sick, match=r"had not succeeded 0\.3 s after the start"):
        async with asyncio.timeout(60):
            await watched(check, HERE, lambda: pytest.fail("it never succeeded"))
