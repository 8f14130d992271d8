"""A package is fetched whole or not at all: peers that lie, break off or fall silent cost only time."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from outlive.agent import package_fetching
from outlive.agent.package_fetching import Ask, NotFetched
from outlive.agent.package_threads import Threads
from outlive.agent.peers import Answer, Request
from outlive.cluster.package import Component
from outlive.cluster.pushed import Pinned
from outlive.depot import incoming
from outlive.depot.errors import DepotFull
from outlive.depot.files import try_lock
from outlive.depot.incoming import Incoming
from outlive.depot.package import manifest_bytes, package_id
from outlive.depot.shelf import Reception, Shelf
from outlive.errors import ClusterUnreachable

LARGE = os.urandom(3 << 20)
THREADS = Threads("test-depot", 2)


async def fetch(shelf: Shelf, ask: Ask, pinned: Pinned, holders: Sequence[str]) -> str:
    return await package_fetching.fetch(shelf, ask, pinned, holders, THREADS)


@pytest.fixture
def source(tmp_path: Path) -> Shelf:
    """The depot of a host that has the package."""
    folder = tmp_path / "app"
    (folder / "files").mkdir(parents=True)
    (folder / "package.toml").write_text('name = "app"\nversion = "1.0.0"\n')
    (folder / "files" / "large").write_bytes(LARGE)
    for number in range(20):
        (folder / "files" / f"small-{number}").write_text(f"{number}\n" * 50)
    shelf = Shelf(tmp_path / "there")
    shelf.build(folder)
    return shelf


@pytest.fixture
def here(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "here")


def pinned(source: Shelf) -> Pinned:
    [id] = source.ids()
    return Pinned("app", "1.0.0", id)


def said(content: bytes, status: int = 200, *, ends: bool = True) -> Answer:
    """What a peer answers: these bytes, and then the end of the connection, or nothing more."""
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    if ends:
        reader.feed_eof()
    writer: Any = SimpleNamespace(transport=SimpleNamespace(abort=lambda: None))
    return Answer("b", status, {}, reader, writer)


class Holders:
    """Hosts that give what `source` has. spoil: what becomes of a host's content.  asked: who was, for what."""

    def __init__(self, source: Shelf, spoil: Callable[[str, bytes], Answer] = lambda host, content: said(content)):
        self.source = source
        self.spoil = spoil
        self.asked: list[tuple[str, Any]] = []

    async def ask(self, host: str, request: Request) -> Answer:
        id = request.path.split("/")[5]
        if request.method == "GET":
            self.asked.append((host, "manifest"))
            return said(manifest_bytes(self.source.manifest(id)))
        wish = msgspec.json.decode(request.body)
        self.asked.append((host, wish["offset"]))
        wanted = [Component(digest, size) for digest, size in wish["components"]]
        content = b"".join(b"".join(self.source.components.read(each)) for each in wanted)
        return self.spoil(host, content[wish["offset"] :])


async def test_a_package_is_brought_whole_and_once(source: Shelf, here: Shelf) -> None:
    holders = Holders(source)
    assert await fetch(here, holders.ask, pinned(source), ["b"]) == "b"
    assert here.ids() == source.ids()
    assert here.verify(pinned(source).id) is None
    assert await fetch(here, holders.ask, pinned(source), ["b"]) == ""


async def test_what_is_not_what_its_hash_says_is_not_kept_and_another_holder_is_asked(
    source: Shelf, here: Shelf
) -> None:
    def lies(host: str, content: bytes) -> Answer:
        return said(content if host == "c" else bytes(len(content)))

    assert await fetch(here, Holders(source, lies).ask, pinned(source), ["b", "c"]) == "c"
    assert here.verify(pinned(source).id) is None


