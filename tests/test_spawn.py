"""A program that hangs costs a time limit and nothing else; a pid that was used again is nobody we know."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive import spawn

from .native.guarding import until

WITHIN_S = 20.0
PROGRAM = Callable[[str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PROGRAM:
    """Have a shell script in the place of a native program; its answer goes to descriptor 3."""

    def write(script: str) -> None:
        path = tmp_path / "outlive-runner"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("OUTLIVE_NATIVE_DIR", str(tmp_path))
    return write


async def ended(process: spawn.Process) -> None:
    async with asyncio.timeout(WITHIN_S):
        await process.wait()


async def test_a_program_answers_with_a_line_and_is_watched_to_its_end(program: PROGRAM, tmp_path: Path) -> None:
    program('echo "OK $1 $2" >&3; echo said >&2; read line; exit 7')
    process, answer = await spawn.start(
        "outlive-runner", ("one", "two words"), timeout_s=WITHIN_S, stderr=tmp_path / "said"
    )
    assert answer == "OK --ready-fd=3 one"
    await ended(process)
    assert process.status == 7
    assert (tmp_path / "said").read_text() == "said\n"
    process.send(signal.SIGKILL)


async def test_a_program_that_does_not_answer_is_killed(program: PROGRAM, tmp_path: Path) -> None:
    program(f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    with pytest.raises(spawn.ProgramSilent):
        await spawn.start("outlive-runner", (), timeout_s=1.0)
    pid = int((tmp_path / "pid").read_text())
    await asyncio.to_thread(until, lambda: not spawn.start_ticks(pid))  # also reaped, by the loop


async def test_a_program_that_ends_without_an_answer_is_an_error(program: PROGRAM) -> None:
    program("exit 1")
    with pytest.raises(spawn.ProgramFailed):
        await spawn.start("outlive-runner", (), timeout_s=WITHIN_S)


async def test_a_program_that_cannot_be_run_is_an_error(program: PROGRAM, tmp_path: Path) -> None:
    program("")
    (tmp_path / "outlive-runner").write_text("#!/no/such/interpreter\n")
    with pytest.raises(spawn.ProgramFailed):
        await spawn.start("outlive-runner", (), timeout_s=WITHIN_S)


async def test_a_started_program_leaves_no_descriptor_behind(program: PROGRAM) -> None:
    program("echo OK >&3")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        process, _ = await spawn.start("outlive-runner", (), timeout_s=WITHIN_S)
        await ended(process)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that somebody else started."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


async def test_a_process_is_adopted_by_identity_and_never_by_pid_alone(stranger: int) -> None:
    known = spawn.Identity(spawn.boot_id(), stranger, spawn.start_ticks(stranger))
    recycled = spawn.Identity(known.boot_id, known.pid, known.start_ticks - 1)
    before_boot = spawn.Identity("00000000-0000-0000-0000-000000000000", known.pid, known.start_ticks)
    assert spawn.Process.adopt(recycled) is None
    assert spawn.Process.adopt(before_boot) is None
    assert spawn.Process.adopt(spawn.Identity(known.boot_id, 0, 0)) is None
    assert spawn.Process.adopt(spawn.Identity(known.boot_id, 10**30, 1)) is None
    process = spawn.Process.adopt(known)
    assert process is not None
    assert not process.ended
    process.send(signal.SIGKILL)
    await ended(process)


def test_a_program_with_a_strange_name_has_a_start_time(tmp_path: Path) -> None:
    strange = tmp_path / ") R 1 (x"
    strange.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(strange), "1000"])
    try:
        assert spawn.start_ticks(process.pid) >= spawn.start_ticks(os.getpid())
    finally:
        process.kill()
        process.wait()
