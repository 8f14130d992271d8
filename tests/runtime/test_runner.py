"""A module is started with everything that it needs, found again by any later agent, and stopped for certain."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from outlive import spawn
from outlive.runtime import cgroup, runner
from outlive.runtime.cgroup import Tree, find_or_mount
from outlive.runtime.runner import Account, Exit, ModuleNotStarted, Order, Running

from ..native.guarding import clear, populated, until

WITHIN_S = 60.0
START = Callable[..., Awaitable[Running]]


@pytest.fixture
def tree() -> Tree:
    mounts = find_or_mount()
    assert mounts.unified is not None
    return Tree(mounts.unified / f"outlive-test-{os.getpid()}-runner", mounts)


@pytest.fixture
def order(tree: Tree, tmp_path: Path) -> Order:
    tree.make("web", ("front",))
    return Order(
        ("sleep", "1000"),
        {"PATH": "/usr/bin:/bin"},
        tmp_path / "states" / "front",
        tmp_path / "logs" / "front.log",
        tree.entrances("web", "front"),
        tree.runner("web"),
    )


@pytest.fixture
async def start(order: Order, tree: Tree) -> AsyncIterator[START]:
    """Start the order with another command; everything is ended with the test."""
    started: list[Running] = []

    async def one(*command: str, order: Order = order) -> Running:
        running = await runner.start(replace(order, command=command) if command else order, WITHIN_S)
        started.append(running)
        return running

    yield one
    cgroup.kill(tree.root)
    for running in started:
        running.close()
    clear(tree.root)


async def waited(running: Running) -> Exit:
    async with asyncio.timeout(WITHIN_S):
        return await running.wait()


async def adopted(order: Order) -> Running | None:
    return await runner.adopt(order.state_dir, order.cgroups[0])


async def test_a_module_runs_where_it_should_and_its_end_is_told(start: START, order: Order) -> None:
    running = await start("sh", "-c", "pwd; exit 3")
    exit_ = await waited(running)
    assert (exit_.code, exit_.signal, exit_.emptied, exit_.error) == (3, None, True, "")
    assert exit_.at > 0
    assert exit_.sentence() == "ended with code 3"
    assert await waited(running) is exit_
    await running.gone(WITHIN_S)
    assert order.log.read_text().endswith(" o /\n")


async def test_it_gets_its_environment_user_limits_and_folder(start: START, order: Order, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)
    running = await start(
        order=replace(
            order,
            command=("sh", "-c", "id -u; id -g; id -G; echo $SECRET; pwd; ulimit -n; ulimit -c"),
            environment={"PATH": "/usr/bin:/bin", "SECRET": "a b"},
            account=Account(65534, 65533, (7, 8)),
            limits={"nofile": (50, 60), "core": (None, None)},
            folder=Path("/usr"),
        )
    )
    assert (await waited(running)).code == 0
    await running.gone(WITHIN_S)
    said = [line.split(" ", 2)[2] for line in order.log.read_text().splitlines()]
    assert said == ["65534", "65533", "65533 7 8", "a b", "/usr", "50", "unlimited"]
    assert (order.state_dir / "environment").stat().st_mode & 0o777 == 0o600


async def test_why_it_cannot_run_is_told(start: START, order: Order) -> None:
    with pytest.raises(ModuleNotStarted, match="cannot run no-such-program: No such file or directory"):
        await start("no-such-program")
    with pytest.raises(ModuleNotStarted, match="cannot enter the folder /no/where"):
        await start(order=replace(order, folder=Path("/no/where")))
    assert await adopted(order) is None
    with pytest.raises(ModuleNotStarted, match="its state cannot be written"):
        await start(order=replace(order, state_dir=Path("/proc/no")))
    assert not populated(order.cgroups[0])


async def test_a_start_that_hangs_is_given_up_and_leaves_nothing(order: Order, tree: Tree, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (order.state_dir).mkdir(parents=True)
    (order.state_dir / "environment").symlink_to(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # the runner then waits for a writer that never is
    try:
        with pytest.raises(ModuleNotStarted, match="did not answer within"):
            await runner.start(order, 0.5)
    finally:
        os.close(reader)
        clear(tree.root)


async def test_stopping_asks_first_and_kills_what_does_not_listen(start: START, order: Order) -> None:
    polite = await start("sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.02; done")
    await asyncio.to_thread(until, lambda: catches(polite.pid, signal.SIGTERM))
    assert (await polite.stop(WITHIN_S)).code == 4
    await polite.gone(WITHIN_S)
    deaf = await start("sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000")
    await asyncio.to_thread(until, lambda: signal.SIGTERM in signals(deaf.pid, "SigIgn:"))
    exit_ = await deaf.stop(0.2)
    assert exit_.signal == signal.SIGKILL
    assert exit_.sentence() == "was ended by SIGKILL"
    assert not populated(order.cgroups[0])
    assert await deaf.stop(0.2) is exit_


def catches(pid: int, number: signal.Signals) -> bool:
    return number in signals(pid, "SigCgt:")


def signals(pid: int, which: str) -> set[int]:
    """The signals in one mask of a process (proc(5): SigCgt, SigIgn)."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    mask = int(status[status.index(which) + 1], 16)
    return {number for number in range(1, 65) if mask & (1 << (number - 1))}


