"""The agent's conversation with a manager: nothing it says or fails to say can hold a manager up."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import UsageInvalid
from outlive.replication import control
from outlive.replication.comm_config import CommConfig, Held, HotValues, read_config, write_config
from outlive.replication.control import (
    Adopt,
    Alone,
    AskStatus,
    Listening,
    Manager,
    ManagerUnreachable,
    Pair,
    PeerLost,
    Refused,
    Status,
)
from outlive.replication.control_server import ControlServer, Wake

STATUS = Status("listening", 3, 7, port=4000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    made = ControlServer(tmp_path / "comm.sock", lambda: STATUS, Wake())
    yield made
    made.close()


def commands(server: ControlServer, count: int) -> list[control.Command]:
    got: list[control.Command] = []
    deadline = time.monotonic() + 60
    while len(got) < count and time.monotonic() < deadline:
        command = server.command()
        if command is None:
            time.sleep(0.005)
        else:
            got.append(command)
    return got


async def test_the_status_comes_first_then_what_is_told(server: ControlServer, tmp_path: Path) -> None:
    server.tell(Listening(1))  # nobody listened: the status says it
    async with await Manager.connect(tmp_path / "comm.sock") as manager:
        assert manager.first_status == STATUS
        lost = PeerLost("silence", 151.0, 9, 3, 7)
        server.tell(lost)
        assert await manager.event(within_s=10) == lost
        assert await manager.event(within_s=0.05) is None
        await manager.send(AskStatus())
        assert await manager.event(within_s=10) == STATUS


async def test_commands_arrive_in_order(server: ControlServer, tmp_path: Path) -> None:
    said: list[control.Command] = [Pair("b", "10.0.0.2", 4000, 3, 8), Alone(9), Adopt(4)]
    async with await Manager.connect(tmp_path / "comm.sock") as manager:
        for command in said:
            await manager.send(command)
        assert await asyncio.to_thread(commands, server, 3) == said


async def test_a_new_agent_takes_the_place_of_the_old(server: ControlServer, tmp_path: Path) -> None:
    path = tmp_path / "comm.sock"
    async with await Manager.connect(path) as old, await Manager.connect(path) as new:
        with pytest.raises(ManagerUnreachable):
            await old.event(within_s=10)
        await new.send(Adopt(5))
        assert await asyncio.to_thread(commands, server, 1) == [Adopt(5)]


async def test_an_unknown_word_is_refused_and_the_next_one_heard(server: ControlServer, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "comm.sock")
    await reader.readline()
    writer.write(b'{"do":"explode"}\nnot even json\n' + control.encode(Adopt(6)))
    refused = [control.decode_event(await reader.readline()) for _ in range(2)]
    assert all(isinstance(event, Refused) for event in refused)
    assert await asyncio.to_thread(commands, server, 1) == [Adopt(6)]
    writer.close()


async def test_an_agent_that_does_not_read_holds_nobody_up(server: ControlServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(tmp_path / "comm.sock"))
        for _ in range(3000):
            server.tell(PeerLost("x" * 1000, 0.0, 0, 1, 1))
        async with await Manager.connect(tmp_path / "comm.sock", within_s=60) as manager:
            assert manager.first_status == STATUS
            await manager.send(Adopt(7))
            assert await asyncio.to_thread(commands, server, 1) == [Adopt(7)]


async def test_a_manager_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ManagerUnreachable):
        await Manager.connect(tmp_path / "nothing.sock", within_s=0.1)


@given(st.binary(max_size=80))
def test_garbage_is_neither_a_command_nor_an_event(line: bytes) -> None:
    for decode in (control.decode_command, control.decode_event):
        with pytest.raises(msgspec.DecodeError):
            decode(line)


def config(**changes: object) -> CommConfig:
    made = CommConfig(
        role="standby", cluster="c", host="b", workload="w", generation=1, pairing=2, state_dir="/s", qmp="/q",
        qemu_pid=7, ram_path="/r", ram_bytes=8192, pagewatch="/p", nics=(Held("n", "t", "/l", "/r", "m"),),
        hot=HotValues(),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_config(tmp_path / "comm.json", config())
    assert read_config(tmp_path / "comm.json") == config()


@pytest.mark.parametrize("wrong", [config(ram_bytes=5000), config(hot=None), config(role="primary", hot=None)])
def test_a_configuration_that_cannot_be_is_refused(wrong: CommConfig, tmp_path: Path) -> None:
    write_config(tmp_path / "comm.json", wrong)
    with pytest.raises(UsageInvalid):
        read_config(tmp_path / "comm.json")
    (tmp_path / "comm.json").write_text("{")
    with pytest.raises(UsageInvalid):
        read_config(tmp_path / "comm.json")