async def test_what_was_brought_before_the_way_broke_off_is_not_asked_for_again(source: Shelf, here: Shelf) -> None:
    def breaks_off(host: str, content: bytes) -> Answer:
        return said(content if host == "c" else content[: len(content) // 2])

    holders = Holders(source, breaks_off)
    assert await fetch(here, holders.ask, pinned(source), ["b", "c"]) == "c"
    assert here.verify(pinned(source).id) is None


async def test_a_large_file_goes_on_where_it_broke_off(
    source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_fetching, "AT_ONCE", 1)

    def breaks_off(host: str, content: bytes) -> Answer:
        return said(content[: 2 << 20])

    holders = Holders(source, breaks_off)
    await fetch(here, holders.ask, pinned(source), ["b", "c"])
    assert [offset for _, offset in holders.asked if offset not in (0, "manifest")] == [2 << 20]


async def test_a_manifest_of_another_package_is_refused(source: Shelf, here: Shelf, tmp_path: Path) -> None:
    other = Pinned("app", "1.0.0", "f" * 64)

    async def ask(host: str, request: Request) -> Answer:
        return said(manifest_bytes(source.manifest(pinned(source).id)))

    with pytest.raises(NotFetched):
        await fetch(here, ask, other, ["b"])
    renamed = Pinned("app", "2.0.0", package_id(source.manifest(pinned(source).id)))
    with pytest.raises(NotFetched) as refused:
        await fetch(here, ask, renamed, ["b"])
    assert "its content is that of app 1.0.0" in refused.value.cause
    assert here.ids() == frozenset()


async def test_a_peer_that_falls_silent_or_refuses_is_given_up(
    source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_fetching, "STALL_S", 0.1)
    silent = Holders(source, lambda host, content: said(content[:100], ends=False))
    with pytest.raises(NotFetched) as given_up:
        await fetch(here, silent.ask, pinned(source), ["b"])
    assert "it sent nothing for" in given_up.value.cause
    with pytest.raises(NotFetched) as refused:
        await fetch(here, Holders(source, lambda host, content: said(b"", 404)).ask, pinned(source), ["b"])
    assert "b answered 404" in refused.value.cause


async def test_without_a_holder_that_can_be_reached_it_is_told_why(source: Shelf, here: Shelf) -> None:
    async def ask(host: str, request: Request) -> Answer:
        raise ClusterUnreachable(f"The agent of {host} cannot be asked.", cause="no route to host")

    with pytest.raises(NotFetched) as failed:
        await fetch(here, ask, pinned(source), ["b", "c"])
    assert failed.value.cause == "b: no route to host; c: no route to host"
    with pytest.raises(NotFetched) as nobody:
        await fetch(here, ask, pinned(source), [])
    assert nobody.value.cause == "no other host has it"


async def test_each_holder_has_its_own_time(source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives nothing costs no other the time to give."""
    monkeypatch.setattr(package_fetching, "ROUNDS", 1)
    good = Holders(source)

    async def ask(host: str, request: Request) -> Answer:
        if host == "c":
            return await good.ask(host, request)
        monkeypatch.setattr(package_fetching, "WHOLE_S", 60.0)  # for the next
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(package_fetching, "WHOLE_S", 0.05)
    assert await fetch(here, ask, pinned(source), ["b", "c"]) == "c"
    assert here.verify(pinned(source).id) is None
    monkeypatch.setattr(package_fetching, "WHOLE_S", 0.05)
    with pytest.raises(NotFetched) as slow:
        await fetch(Shelf(here.folder.parent / "another"), ask, pinned(source), ["b"])
    assert "b: not whole within" in slow.value.cause


async def test_a_full_disk_is_no_fault_of_a_holder(source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DepotFull("Storing a component found no room.")

    monkeypatch.setattr(incoming, "room_for", full)
    holders = Holders(source)
    with pytest.raises(NotFetched) as refused:
        await fetch(here, holders.ask, pinned(source), ["b", "c"])
    assert refused.value.cause == "here: Storing a component found no room."
    assert {host for host, _ in holders.asked} == {"b"}


async def test_a_fetch_that_is_cancelled_leaves_its_files_once_nobody_writes_them(
    source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, begun, go_on, order = Incoming.append, threading.Event(), threading.Event(), list[str]()

    def slowly(self: Incoming, raw: bytes) -> None:
        begun.set()
        go_on.wait(20)
        append(self, raw)
        order.append("written")

    def closes(self: Incoming) -> None:
        order.append("closed")
        close(self)

    close = Incoming.close
    monkeypatch.setattr(Incoming, "append", slowly)
    fetching = asyncio.create_task(fetch(here, Holders(source).ask, pinned(source), ["b"]))
    assert await asyncio.to_thread(begun.wait, 20)
    monkeypatch.setattr(Incoming, "close", closes)
    fetching.cancel()
    await asyncio.sleep(0.05)
    assert not fetching.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert order == ["written", "closed"]
    assert list((here.folder / "holds").iterdir()) == []


@pytest.mark.parametrize("what", ["receive", "open"])
async def test_what_a_cancelled_fetch_had_just_begun_to_hold_is_let_go_of(
    source: Shelf, here: Shelf, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    kind, name = (Shelf, "receive") if what == "receive" else (Reception, "receive")
    really = getattr(kind, name)

    def slowly(*arguments: Any) -> Any:
        made = really(*arguments)
        begun.set()
        go_on.wait(20)
        return made

    monkeypatch.setattr(kind, name, slowly)
    fetching = asyncio.create_task(fetch(here, Holders(source).ask, pinned(source), ["b"]))
    assert await asyncio.to_thread(begun.wait, 20)
    fetching.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    deadline = time.monotonic() + 20
    while any((here.folder / "holds").iterdir()) or locked(here.folder / "incoming"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def locked(folder: Path) -> list[Path]:
    """The files of which somebody has the lock."""
    found = []
    for path in folder.iterdir():
        with path.open("rb") as file:
            found += [] if try_lock(file.fileno()) else [path]
    return found