async def test_another_signal_can_mean_stop(start: START) -> None:
    running = await start("sh", "-c", "trap 'exit 6' INT; while :; do sleep 0.02; done")
    await asyncio.to_thread(until, lambda: catches(running.pid, signal.SIGINT))
    assert (await running.stop(WITHIN_S, signal.SIGINT)).code == 6


async def test_a_later_agent_adopts_what_runs_and_hears_of_its_end(start: START, order: Order) -> None:
    first = await start("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.02; done")
    await asyncio.to_thread(until, lambda: catches(first.pid, signal.SIGTERM))
    second = await adopted(order)
    assert second is not None
    assert second.pid == first.pid
    waiting = asyncio.create_task(waited(second))
    assert (await second.stop(WITHIN_S)).code == 9
    assert (await waiting).code == 9
    second.close()


async def test_what_ended_while_no_agent_was_there_is_still_told(start: START, order: Order) -> None:
    first = await start("sh", "-c", "exit 5")
    await waited(first)
    await first.gone(WITHIN_S)
    second = await adopted(order)
    assert second is not None
    assert (await waited(second)).code == 5


async def test_a_module_whose_runner_was_killed_is_dead_and_told_so(start: START, order: Order) -> None:
    running = await start("sh", "-c", "setsid sleep 1000 & exec sleep 1000")
    state = json.loads((order.state_dir / "state.json").read_text())
    os.kill(state["runner_pid"], signal.SIGKILL)
    exit_ = await waited(running)
    assert exit_ == Exit(emptied=True)
    assert exit_.sentence() == "ended with its runner, which recorded nothing"
    again = await adopted(order)
    assert again is not None
    assert await waited(again) == Exit(emptied=True)


async def test_a_pid_that_was_used_again_is_not_adopted(start: START, order: Order) -> None:
    running = await start()
    await running.stop(0.0, signal.SIGKILL)
    await running.gone(WITHIN_S)
    (order.state_dir / "exit.json").unlink()
    await asyncio.sleep(0.05)  # a start time is told in hundredths of a second
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        state = json.loads((order.state_dir / "state.json").read_text())
        state |= {"runner_pid": stranger.pid, "child_pid": stranger.pid}
        (order.state_dir / "state.json").write_text(json.dumps(state))
        later = await adopted(order)
        assert later is not None
        assert await waited(later) == Exit(emptied=True)
        later.send(signal.SIGKILL)
        assert stranger.returncode is None
        assert spawn.start_ticks(stranger.pid) > 0
    finally:
        stranger.kill()
        await stranger.wait()


async def test_nothing_is_adopted_from_another_boot_or_from_damaged_state(start: START, order: Order) -> None:
    assert await adopted(order) is None
    running = await start()
    path = order.state_dir / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"boot_id": "00000000-0000-0000-0000-000000000000"}))
    assert await adopted(order) is None
    for text in ("", "{", "[]", "{}", '{"boot_id": 7}', "\0"):
        path.write_text(text)
        assert await adopted(order) is None
    path.write_text(json.dumps({"boot_id": spawn.boot_id(), "runner_pid": "x", "child_pid": None}))
    assert await adopted(order) is None
    path.write_text(json.dumps(state))
    found = await adopted(order)
    assert found is not None
    assert found.pid == running.pid
    found.close()


async def test_a_runner_that_was_still_starting_when_its_agent_died_is_ended(start: START, order: Order) -> None:
    await start()
    path = order.state_dir / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"child_pid": 0, "child_start_ticks": 0}))
    assert await adopted(order) is None
    assert await cgroup.wait_empty(order.cgroups[0], WITHIN_S)


async def test_a_module_outlives_the_agent_that_started_it(order: Order, tree: Tree) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, *map(str, (order.state_dir, order.log, order.cgroups[0], order.runner_cgroup)),
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert agent.stdout is not None
    pid = int(await agent.stdout.readline())
    os.killpg(agent.pid, signal.SIGKILL)
    await agent.wait()
    running = await adopted(order)
    assert running is not None
    assert running.pid == pid
    assert (await running.stop(WITHIN_S)).signal == signal.SIGTERM
    await running.gone(WITHIN_S)
    assert not populated(tree.root)
    await tree.remove("web", WITHIN_S)
    tree.root.rmdir()


AGENT = """
import asyncio, sys
from pathlib import Path
from outlive.runtime import runner
state_dir, log, own, runners = map(Path, sys.argv[1:])
async def main():
    running = await runner.start(runner.Order(("/bin/sleep", "1000"), {}, state_dir, log, (own,), runners))
    print(running.pid, flush=True)
    await running.wait()
asyncio.run(main())
"""
