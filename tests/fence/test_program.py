"""A program has ended when nothing of it is there: what it leaves behind is ended first, wherever it hid."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlive.agent.enclosing import Enclosures, Group
from outlive.fence import program
from outlive.fence.program import Enclosure, run

from ..native.conftest import root
from ..native.guarding import until

__all__ = ["root"]

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
MAKE = Callable[[], Enclosure | None]


def lives(folder: Path) -> bool:
    """Whether what was left behind writes still: it says so each moment."""
    file = folder / "alive"
    before = file.stat().st_size
    time.sleep(0.3)
    return file.stat().st_size != before


def leaving(folder: Path, how: str) -> tuple[str, ...]:
    """A program that ends with 3 once what it started works."""
    work = f"while :; do echo >> {folder}/alive; sleep 0.02; done"
    (folder / "work").write_text(work)
    return ("/bin/sh", "-c", f"{how} sh {folder}/work & while ! test -s {folder}/alive; do sleep 0.01; done; exit 3")


@pytest.mark.parametrize("how", ["", "exec >/dev/null 2>&1; nohup", "set -m; "])
async def test_what_a_program_leaves_in_its_session_is_ended_before_it_counts_as_over(how: str, tmp_path: Path) -> None:
    ended = await run(leaving(tmp_path, how), b"", ENVIRONMENT)
    assert ended.code == 3
    assert not lives(tmp_path)


async def test_what_leaves_the_session_does_not_leave_its_control_group(tmp_path: Path, root: Path) -> None:
    enclosures = Enclosures(root / "workloads")
    ended = await run(leaving(tmp_path, "exec >/dev/null 2>&1; setsid"), b"", ENVIRONMENT, enclosures())
    assert ended.code == 3
    assert not lives(tmp_path)
    assert not [each for each in (root / "fence").iterdir() if each.is_dir()]


async def test_a_limit_ends_what_a_program_started_with_it(tmp_path: Path, root: Path) -> None:
    endless = (*leaving(tmp_path, "setsid")[:2], leaving(tmp_path, "setsid")[2].replace("exit 3", "sleep 600"))
    attempt = asyncio.ensure_future(run(endless, b"", ENVIRONMENT, Enclosures(root / "workloads")()))
    await asyncio.to_thread(until, (tmp_path / "alive").exists)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert not lives(tmp_path)


async def test_what_ends_by_itself_in_a_moment_is_heard_out() -> None:
    ended = await run(("/bin/sh", "-c", "cat; (sleep 0.1; echo late; echo worse >&2) &"), b"given ", ENVIRONMENT)
    assert ended == program.Ended(0, b"given late\n", b"worse\n")


async def test_what_an_agent_that_died_left_running_is_ended_by_the_next_one(tmp_path: Path, root: Path) -> None:
    first = Enclosures(root / "workloads")()
    assert first is not None
    words = leaving(tmp_path, "setsid")
    enter = f"echo 0 > {first.folder}/cgroup.procs; {words[2]}"
    await (await asyncio.create_subprocess_exec("/bin/sh", "-c", enter)).wait()
    await asyncio.to_thread(until, lambda: lives(tmp_path))
    Enclosures(root / "workloads")
    await asyncio.to_thread(until, lambda: not Group(first.folder).populated())


async def test_a_program_that_cannot_be_run_is_an_error_of_the_system(root: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        await run(("/nowhere/fence",), b"", ENVIRONMENT)
    with pytest.raises(ValueError, match="null"):
        await run(("/bin/sh", "-c", "\0"), b"", ENVIRONMENT, Enclosures(root / "workloads")())
    assert not [each for each in (root / "fence").iterdir() if each.is_dir()]
