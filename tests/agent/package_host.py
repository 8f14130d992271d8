"""One host's packages beside a store that is a dictionary, for tests of all that an agent does with packages."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from outlive.agent.packages import Packages
from outlive.agent.peers import Answer, Request
from outlive.cluster import events as ev
from outlive.cluster import records as rec
from outlive.cluster.copies import kept_on
from outlive.cluster.mirror import Mirror, snapshot
from outlive.cluster.pushed import DepotRecord, PackageRecord, PackageUse, Pinned
from outlive.cluster.transaction import KeyValue
from outlive.depot.archive import build_archive
from outlive.errors import ClusterUnreachable

SOON_S = 20.0


class Host:
    """Host a. store: what stands there, by key; picture: what the agent last saw of it, `looks` takes a new one."""

    def __init__(self, folder: Path) -> None:
        self.told: list[ev.Event] = []
        self.steps: list[tuple[str, str]] = []
        self.store: dict[str, rec.Record] = {}
        self.store_is_away = False
        self.as_it_is_read: Callable[[], None] = lambda: None
        self.follows = True
        self.picture = Mirror()
        self.now = 1.0
        self._revision = 0
        self.packages = Packages(folder, "a", self.ask, self._tell, lambda: self.picture, self.read, lambda: self.now)

    async def ask(self, host: str, request: Request) -> Answer:
        raise ClusterUnreachable(f"The agent of {host} cannot be asked.", cause="it is off")

    async def read(self, key: str) -> KeyValue | None:
        if self.store_is_away:
            raise ClusterUnreachable("The store does not answer.")
        self.as_it_is_read()
        record = self.store.get(key)
        return KeyValue(key, rec.encode(record), 1, 1) if record is not None else None

    def said(self, package: str, step: str, text: str) -> None:
        self.steps.append((package, step))

    def _tell(self, event: ev.Event) -> None:
        self.told.append(event)
        if isinstance(event, ev.PackagesHeld):
            self.writes(DepotRecord("a", dict(event.holds), dict(event.troubles)))

    def writes(self, *records: PackageRecord | DepotRecord) -> None:
        """Have these stand in the store; the agent sees them, if it follows."""
        for record in records:
            at = rec.PACKAGES + record.key if isinstance(record, PackageRecord) else rec.DEPOTS + record.host
            self.store[at] = record
        self._looks()

    def removes(self, pinned: Pinned) -> None:
        """A package's record goes."""
        del self.store[rec.PACKAGES + pinned.key]
        self._looks()

    def _looks(self) -> None:
        """Take a new picture, and have the depot hold what it says."""
        if self.follows:
            self._revision += 1
            values = [KeyValue(key, rec.encode(record), 1, self._revision) for key, record in self.store.items()]
            self.picture = snapshot(self.picture, self._revision, values, self.now)
            self.packages.keep(kept_on(self.picture, "a"))

    async def push(self, archive: bytes, hosts: tuple[str, ...] = ("a",)) -> Pinned:
        """Push a package, and have its record written."""
        async with self.packages.arrival(pieces(archive)) as (id, manifest):
            pinned = Pinned(manifest.name, manifest.version, id)
            self.writes(record_of(pinned, hosts))
        return pinned

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """The depot is kept as it is wanted while the block lasts."""
        async with AsyncExitStack() as stack:
            keeping = asyncio.create_task(self.packages.run())
            stack.callback(keeping.cancel)
            yield keeping

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait until something holds; the depot looks meanwhile."""
        deadline = time.monotonic() + SOON_S
        while not holds():
            assert time.monotonic() < deadline, what
            self._looks()
            await asyncio.sleep(0.01)

    async def looks_around(self) -> None:
        """Have the depot look through all there is a few times: what is to go is gone then."""
        for _ in range(4):
            self._looks()
            await self.packages._let_go()


def record_of(pinned: Pinned, hosts: tuple[str, ...] = ("a",)) -> PackageRecord:
    return PackageRecord(pinned.name, pinned.version, pinned.id, hosts=hosts)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def archive(folder: Path, version: str = "1.0.0", install: str = "exit 0", name: str = "app") -> bytes:
    """A package of one file, whose install command is this."""
    content = folder / f"{name}-{version}"
    (content / "files").mkdir(parents=True)
    (content / "package.toml").write_text(
        f'name = "{name}"\nversion = "{version}"\n[install]\ncommand = ["/bin/sh", "-c", "{install}"]\n'
    )
    (content / "files" / "x").write_text(version)
    target = io.BytesIO()
    build_archive(content, target)
    return target.getvalue()


def use(pinned: Pinned) -> PackageUse:
    return PackageUse(pinned.name, "", pinned.version, pinned.id)
