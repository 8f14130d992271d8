"""Whoever is cancelled while a thread has files of his is so once that has ended; else at once."""

import asyncio
import threading

import pytest

from outlive.agent.package_threads import Threads


@pytest.fixture
def threads() -> Threads:
    return Threads("test", 1)


async def test_work_is_done_to_its_end_and_its_outcome_told(threads: Threads) -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)


async def test_one_that_is_cancelled_again_and_again_still_waits_and_undoes_what_was_done(threads: Threads) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    undone: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def work() -> str:
        begun.set()
        cancelled.wait(20)
        go_on.wait(20)
        return "made"

    def undo(made: str) -> None:
        loop.call_soon_threadsafe(undone.put_nowait, made)

    go_on = threading.Event()
    task = asyncio.create_task(threads.run(work, cancelled=cancelled, undo=undo))
    await asyncio.to_thread(begun.wait, 20)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert cancelled.is_set()
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await undone.get() == "made"


async def test_work_that_has_its_files_to_itself_is_left_at_once(threads: Threads) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    try:
        task = asyncio.create_task(threads.left(work))
        assert await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        go_on.set()
    assert await threads.left(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.left(divmod, 7, 0)
