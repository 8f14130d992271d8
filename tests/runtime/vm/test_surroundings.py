"""What stands around an emulator: its words about its end, its console's log, its guest's agent, its run folder."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.cluster.machine import KernelBoot, Machine
from outlive.runtime.runner import Account, Exit
from outlive.runtime.vm import console, guest_agent, preparing, seat, states
from outlive.runtime.vm.evidence import disk_counters, received_frames
from outlive.runtime.vm.host import HostFacts
from outlive.runtime.vm.qmp import Monitor, VmUnreachable
from outlive.runtime.vm.starting import why_not
from outlive.runtime.vm.states import GuestState

from .conftest import let_through

FACTS = HostFacts(Path("/q"), "7.2")


def test_why_an_emulator_ended() -> None:
    locked = ['qemu-system-x86_64: -device x: Failed to get "write" lock', "Is another process using the image [/d]?"]
    assert "holds the lock of the same image" in why_not(locked, Exit(code=1))
    assert why_not(["qemu: could not open kernel"], Exit(code=1)) == "it ended with code 1: could not open kernel"
    assert why_not(["GTK is missing"], Exit(code=1)) == "it ended with code 1"
    assert why_not(locked, Exit(signal=9)) == "it was ended by SIGKILL"


def test_a_state_that_is_not_known_is_not_a_bad_one() -> None:
    assert states.from_qmp("something-new") is GuestState.UNKNOWN
    assert states.from_qmp("internal-error") is GuestState.BROKEN


def test_the_consoles_log_stays_short_and_its_end_is_read_across_the_cut(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"a" * console.MOST_KEPT_BYTES)
    assert not console.trim(log)
    with log.open("ab") as file:
        file.write(b"the end")
        file.flush()
        assert console.trim(log)
        file.write(b" and more")
        file.flush()
    assert log.read_bytes() == b" and more"
    assert console.last_output(log, 20) == b"aaaathe end and more"
    assert not console.trim(tmp_path / "none")
    assert console.last_output(tmp_path / "none") == b""


def test_links_that_an_emulator_left_are_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"secret")
    run = tmp_path / "run"
    run.mkdir()
    one = seat.Seat(tmp_path / "vm", run)
    one.console_log.symlink_to(mine)
    with pytest.raises(preparing.NotPrepared):
        preparing.prepare("one", Machine(), one, FACTS, Account(65534, 65534))
    with pytest.raises(OSError, match="symbolic links"):
        console.last_output(one.console_log)
    assert (mine.read_bytes(), mine.stat().st_uid) == (b"secret", os.geteuid())


def test_memory_is_made_anew_and_only_what_belongs_to_one_run_goes(tmp_path: Path) -> None:
    memory = tmp_path / "shm" / "ram"
    one = seat.Seat(tmp_path / "vm", tmp_path / "run", memory=seat.SharedMemory(memory))
    preparing.prepare("one", Machine(memory_mib=16), one, FACTS, None)
    memory.write_bytes(b"old")
    one.agents_qmp.touch()
    preparing.prepare("one", Machine(memory_mib=16), one, FACTS, None)
    assert (memory.stat().st_size, memory.stat().st_blocks) == (16 << 20, 0)
    preparing.clear(one)
    assert not memory.exists()
    assert one.console_log.exists()


@asynccontextmanager
async def listening(path: Path, answers: Callable[[bytes], bytes]) -> AsyncIterator[None]:
    """A server that answers a client's first line and waits until it goes."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers(await reader.readline()))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
        async with asyncio.timeout(30.0):
            await ended.wait()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (lambda number: b'\xff{"return": %d}\n' % number, True),
        (lambda number: b'{"return": 7777}\nnoise\n\xff{"return": %d}\n' % number, True),
        (lambda number: b'{"return": %d}\n' % (number + 1), False),
        (lambda number: b"x" * 200_000, False),
        (lambda number: b"", False),
    ],
)
async def test_a_guests_agent_is_believed_only_when_it_repeats_the_number(
    tmp_path: Path, answers: Callable[[int], bytes], expected: bool
) -> None:
    def answer(line: bytes) -> bytes:
        return answers(json.loads(line.lstrip(b"\xff"))["arguments"]["id"])

    async with listening(tmp_path / "ga", answer):
        assert await guest_agent.answers(tmp_path / "ga", 0.5) is expected


async def test_no_channel_is_no_answer(tmp_path: Path) -> None:
    assert not await guest_agent.answers(tmp_path / "none", 1.0)


async def test_a_monitor_that_is_silent_is_given_up_in_time(tmp_path: Path) -> None:
    async with listening(tmp_path / "qmp", lambda _: b""):
        with pytest.raises(VmUnreachable) as silent:
            await Monitor.connect(tmp_path / "qmp", within_s=0.2)
    assert silent.value.cause == "no answer within 0.2 s"
    with pytest.raises(VmUnreachable):
        await Monitor.connect(tmp_path / "none", within_s=0.2)


def test_counters_are_read() -> None:
    blocks = [{"qdev": "/x/d", "stats": {"rd_operations": 3, "wr_operations": 4, "rd_bytes": 9}}, {"stats": {}}]
    counters = disk_counters(blocks)
    assert (counters["/x/d rd_operations"], counters["/x/d wr_operations"]) == (3, 4)
    text = "Inter-| Receive\n face |bytes\n  tap0: 100 7 0 0 0 0 0 0 200 9 0 0 0 0 0 0\n    lo: 1 1 0 0\n"
    assert received_frames(text) == {"tap0": 7, "lo": 1}


def test_what_is_closed_to_its_own_user_is_named(tmp_path: Path) -> None:
    account = Account(65534, 65534)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    kernel = tmp_path / "kernel"
    kernel.touch(0o600)
    let_through(tmp_path)
    open_seat = seat.Seat(tmp_path / "vm", tmp_path / "run")
    assert preparing.closed_to(account, Machine(), open_seat) == ""
    assert preparing.closed_to(account, Machine(), replace(open_seat, run=shut / "run")) == f"{shut} is closed to it"
    booted = Machine(boot=KernelBoot(str(kernel)))
    assert preparing.closed_to(account, booted, open_seat) == f"{kernel} cannot be read by it"
