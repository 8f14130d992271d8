"""Installations wait for those of their own name alone, and one that nobody wants any more ends."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from outlive.agent.package_installing import MOST_AT_ONCE

from .package_host import SOON_S, Host, archive, use


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "data")


async def there(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + SOON_S
    while not os.path.exists(path):  # noqa: ASYNC240 – nothing tells of it
        assert time.monotonic() < deadline, path
        await asyncio.sleep(0.01)


async def test_many_that_wait_for_one_installation_keep_no_other_from_beginning(host: Host, tmp_path: Path) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    script = f"echo >> {begun}; until [ -e {go_on} ]; do sleep 0.05; done"
    slow = await host.push(archive(tmp_path, install=script))
    quick = await host.push(archive(tmp_path, name="quick"))
    waiting = [
        asyncio.create_task(host.packages.ready(f"web-{number}", use(slow), host.said))
        for number in range(MOST_AT_ONCE + 1)
    ]
    try:
        await there(begun)
        async with asyncio.timeout(SOON_S):
            assert (await host.packages.ready("other", use(quick), host.said)).folder.exists()
        assert not any(each.done() for each in waiting)
    finally:
        go_on.touch()
    assert len({ready.folder for ready in await asyncio.gather(*waiting)}) == 1
    assert begun.read_text().count("\n") == 1


async def test_what_is_installed_already_waits_for_no_other_installation(host: Host, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    quick = await host.push(archive(tmp_path, name="quick"))
    before = await host.packages.ready("other", use(quick), host.said)
    waiting = []
    try:
        for number in range(MOST_AT_ONCE):
            begun = tmp_path / f"begun-{number}"
            script = f"touch {begun}; until [ -e {go_on} ]; do sleep 0.05; done"
            slow = await host.push(archive(tmp_path, install=script, name=f"slow-{number}"))
            waiting.append(asyncio.create_task(host.packages.ready(f"web-{number}", use(slow), host.said)))
            await there(begun)
        host.steps.clear()
        async with asyncio.timeout(SOON_S):
            assert (await host.packages.ready("other", use(quick), host.said)).folder == before.folder
        assert ("quick@1.0.0", "installed") in host.steps
        assert not any(each.done() for each in waiting)
    finally:
        go_on.touch()
        await asyncio.gather(*waiting)


async def test_one_that_nobody_waits_for_ends_and_the_next_begins_after_it(host: Host, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    slow = await host.push(archive(tmp_path, install=f"echo $$ > {begun}; exec sleep 1000"))
    quick = await host.push(archive(tmp_path, "2.0.0", install=f"test ! -e /proc/$(cat {begun})"))
    waiting = asyncio.create_task(host.packages.ready("web", use(slow), host.said))
    await there(begun)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(SOON_S):
        ready = await host.packages.ready("web", use(quick), host.said)
    assert [folder.name for folder in ready.folder.parent.parent.iterdir() if folder.is_dir()] == [
        ready.folder.parent.name
    ]
