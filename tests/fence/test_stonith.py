"""A host is off when the device says so: whatever else a program says, does not say, or takes for ever to say."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.config.fencing import Method
from outlive.fence import stonith
from outlive.fence.stonith import MethodUnusable, Power

from ..native.guarding import until

STAND_IN = Path(__file__).with_name("fence_standin.py")
MAKE = Callable[..., Method]


@pytest.fixture
def make(tmp_path: Path) -> MAKE:
    """A method with a fence agent for hosts a and b, which are on; it lets itself be told a fault."""
    agent = tmp_path / "fence_standin"
    agent.write_text(f"#!/bin/sh\nexec {sys.executable} {STAND_IN}\n")
    agent.chmod(0o755)
    (tmp_path / "password").write_text("s3cret\n")
    for host in "ab":
        (tmp_path / host).write_text("on")

    def method(fault: str = "", limit_s: float = 20.0, password: str = "password") -> Method:
        options = {"plug": "{host}", "state": str(tmp_path), "fault": fault, "password_file": str(tmp_path / password)}
        return Method("power", agent=str(agent), options=options, limit_s=limit_s)

    return method


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


async def test_a_host_is_switched_off_and_then_asked_for(make: MAKE, tmp_path: Path) -> None:
    said = await stonith.fence(make(), "b", "10.0.0.2")
    assert said.power is Power.OFF
    assert calls(tmp_path) == ["off b", "status b"]
    assert (tmp_path / "a").read_text() == "on"


async def test_fencing_twice_is_harmless(make: MAKE) -> None:
    assert (await stonith.fence(make(), "b", "")).power is Power.OFF
    assert (await stonith.fence(make(), "b", "")).power is Power.OFF


async def test_success_without_proof_is_none(make: MAKE) -> None:
    said = await stonith.fence(make("lie", limit_s=4.0), "b", "")
    assert said.power is not Power.OFF
    assert "not proven" in said.text
    assert "Status: ON" in said.text


async def test_a_device_that_cannot_tell_proves_nothing(make: MAKE) -> None:
    assert (await stonith.fence(make("mumble", limit_s=1.0), "b", "")).power is not Power.OFF


async def test_a_refusal_is_told_without_the_secret(make: MAKE) -> None:
    said = await stonith.fence(make("refuse"), "b", "")
    assert said.power is not Power.OFF
    assert "refused" in said.text
    assert "s3cret" not in said.text


async def test_a_program_that_dawdles_is_ended_at_its_limit_with_all_that_it_started(
    make: MAKE, tmp_path: Path
) -> None:
    began_at = time.monotonic()
    said = await stonith.fence(make("dawdle", limit_s=0.7), "b", "")
    assert said.power is Power.UNKNOWN
    assert time.monotonic() - began_at < 60
    until(lambda: not _runs(str(tmp_path)))


async def test_a_try_that_is_called_off_ends_its_program(make: MAKE, tmp_path: Path) -> None:
    attempt = asyncio.create_task(stonith.fence(make("dawdle"), "b", ""))
    async with asyncio.timeout(60):
        while not (tmp_path / "calls").exists():  # noqa: ASYNC110 - a test waits for a file
            await asyncio.sleep(0.02)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    until(lambda: not _runs(str(tmp_path)))


def _runs(word: str) -> bool:
    """Whether a fence agent of this test lives; its interpreter was given the stand-in's path and nothing else."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    return any(STAND_IN.name in line and f" {os.getpid()} " in line for line in told.splitlines())


async def test_a_host_that_the_device_calls_off_is_off_though_the_switch_complained(make: MAKE, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("off")
    command = Method("pdu", command=("/bin/false",), status=("/bin/sh", "-c", "echo off; exit 2"))
    assert (await stonith.fence(command, "b", "")).power is Power.OFF


async def test_a_command_of_ones_own_is_told_the_host_and_its_options(tmp_path: Path) -> None:
    note = tmp_path / "note"
    words = ("/bin/sh", "-c", 'echo "$@" > ' + str(note), "x", "{host}", "{address}", "{outlet}")
    status = ("/bin/sh", "-c", f"test -e {note} && echo b: off && exit 2")
    method = Method("pdu", command=words, status=status, hosts={"b": {"outlet": "7"}})
    assert (await stonith.fence(method, "b", "10.0.0.2")).power is Power.OFF
    assert note.read_text() == "b 10.0.0.2 7\n"


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Method("none", agent="fence_nothing_of_that_name"), "is not there"),
        (Method("none", command=("/nowhere/pdu",), status=("/bin/true",)), "is not there"),
    ],
)
async def test_a_program_that_is_missing_is_told_and_proves_nothing(method: Method, says: str) -> None:
    said = await stonith.fence(method, "b", "")
    assert said.power is Power.UNKNOWN
    assert says in said.text
    with pytest.raises(MethodUnusable):
        await stonith.status(method, "b", "")


