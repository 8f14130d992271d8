"""Questions about checkpoints come back with answers or errors within their time, whatever storage does."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlive.replication import checkpoint_desk
from outlive.replication import checkpoint_inquiry as inquiry
from outlive.replication.checkpoint_desk import Desk
from outlive.replication.checkpoint_errors import (
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointMissing,
    GenerationOld,
    HardwareDiffers,
    ScribeSilent,
)
from outlive.replication.checkpoint_folder import list_checkpoints, read_heads
from outlive.replication.checkpoint_keeping import Keeping
from outlive.replication.checkpoint_reading import prepare_resume
from outlive.replication.checkpoint_scribe import Opening

from ..datastore.conftest import HungStorage
from .checkpoint_made import HARDWARE, datastore_with_folder, made, memory_of, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return datastore_with_folder(tmp_path)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungStorage]:
    """Storage that answers nothing, over the workload's folder."""
    over = HungStorage(datastore_with_folder(tmp_path))
    yield over
    over.end()


async def test_answers_are_those_of_reading(folder: Path) -> None:
    one = made(folder, {1: page(1)}, label="mine")
    two = made(folder, {1: page(2)}, one)
    (folder / two.name / "memory.pages").write_bytes(b"short")
    assert await inquiry.listed(folder) == list_checkpoints(folder)
    assert await inquiry.verified(folder, "mine") == one
    assert await inquiry.heads(folder) is None
    found, skipped = await inquiry.newest_whole(folder, HARDWARE)
    assert (found, [entry.name for entry in skipped]) == (one, [two.name])
    resume = await inquiry.prepared(folder, HARDWARE, generation=2, host="b")
    assert (resume.checkpoint, resume.skipped) == (one, tuple(skipped))
    assert await inquiry.heads(folder) == read_heads(folder)


async def test_errors_come_back_as_what_they_were(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    prepare_resume(folder, HARDWARE, generation=5, host="b")
    with pytest.raises(HardwareDiffers, match=r"9\.9"):
        await inquiry.newest_whole(folder, replace(HARDWARE, emulator="9.9"))
    with pytest.raises(GenerationOld):
        await inquiry.prepared(folder, HARDWARE, generation=4, host="a")
    with pytest.raises(CheckpointMissing):
        await inquiry.verified(folder, "never")
    (folder / one.name / "device.state").unlink()
    with pytest.raises(CheckpointDamaged):
        await inquiry.verified(folder, one.name)


async def test_storage_that_hangs_costs_the_time_limit_and_no_more_processes_than_a_few(hung: HungStorage) -> None:
    begun = time.monotonic()

    async def take_requests() -> None:
        while True:  # what was taken cannot be called back, not even by a kill
            hung.take_requests()
            await asyncio.sleep(0.05)

    taking = asyncio.create_task(take_requests())
    try:
        for _ in range(inquiry.MOST_STUCK):
            with pytest.raises(CheckpointFailed, match="within"):
                await inquiry.listed(hung.path, silent_s=1.5)
        with pytest.raises(CheckpointFailed, match="did not before"):
            await inquiry.listed(hung.path)
        assert time.monotonic() - begun < 60
    finally:
        taking.cancel()
        hung.end()
        for process in inquiry._stuck:
            async with asyncio.timeout(60):
                await process.wait()


def test_a_scribe_on_storage_that_hangs_is_given_up(hung: HungStorage, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    begun = time.monotonic()
    with pytest.raises(ScribeSilent):
        Desk(Opening(str(hung.path), 1, "a", str(tmp_path / "ram")), silent_s=2.0)
    assert time.monotonic() - begun < 30
    hung.end()
    for process in checkpoint_desk._left:
        process.wait(60)


def test_a_scribe_writes_what_a_reader_reads(folder: Path, tmp_path: Path) -> None:
    ram = bytearray(1 << 20)
    ram[3 * 4096 : 4 * 4096] = page("ram")
    (tmp_path / "ram").write_bytes(ram)
    told = {
        "format": 1, "workload": "web", "generation": 1, "parent": None, "host": "a", "created_unix_s": 0.0,
        "reason": "test", "hardware": {**{key: getattr(HARDWARE, key) for key in HARDWARE.__slots__}},
    }  # fmt: skip
    with Desk(Opening(str(folder), 1, "a", str(tmp_path / "ram"))) as desk:
        name, sequence = desk.begin()
        desk.copy([(0, 256)])
        desk.put([(3, 1), (9, 2)], page("cut") + bytes(4096) + page("ten"))
        whole = desk.finish({**told, "sequence": sequence}, b"QEVM" + bytes(10))
        assert desk.tidy(Keeping()).removed == ()
        assert desk.labelled("none") == ""
    assert (whole.name, memory_of(folder, name)) == (name, {3: page("cut"), 10: page("ten")})
    with pytest.raises(GenerationOld):
        prepare_resume(folder, HARDWARE, generation=0, host="b")
