"""A host's packages: kept as they are wanted, installed for workloads, and taken in whole or not at all."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from immutables import Map

from outlive.agent.packages import Packages
from outlive.agent.peers import Answer, Request
from outlive.cluster import events as ev
from outlive.cluster.commands import KeepPackages, KeptPackage
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.pushed import PackageRecord, PackageUse, Pinned
from outlive.depot.archive import build_archive
from outlive.depot.errors import ComponentMissing, InstallFailed, PackageInvalid
from outlive.errors import ClusterUnreachable


class Host:
    """One host's packages, what it tells, and the picture that it has of the store."""

    def __init__(self, folder: Path) -> None:
        self.told: list[ev.Event] = []
        self.picture = Mirror()
        self.steps: list[tuple[str, str]] = []
        self.packages = Packages(folder, "a", self.ask, self.told.append, lambda: self.picture, lambda: 1.0)

    async def ask(self, host: str, request: Request) -> Answer:
        raise ClusterUnreachable(f"The agent of {host} cannot be asked.", cause="it is off")

    def said(self, package: str, step: str, text: str) -> None:
        self.steps.append((package, step))

    async def push(self, archive: bytes) -> Pinned:
        id, manifest = await self.packages.take_in(pieces(archive))
        pinned = Pinned(manifest.name, manifest.version, id)
        record = PackageRecord(manifest.name, manifest.version, id)
        self.picture = Mirror(packages=self.picture.packages.set(pinned.key, Entry(record, 1, 1)))
        return pinned


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "data")


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def archive(folder: Path, version: str = "1.0.0", install: str = "exit 0") -> bytes:
    content = folder / version
    (content / "files").mkdir(parents=True)
    (content / "package.toml").write_text(
        f'name = "app"\nversion = "{version}"\n[install]\ncommand = ["/bin/sh", "-c", "{install}"]\n'
    )
    (content / "files" / "x").write_text(version)
    target = io.BytesIO()
    build_archive(content, target)
    return target.getvalue()


def use(pinned: Pinned) -> PackageUse:
    return PackageUse(pinned.name, "", pinned.version, pinned.id)


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


async def test_an_archive_that_breaks_off_or_is_none_leaves_nothing(host: Host, tmp_path: Path) -> None:
    whole = archive(tmp_path)
    for bad in (whole[: len(whole) // 2], b"", b"no archive" * 1000, whole + b"more"):
        with pytest.raises(PackageInvalid):
            await host.packages.take_in(pieces(bad))
    assert host.packages.shelf.ids() == frozenset()


async def test_what_is_wanted_and_cannot_be_fetched_is_told_as_a_trouble(host: Host) -> None:
    wanted = Pinned("app", "1.0.0", "a" * 64)
    host.packages.keep(KeepPackages((KeptPackage(wanted, ("b",)),)))
    keeping = asyncio.create_task(host.packages.run())
    try:
        async with asyncio.timeout(60):
            while not (host.told and isinstance(said := host.told[-1], ev.PackagesHeld) and said.troubles):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
    assert said.troubles == {"app@1.0.0": "b: it is off"}


async def test_what_is_free_is_dropped_unless_it_has_just_come_or_runs_here(host: Host, tmp_path: Path) -> None:
    fresh, running, old = [await host.push(archive(tmp_path, f"{number}.0.0")) for number in (1, 2, 3)]
    await host.packages.ready("web", use(running), host.said)
    packages = host.picture.packages
    host.picture = Mirror(packages=Map({key: entry for key, entry in packages.items() if key != fresh.key}))
    host.packages.keep(KeepPackages((), (fresh.id, running.id, old.id)))
    keeping = asyncio.create_task(host.packages.run())
    try:
        async with asyncio.timeout(60):
            while old.id in host.packages.shelf.ids():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
    assert host.packages.shelf.ids() == {fresh.id, running.id}


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