async def test_a_password_that_cannot_be_read_is_told(make: MAKE) -> None:
    said = await stonith.fence(make(password="nowhere"), "b", "")
    assert said.power is Power.UNKNOWN
    assert "password" in said.text


async def test_a_password_that_is_no_file_is_told_and_not_waited_for(make: MAKE, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, says in (("pipe", "no file"), ("bytes", "not text"), ("nu\0l", "null")):
        said = await stonith.fence(make(password=name), "b", "")
        assert said.power is Power.UNKNOWN
        assert says in said.text


async def test_words_that_no_program_can_be_given_are_told_and_prove_nothing() -> None:
    said = await stonith.fence(Method("pdu", command=("/bin/true", "a\0b"), status=("/bin/true",)), "b", "")
    assert said.power is Power.UNKNOWN
    assert "pdu cannot be used" in said.text


@pytest.mark.parametrize(
    "script",
    [
        "exit 2",
        "echo 'usage: pdu on|off'; exit 2",
        "echo off >&2; exit 2",
        "echo c: off; exit 2",
        "printf 'a: on\noff\n' | sed s/a/b/; exit 2",
        "echo no such command: off; exit 2",
        "printf 'Status: ON\nStatus: OFF\n'; exit 2",
        "echo Status: OFF; exit 1",
        "echo Status: OFF",
    ],
)
async def test_a_code_that_wrong_usage_has_too_is_no_proof_without_the_word(script: str) -> None:
    method = Method("pdu", command=("/bin/false",), status=("/bin/sh", "-c", script))
    assert (await stonith.fence(method, "b", "")).power is not Power.OFF


@pytest.mark.parametrize("word", ["off", "OFF", "Status: OFF", "b: off", "noise\nstatus: off."])
async def test_the_code_beside_the_word_is_proof(word: str) -> None:
    method = Method("pdu", command=("/bin/false",), status=("/bin/sh", "-c", f"printf '{word}\n'; exit 2"))
    assert (await stonith.fence(method, "b", "")).power is Power.OFF


async def test_a_device_is_asked_only_after_all_that_was_to_switch_it_has_ended(tmp_path: Path) -> None:
    """Here what the switch leaves behind would switch the host on again, right after the proof."""
    power = tmp_path / "power"
    power.write_text("off")
    undo = f"(sleep 3; echo on > {power}) & exit 0"
    ask = f"cat {power}; test $(cat {power}) = off && exit 2"
    method = Method("pdu", command=("/bin/sh", "-c", undo), status=("/bin/sh", "-c", ask))
    assert (await stonith.fence(method, "b", "")).power is Power.OFF
    await asyncio.sleep(2.5)
    assert power.read_text() == "off"


async def test_asking_alone_switches_nothing(make: MAKE, tmp_path: Path) -> None:
    assert (await stonith.status(make(), "b", "")).power is Power.ON
    assert calls(tmp_path) == ["status b"]
    limited = replace(make("dawdle"), limit_s=0.5)
    assert (await stonith.status(limited, "b", "")).power is Power.UNKNOWN


async def test_what_is_said_is_one_short_line_that_any_terminal_can_show(tmp_path: Path) -> None:
    noisy = "printf 'a\\033[31mb\\n%s\\n' " + "x" * 3000 + "; echo token=abc; exit 1"
    said = await stonith.status(Method("pdu", command=("/bin/true",), status=("/bin/sh", "-c", noisy)), "b", "")
    assert said.power is Power.UNKNOWN
    assert said.text.isprintable()
    assert len(said.text) < 500
    assert "abc" not in said.text
