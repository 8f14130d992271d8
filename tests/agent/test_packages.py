"""A host's packages: kept as they are wanted, installed for workloads, and taken in whole or not at all."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from outlive.agent import packages
from outlive.agent.package_installing import Installing, Said
from outlive.agent.package_needs import ARRIVING_S
from outlive.cluster import events as ev
from outlive.cluster import records as rec
from outlive.cluster.commands import KeepPackages, KeptPackage
from outlive.cluster.pushed import Pinned
from outlive.depot.errors import ComponentDamaged, ComponentMissing, DepotFailed, InstallFailed
from outlive.depot.installed import Installed
from outlive.errors import ClusterUnreachable, RefusedForSafety

from ..depot.package_scene import files_in
from .package_host import SOON_S, Host, archive, pieces, record_of, use


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "data")


async def test_what_was_taken_in_is_installed_and_its_programs_are_told_where(host: Host, tmp_path: Path) -> None:
    pinned = await host.push(archive(tmp_path))
    ready = await host.packages.ready("web", use(pinned), host.said)
    await asyncio.sleep(0)
    assert (ready.folder / "x").read_text() == "1.0.0"
    assert ready.variables["OUTLIVE_PACKAGE"] == str(ready.folder)
    assert "PATH" not in ready.variables
    assert ("app@1.0.0", "installed") in host.steps
    assert (await host.packages.ready("web", use(pinned), host.said)).folder == ready.folder


async def test_an_install_that_fails_is_told_with_its_reason_and_leaves_what_was_there(
    host: Host, tmp_path: Path
) -> None:
    good = await host.push(archive(tmp_path))
    before = await host.packages.ready("web", use(good), host.said)
    bad = await host.push(archive(tmp_path, "2.0.0", "echo no luck; exit 4"))
    with pytest.raises(InstallFailed) as failed:
        await host.packages.ready("web", use(bad), host.said)
    assert "no luck" in failed.value.cause
    assert (before.folder / "x").read_text() == "1.0.0"


async def test_what_is_wanted_and_cannot_be_fetched_is_told_as_a_trouble(host: Host) -> None:
    wanted = Pinned("app", "1.0.0", "a" * 64)
    host.follows = False
    host.packages.keep(KeepPackages((KeptPackage(wanted, ("b",)),)))

    def troubled() -> bool:
        return isinstance(last := host.told[-1], ev.PackagesHeld) and bool(last.troubles) if host.told else False

    async with host.running():
        await host.until(troubled, "it tells its trouble")
    assert isinstance(said := host.told[-1], ev.PackagesHeld)
    assert said.troubles == {"app@1.0.0": "b: it is off"}


async def test_a_damaged_copy_is_found_thrown_out_told_and_fetched_anew(host: Host, tmp_path: Path) -> None:
    content = archive(tmp_path)
    pinned = await host.push(content)
    [file] = (tmp_path / "data" / "depot" / "components").glob("*/*")
    file.write_bytes(b"?" + file.read_bytes()[1:])
    assert not await host.packages.verifying.look(), "it came just now"
    host.packages.shelf.was_read(pinned.id, 0.0)
    assert await host.packages.verifying.look()
    assert [each for each in host.told if isinstance(each, ev.PackageDamaged)] == [
        ev.PackageDamaged(host.now, "app@1.0.0", "one of its components is damaged")
    ]
    assert isinstance(said := host.told[-1], ev.PackagesHeld)
    assert said.holds == {}

    def troubled() -> bool:
        return isinstance(last := host.told[-1], ev.PackagesHeld) and "app@1.0.0" in last.troubles

    async with host.running():
        await host.until(troubled, "it tries to fetch it, from nobody here")
    await host.push(content)
    assert host.packages.shelf.ids() == {pinned.id}
    assert not await host.packages.verifying.look()


async def test_a_copy_that_cannot_be_read_for_other_reasons_stays_and_keeps_none_from_being_read(
    host: Host, tmp_path: Path
) -> None:
    pinned = await host.push(archive(tmp_path))
    [file] = (tmp_path / "data" / "depot" / "components").glob("*/*")
    file.unlink()
    file.mkdir()
    host.packages.shelf.was_read(pinned.id, 0.0)
    with pytest.raises(DepotFailed):
        await host.packages.verifying.look()
    assert host.packages.shelf.ids() == {pinned.id}
    assert not await host.packages.verifying.look()


async def test_what_is_free_goes_unless_it_runs_here(host: Host, tmp_path: Path) -> None:
    kept, running, old = [await host.push(archive(tmp_path, f"{number}.0.0")) for number in (1, 2, 3)]
    await host.packages.ready("web", use(running), host.said)
    await host.packages.ready("was", use(old), host.said)
    host.packages.done_with("was")
    for gone in (running, old):
        host.removes(gone)
    host.now += ARRIVING_S
    async with host.running():
        await host.until(lambda: old.id not in host.packages.shelf.ids(), "the old one is dropped")
        await host.until(lambda: len(list((tmp_path / "data" / "packages" / "app").glob("3.*"))) == 0, "uninstalled")
    assert host.packages.shelf.ids() == {kept.id, running.id}
    assert len(list((tmp_path / "data" / "packages" / "app").glob("2.*"))) == 1


async def test_a_refused_push_leaves_nothing(host: Host, tmp_path: Path) -> None:
    with pytest.raises(RefusedForSafety):
        async with host.packages.arrival(pieces(archive(tmp_path))):
            raise RefusedForSafety("There is another package app@1.0.0 already.")
    assert files_in(tmp_path / "data" / "depot") == []


async def test_a_refused_push_takes_nothing_from_another_of_the_same_package(host: Host, tmp_path: Path) -> None:
    content = archive(tmp_path)
    async with host.packages.arrival(pieces(content)) as (id, manifest):
        with pytest.raises(RefusedForSafety):
            async with host.packages.arrival(pieces(content)):
                raise RefusedForSafety("It was pushed by somebody else meanwhile.")
        assert host.packages.shelf.verify(id) is None
        # Its record is written by now, and the agent has not seen that yet.
        host.follows = False
        host.store[rec.PACKAGES + "app@1.0.0"] = record_of(Pinned("app", "1.0.0", id))
    host.now += ARRIVING_S
    with pytest.raises(RefusedForSafety):
        async with host.packages.arrival(pieces(content)):
            raise RefusedForSafety("It was pushed by somebody else meanwhile.")
    assert host.packages.shelf.verify(id) is None
    assert manifest.version == "1.0.0"


async def test_what_is_pushed_again_while_it_is_looked_up_whether_it_may_go_stays(host: Host, tmp_path: Path) -> None:
    content = archive(tmp_path)
    with suppress(RefusedForSafety):
        async with host.packages.arrival(pieces(content)) as (id, _):
            host.as_it_is_read = lambda: host.packages._needs.brings(id)
            raise RefusedForSafety("Another workload has it.")
    assert host.packages.shelf.ids() == {id}


@pytest.mark.parametrize(
    "how", [ClusterUnreachable("Nobody can know."), asyncio.CancelledError()], ids=["unsure", "cut"]
)
async def test_what_may_have_become_a_package_stays_until_the_store_says_that_it_has_not(
    host: Host, tmp_path: Path, how: BaseException
) -> None:
    content = archive(tmp_path)
    with pytest.raises(type(how)):
        async with host.packages.arrival(pieces(content)) as (id, _):
            raise how
    with pytest.raises(RefusedForSafety):
        async with host.packages.arrival(pieces(content)):
            raise RefusedForSafety("Another try of it is refused for what the first one wrote.")
    await host.looks_around()
    assert host.packages.shelf.ids() == {id}
    host.now += ARRIVING_S
    host.store_is_away = True
    await host.looks_around()
    assert host.packages.shelf.ids() == {id}
    host.store_is_away = False
    await host.looks_around()
    assert host.packages.shelf.ids() == frozenset()


async def test_what_a_workload_uses_is_brought_again_where_it_was_on_its_way_out(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = await host.push(archive(tmp_path))
    shelf = host.packages.shelf
    manifest = shelf.manifest(pinned.id)
    install = Installing.installed

    async def as_it_goes(installing: Installing, pins: tuple[Pinned, ...], said: Said) -> Installed:
        monkeypatch.setattr(Installing, "installed", install)
        shelf.remove(pinned.id)
        return await installing.installed(pins, said)

    async def fetched(*_: object) -> str:
        shelf.put(pinned.id, manifest)
        return "b"

    monkeypatch.setattr(Installing, "installed", as_it_goes)
    monkeypatch.setattr(packages, "fetch", fetched)
    assert (await host.packages.ready("web", use(pinned), host.said)).folder.exists()
    assert ("app@1.0.0", "verified") in host.steps


async def test_a_depot_that_cannot_be_read_ends_no_agent_and_is_looked_at_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "LOOK_AGAIN_S", 0.01)
    shelf = host.packages.shelf.folder
    shelf.parent.mkdir(parents=True, exist_ok=True)
    shelf.write_text("as a damaged disk has it")
    async with host.running() as keeping:
        await asyncio.sleep(0.1)
        assert not keeping.done()
        assert host.told == []
        shelf.unlink()
        await host.until(lambda: host.told, "it tells what it has")


async def test_tearing_down_does_not_wait_for_a_package_that_is_being_read(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = await host.push(archive(tmp_path))
    begun, go_on = threading.Event(), threading.Event()

    def reads_long(id: str, *, repair: bool = False) -> None:
        begun.set()
        go_on.wait()

    async def damaged(installing: Installing, pins: tuple[Pinned, ...], said: Said) -> Installed:
        raise ComponentDamaged("It is damaged.")

    monkeypatch.setattr(Installing, "installed", damaged)
    monkeypatch.setattr(host.packages.shelf, "verify", reads_long)
    preparing = asyncio.create_task(host.packages.ready("web", use(pinned), host.said))
    try:
        assert await asyncio.to_thread(begun.wait, SOON_S)
        preparing.cancel()
        async with asyncio.timeout(SOON_S):
            with pytest.raises(asyncio.CancelledError):
                await preparing
    finally:
        go_on.set()


async def test_pushes_and_installations_take_no_thread_from_the_rest_of_the_agent(host: Host, tmp_path: Path) -> None:
    """And the rest takes none from them."""
    blocked = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.create_task(asyncio.to_thread(blocked.wait))
    try:
        async with asyncio.timeout(SOON_S):
            pinned = await host.push(archive(tmp_path))
            assert (await host.packages.ready("web", use(pinned), host.said)).folder.exists()
            assert await host.packages.manifest(pinned.id)
    finally:
        blocked.set()
        await busy


async def test_another_host_gets_what_it_asks_for_and_nothing_that_is_not_of_the_package(
    host: Host, tmp_path: Path
) -> None:
    pinned = await host.push(archive(tmp_path))
    manifest = host.packages.shelf.manifest(pinned.id)
    [component] = manifest.components
    found = b"".join([piece async for piece in host.packages.content(pinned.id, [component], 2)])
    assert found == b"1.0.0"[2:]
    with pytest.raises(ComponentMissing):
        await anext(host.packages.content(pinned.id, [type(component)("../../etc/passwd", 3)], 0))
