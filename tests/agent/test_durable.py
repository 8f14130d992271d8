"""Whoever waits for the journal goes on once it is on the disk, or is told why not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from outlive.agent import journal
from outlive.agent.durable import JournalKeeper
from outlive.cluster.commands import Journal


@asynccontextmanager
async def running(keeper: JournalKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_newest_journal_is_durable_once_any_later_one_was_waited_for(tmp_path: Path) -> None:
    keeper = JournalKeeper(tmp_path)
    async with running(keeper):
        for number in range(20):
            keeper.save(Journal(f"run{number}"))
        assert await keeper.saved(5) == ""
        assert await keeper.saved(keeper.handed) == ""
    assert journal.load(tmp_path) == Journal("run19")


async def test_a_disk_that_refuses_is_told_and_healed_later(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    keeper = JournalKeeper(folder)
    async with running(keeper):
        keeper.save(Journal("run1"))
        assert "No such file" in await keeper.saved(keeper.handed)
        folder.mkdir()
        async with asyncio.timeout(60):
            while await keeper.saved(keeper.handed):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert journal.load(folder) == Journal("run1")
