"""Checkpoints are told as they are found, whole, damaged, merged or gone meanwhile; a console's past is told once."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlive.agent import machine_view
from outlive.replication import checkpoint_inquiry as inquiry
from outlive.replication.checkpoint_errors import CheckpointDamaged, CheckpointFailed
from outlive.replication.checkpoint_folder import Listed, list_checkpoints

from ..replication.checkpoint_made import datastore_with_folder, made, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return datastore_with_folder(tmp_path)


async def found(folder: Path, which: int = 0) -> list[dict[str, Any]]:
    listed = list_checkpoints(folder)
    return [told async for told in machine_view._verified(folder, listed[which], listed)]


async def test_a_whole_one_is_whole_and_a_damaged_one_says_why(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    two = made(folder, {1: page(2)}, one)
    (folder / two.name / "memory.pages").write_bytes(b"short")
    told = (await found(folder))[-1]
    assert (told["name"], told["whole"], told["problem"] != "") == (two.name, False, True)
    assert (await found(folder, 1))[-1] == {"name": one.name, "whole": True, "problem": ""}


async def test_one_whose_manifest_cannot_be_read_is_damaged_without_looking_further(folder: Path) -> None:
    one = made(folder, {1: page(1)})
    (folder / one.name / "manifest.json").write_bytes(b"{}")
    [told] = await found(folder)
    assert (told["whole"], told["problem"] != "") == (False, True)


async def test_progress_is_told_while_it_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(folder, {number: page(number) for number in range(1, 9)})
    reported = asyncio.Event()

    async def slowly(folder: Path, name: str, *, progress: Any) -> Any:
        progress(1)
        progress(1 << 40)
        await reported.wait()
        return one

    monkeypatch.setattr(machine_view, "PROGRESS_S", 0.01)
    monkeypatch.setattr(inquiry, "verified", slowly)
    told: list[dict[str, Any]] = []
    listed = list_checkpoints(folder)
    async for each in machine_view._verified(folder, listed[0], listed):
        told.append(each)
        reported.set()
    assert told[0] == {"name": one.name, "done_bytes": one.memory.bytes, "total_bytes": one.memory.bytes}
    assert told[-1]["whole"]


async def test_one_that_went_or_was_merged_meanwhile_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(folder, {1: page(1)})
    two = made(folder, {1: page(2)}, one)
    before = list_checkpoints(folder)
    manifest = folder / two.name / "manifest.json"

    async def gone(folder: Path, name: str, *, progress: Any) -> Any:
        manifest.unlink(missing_ok=True)
        raise CheckpointDamaged("It is not whole.")

    monkeypatch.setattr(inquiry, "verified", gone)
    assert [told async for told in machine_view._verified(folder, before[0], before)] == []

    tries = 0

    async def merged(folder: Path, name: str, *, progress: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            made(folder, {1: page(3)}, label="other")
            raise CheckpointDamaged("It is not whole.")
        return one

    older = Listed(one.name, one.rebased(two.memory))
    monkeypatch.setattr(inquiry, "verified", merged)
    told = [told async for told in machine_view._verified(folder, older, [older])]
    assert (told, tries) == ([{"name": one.name, "whole": True, "problem": ""}], 2)


async def test_storage_that_does_not_answer_is_told_of_every_one_and_asked_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(folder, {1: page(1)})
    made(folder, {1: page(2)}, one)
    asked: list[str] = []

    async def silent(folder: Path, name: str, *, progress: Any) -> Any:
        asked.append(name)
        raise CheckpointFailed("The datastore of the checkpoints does not answer.")

    monkeypatch.setattr(inquiry, "verified", silent)
    local = machine_view.LocalMachines(None, {}, None)  # type: ignore[arg-type]
    listed = list_checkpoints(folder)
    told = [each async for each in local._verified(folder, listed, listed)]
    assert [(each["whole"], "does not answer" in each["problem"]) for each in told] == [(False, True)] * 2
    assert len(asked) == 1


async def test_whoever_stops_listening_ends_the_looking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(folder, {1: page(1)})
    ended = asyncio.Event()

    async def for_ever(folder: Path, name: str, *, progress: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(machine_view, "PROGRESS_S", 0.01)
    monkeypatch.setattr(inquiry, "verified", for_ever)
    listed = list_checkpoints(folder)
    looking = machine_view._verified(folder, listed[0], listed)
    assert "done_bytes" in await anext(looking)
    await looking.aclose()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("past", "live", "told"),
    [
        (b"login: ", b"", b"login: "),
        (b"login: ro", b"root", b"login: root"),
        (b"login: root", b"root", b"login: root"),
        (b"abc", b"xyz", b"abcxyz"),
        (b"", b"xyz", b"xyz"),
        (b"a" * 100_000, b"b" * 300_000, b"a" * 100_000 + b"b" * 300_000),
    ],
)
def test_what_stands_in_the_log_and_came_since_is_told_once(past: bytes, live: bytes, told: bytes) -> None:
    assert machine_view._joined(past, live) == told
