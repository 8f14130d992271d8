"""Pushes come in whole or not at all, few at once, and their threads end with them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from outlive.agent import package_uploads
from outlive.agent.package_needs import Needs
from outlive.agent.package_uploads import MOST_UPLOADS, BrokenOff, Feed, Uploads, UploadsCrowded, UploadStalled
from outlive.cluster.package import Manifest
from outlive.depot.archive import read_archive
from outlive.depot.errors import PackageInvalid
from outlive.depot.shelf import Shelf

from ..depot.package_scene import files_in
from .package_host import SOON_S, archive, pieces


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "depot")


@pytest.fixture
def needs() -> Needs:
    return Needs(lambda: 1.0)


@pytest.fixture
def uploads(shelf: Shelf, needs: Needs) -> Uploads:
    return Uploads(shelf, needs)


class Sender:
    """Whoever pushes: sends some bytes, and then nothing more until it is told to."""

    def __init__(self, content: bytes, sent: int) -> None:
        self._content, self._sent = content, sent
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content[: self._sent]
        self.waits.set()
        await self.go_on.wait()
        yield self._content[self._sent :]


async def test_an_archive_that_breaks_off_or_is_none_leaves_nothing(
    uploads: Uploads, shelf: Shelf, needs: Needs, tmp_path: Path
) -> None:
    whole = archive(tmp_path)
    for bad in (whole[: len(whole) // 2], b"", b"no archive" * 1000, whole + b"more"):
        with pytest.raises(PackageInvalid):
            await uploads.take_in(pieces(bad))
    assert shelf.ids() == frozenset()
    id, _ = await uploads.take_in(pieces(whole))
    assert needs.needed(id)
    needs.pushed(id, refused=True)
    assert not needs.needed(id)


async def test_more_than_are_taken_at_once_are_refused_at_once(uploads: Uploads, tmp_path: Path) -> None:
    senders = [Sender(archive(tmp_path, f"{number}.0.0"), 10) for number in range(MOST_UPLOADS)]
    taking = [asyncio.create_task(uploads.take_in(aiter(sender))) for sender in senders]
    await asyncio.gather(*(sender.waits.wait() for sender in senders))
    one_more = archive(tmp_path, "9.0.0")
    with pytest.raises(UploadsCrowded, match="Too many packages"):
        await uploads.take_in(pieces(one_more))
    for sender in senders:
        sender.go_on.set()
    assert len({id for id, _ in await asyncio.gather(*taking)}) == MOST_UPLOADS
    await uploads.take_in(pieces(one_more))


async def test_a_push_that_is_cancelled_or_stalls_leaves_nothing_and_no_thread(
    uploads: Uploads, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(tmp_path)
    for _ in range(MOST_UPLOADS + 1):
        sender = Sender(content, len(content) - 1)
        taking = asyncio.create_task(uploads.take_in(aiter(sender)))
        await sender.waits.wait()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert shelf.ids() == frozenset()
    monkeypatch.setattr(package_uploads, "STALLED_UPLOAD_S", 0.05)
    with pytest.raises(UploadStalled):
        await uploads.take_in(aiter(Sender(content, 10)))
    assert files_in(shelf.folder) == []


async def test_one_that_is_cancelled_as_it_has_come_whole_is_needed_no_more(
    uploads: Uploads, shelf: Shelf, needs: Needs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any, **named: Any) -> Manifest:
        manifest = read_archive(*arguments, **named)
        whole.set()
        go_on.wait(SOON_S)
        return manifest

    monkeypatch.setattr(package_uploads, "read_archive", slowly)
    taking = asyncio.create_task(uploads.take_in(pieces(archive(tmp_path))))
    await asyncio.to_thread(whole.wait, SOON_S)
    [id] = shelf.ids()
    assert needs.needed(id)
    taking.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert not needs.needed(id)


async def test_a_feed_gives_what_was_put_in_pieces_as_they_are_wanted() -> None:
    feed = Feed()
    feed.put(b"abcdef")
    feed.put(b"g")
    feed.end()
    feed.break_off()
    assert [feed.read(4) for _ in range(4)] == [b"abcd", b"ef", b"g", b""]


async def test_a_feed_that_is_full_is_waited_for_and_one_that_broke_off_says_so() -> None:
    feed = Feed()
    feed.put(bytes(package_uploads.WAITING_BYTES))
    full = feed.is_full
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(feed.taken(), asyncio.to_thread(feed.read, 1))
    assert (full, feed.is_full) == (True, False)
    waiting = asyncio.create_task(asyncio.to_thread(lambda: [feed.read(1 << 30), feed.read(1)]))
    feed.break_off()
    with pytest.raises(BrokenOff):
        await waiting
