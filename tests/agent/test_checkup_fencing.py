"""What fences is looked at, and never used: a device that is missing, locked in or mute is told with what to do."""

import asyncio
import contextlib
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.agent import checkup_fencing, presence
from outlive.agent.finding import Result
from outlive.config.agent_file import AgentConfig, ClusterMembership, DatastoreFolder
from outlive.config.fencing import Fencing, Method


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig("a", "127.0.0.1", ClusterMembership("0" * 16), run_folder=tmp_path / "run")


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A character device that nobody opens, and what the kernel tells of it."""
    path = tmp_path / "watchdog7"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    folder = tmp_path / "class" / "watchdog7"
    folder.mkdir(parents=True)
    (folder / "identity").write_text("iTCO_wdt\n")
    (folder / "nowayout").write_text("0\n")
    monkeypatch.setattr(checkup_fencing, "SYSFS", tmp_path / "class")
    return path


def found(config: AgentConfig, device: Path | None) -> tuple[Result, str]:
    told = asyncio.run(checkup_fencing.watchdog(replace(config, fencing=Fencing(watchdog=device))))
    return told.result, told.found


def test_a_watchdog_that_is_there_is_named(config: AgentConfig, device: Path) -> None:
    result, told = found(config, device)
    assert result is Result.OK
    assert "iTCO_wdt" in told


def test_no_watchdog_is_no_fault(config: AgentConfig) -> None:
    assert found(config, None)[0] is Result.OK


def test_a_watchdog_that_cannot_be_disarmed_or_waits_too_long_is_told(config: AgentConfig, device: Path) -> None:
    folder = checkup_fencing.SYSFS / device.name
    (folder / "min_timeout").write_text("30\n")
    assert found(config, device)[0] is Result.FAILED
    (folder / "nowayout").write_text("1\n")
    assert found(config, device)[0] is Result.WARNING


def test_a_file_is_no_watchdog(config: AgentConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert found(config, tmp_path / "file")[0] is Result.FAILED


GREETING = "HELLO 1 pid=5 memory=locked priority=fifo:50 oom=-1000 watchdog="


@pytest.mark.parametrize(
    ("says", "result", "word"),
    [
        ("2s:softdog device={device} asked=2", Result.OK, "softdog"),
        ("2s:not_fed_yet device={device} asked=2", Result.WARNING, "not taken it up"),
        ("2s:softdog", Result.WARNING, "earlier version"),
        ("2s:softdog device=/dev/other asked=3", Result.FAILED, "/dev/other for 3 s"),
        ("none", Result.FAILED, "without it"),
    ],
)
async def test_what_the_running_guard_does_with_the_watchdog_is_told(
    config: AgentConfig, device: Path, says: str, result: Result, word: str
) -> None:
    config.run_folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(config.run_folder / presence.GUARD_SOCKET))
        listener.listen()
        listener.setblocking(False)
        guard = asyncio.create_task(answer_as_guard(listener, GREETING + says.format(device=device)))
        configured = replace(config, fencing=Fencing(watchdog=device, watchdog_timeout_s=2))
        told = await checkup_fencing.watchdog(configured)
        guard.cancel()
    assert told.result is result
    assert word in told.found


async def answer_as_guard(listener: socket.socket, greeting: str) -> None:
    """Greet whoever connects, and hold nothing."""
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        with connection, contextlib.suppress(OSError):  # who only looks whether anybody is there has gone again
            await loop.sock_sendall(connection, greeting.encode())
            while await loop.sock_recv(connection, 4096):
                for line in ("STATE 1 0 0", "END"):
                    await loop.sock_sendall(connection, line.encode())


def status(script: str, *words: str) -> Method:
    return Method("pdu", command=("/bin/false",), status=("/bin/sh", "-c", script, "sh", *words))


def asked(config: AgentConfig, method: Method, **addresses: str) -> tuple[Result, str]:
    told = asyncio.run(checkup_fencing.method(config, method, addresses))
    return told.result, told.found


@pytest.mark.parametrize(
    ("script", "result"), [("exit 0", Result.OK), ("echo a: off; exit 2", Result.OK), ("exit 1", Result.FAILED)]
)
def test_a_method_is_asked_and_not_used(config: AgentConfig, script: str, result: Result) -> None:
    assert asked(config, status(script))[0] is result


def test_a_program_that_ends_with_two_and_does_not_say_off_is_told(config: AgentConfig) -> None:
    result, told = asked(config, status("echo 'usage: pdu HOST'; exit 2"))
    assert result is Result.FAILED
    assert "ended with 2" in told
    assert "usage: pdu HOST" in told


def test_hosts_are_asked_for_by_their_addresses_and_not_where_these_are_unknown(config: AgentConfig) -> None:
    method = status('test -n "$1" && echo $1', "{address}")
    assert asked(config, method, b="10.0.0.2") == (Result.OK, "a is on, b is on, says /bin/false")
    named = replace(method, hosts={"b": {}, "c": {}})
    result, told = asked(config, named, b="10.0.0.2")
    assert result is Result.WARNING
    assert told == "c cannot be asked for: the address is not known"


def test_run_locks_need_a_datastore(config: AgentConfig) -> None:
    locks = Method("locks", run_locks=True)
    assert asked(config, locks)[0] is Result.FAILED
    shared = replace(config, datastores=(DatastoreFolder("shared", Path("/srv")),))
    assert asked(shared, locks)[0] is Result.OK
