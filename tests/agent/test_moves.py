"""A move away is told how it ended, once; and what was begun can be taken back wherever it had come to."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from outlive.agent import moves
from outlive.errors import OutliveError
from outlive.runtime.vm import moving
from outlive.runtime.vm.moving import MoveFailed, Sent
from outlive.runtime.vm.qmp import VmFailed

ROUTE = moves.Route("10.0.0.2", 50000, ("data",), None)


class FakeVm:
    """A machine whose monitor only remembers. status: what it says of the guest."""

    def __init__(self, status: str = "running") -> None:
        self.status = status
        self.calls: list[str] = []

    async def call(self, name: str, arguments: Any = None) -> Any:
        self.calls.append(name)
        return {"status": self.status}

    @asynccontextmanager
    async def monitored(self) -> AsyncIterator["FakeVm"]:
        yield self


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each step of a move does: an exception to raise, or a value; those done are under 'done'."""
    wanted: dict[str, Any] = {"done": []}

    def step(name: str) -> Callable[..., Any]:
        async def act(*words: Any, **more: Any) -> Any:
            wanted["done"].append(name)
            outcome = wanted.get(name)
            if isinstance(outcome, list):
                outcome = outcome.pop(0)
            if isinstance(outcome, asyncio.Event):
                await outcome.wait()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return act

    for name in ("send", "switch", "abandon", "roll_back", "await_guest"):
        monkeypatch.setattr(moving, name, step(name))
    return wanted


async def moved(vm: Any, route: moves.Route = ROUTE) -> list[Any]:
    told: list[Any] = []
    async with asyncio.TaskGroup() as tasks:
        moves.Move(vm, tasks, told.append, told.append).begin(route)
    return told


async def test_all_of_the_guest_at_the_target_is_told_once(steps: dict[str, Any]) -> None:
    steps["switch"] = sent = Sent(12.0, 1.5, 1 << 20)
    assert await moved(FakeVm()) == [sent]
    assert steps["done"] == ["send", "switch"]


@pytest.mark.parametrize(
    ("step", "error", "reason"),
    [
        ("send", MoveFailed("It was not sent.", cause="the target went away"), "the target went away"),
        ("switch", MoveFailed("It was not sent."), "It was not sent."),
        ("send", ConnectionResetError("reset by peer"), "reset by peer"),
    ],
)
async def test_why_it_failed_is_told_once(steps: dict[str, Any], step: str, error: Exception, reason: str) -> None:
    steps[step] = error
    assert await moved(FakeVm()) == [reason]


async def test_one_under_way_can_be_taken_back_and_is_told_no_more(steps: dict[str, Any]) -> None:
    steps["send"] = asyncio.Event()
    vm: Any = FakeVm()
    told: list[Any] = []
    async with asyncio.TaskGroup() as tasks:
        move = moves.Move(vm, tasks, told.append, told.append)
        move.begin(ROUTE)
        await asyncio.sleep(0.01)
        await move.end()
    assert (told, steps["done"]) == ([], ["send", "abandon"])


async def test_a_guest_that_stands_still_after_it_was_sent_is_let_go_on(
    steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps["roll_back"] = [VmFailed("A lock is held."), None]
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(0))
    vm: Any = FakeVm("postmigrate")
    async with asyncio.TaskGroup() as tasks:
        await moves.Move(vm, tasks, print, print).end()
    assert steps["done"] == ["abandon", "roll_back", "roll_back"]


async def test_a_guest_that_cannot_go_on_is_said_to(steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    steps["roll_back"] = VmFailed("A lock is held.")
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(0))
    vm: Any = FakeVm("postmigrate")
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(OutliveError):
            await moves.Move(vm, tasks, print, print).end()


async def test_a_target_listens_where_both_ports_are_free(
    steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm: Any = FakeVm()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        occupied = taken.getsockname()[1]
        free = await moves.await_guest(vm, "127.0.0.1", ("data",), None)
        assert moves.FIRST_PORT <= free < moves.LAST_PORT
        for first in (occupied, occupied - 1):
            monkeypatch.setattr(random, "randrange", lambda *of, first=first: first)
            with pytest.raises(MoveFailed) as caught:
                await moves.await_guest(vm, "127.0.0.1", (), None)
            assert caught.value.cause == "no port is free for it"
    assert steps["done"] == ["await_guest"]


@pytest.mark.parametrize(("address", "at"), [("127.0.0.1", "tcp:127.0.0.1:"), ("::1", "tcp:[::1]:")])
async def test_both_ends_name_the_same_two_ports_of_either_kind_of_address(
    monkeypatch: pytest.MonkeyPatch, address: str, at: str
) -> None:
    named: list[Any] = []

    async def await_guest(_: object, uri: str, *, disks_at: str, **more: object) -> None:
        named.append((uri, disks_at))

    async def send(_: object, uri: str, *, disks_at: str, **more: object) -> None:
        named.append((uri, disks_at))

    async def switch(*_: object) -> Sent:
        return Sent(12.0, 1.5, 1 << 20)

    for step in (await_guest, send, switch):
        monkeypatch.setattr(moving, step.__name__, step)
    vm: Any = FakeVm()
    port = await moves.await_guest(vm, address, ("data",), None)
    await moved(vm, moves.Route(address, port, ("data",), None))
    assert named == [(f"{at}{port}", f"{at}{port + 1}")] * 2


async def test_hosts_without_certificates_prove_nothing(tmp_path: Path) -> None:
    assert await moves.credentials(None, tmp_path, None, "b") is None
    assert not await asyncio.to_thread((tmp_path / moves.FOLDER).exists)
