"""Getting a package from another host's agent, which is not trusted: what comes is what its hash says, or is not kept.

The manifest comes first and is the package's id; each file's content is asked for by its hash and taken in as it
comes, so that what was brought stays when the way breaks off, and another holder goes on from there. Nothing of it
blocks the loop; memory is bounded by one piece.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import msgspec
import structlog

from outlive.cluster.package import Component, Manifest
from outlive.cluster.pushed import Pinned
from outlive.depot.errors import DepotFull
from outlive.depot.incoming import Incoming
from outlive.depot.package import MOST_MANIFEST_BYTES, read_manifest
from outlive.depot.shelf import Reception, Shelf
from outlive.errors import Failed, OutliveError

from .package_threads import Threads
from .peers import Answer, Request

WHOLE_S = 900.0
STALL_S = 15.0
MANIFEST_S = 30.0
AT_ONCE = 256
AT_ONCE_BYTES = 16 << 20
GATHERED_BYTES = 1 << 20
ROUNDS = 2

Ask = Callable[[str, Request], Awaitable[Answer]]
"""Asks the agent of a host. Raises ClusterUnreachable."""

log = structlog.get_logger()


class NotFetched(Failed):
    """A package could not be brought from any host that says it has it."""

    id = "package.not-fetched"


async def fetch(shelf: Shelf, ask: Ask, pinned: Pinned, holders: Sequence[str], threads: Threads) -> str:
    """Put a package on the shelf; the host that it was brought from, '' when it was here.

    Each holder has WHOLE_S at each try, and the next goes on where it was.
    Raises NotFetched, with what went wrong at each of the holders, or here.
    """
    if pinned.id in await threads.left(shelf.ids):
        return ""
    failures: dict[str, str] = {}
    for holder in (*holders,) * ROUNDS:
        try:
            async with asyncio.timeout(WHOLE_S) as whole:
                await _Fetch(shelf, ask, pinned, holder, threads).whole()
            return holder
        except DepotFull as error:  # no other holder helps
            failures = {"here": str(error)}
            break
        except (OutliveError, OSError, TimeoutError) as error:
            failures[holder] = f"not whole within {WHOLE_S:g} s" if whole.expired() else _told(error)
            log.warning("package.not_fetched", package=pinned.key, holder=holder, reason=failures[holder])
    why = "; ".join(f"{holder}: {reason}" for holder, reason in failures.items())
    raise NotFetched(
        f"The package {pinned.key} could not be fetched.",
        cause=why or "no other host has it",
        remedy=f"see who has it: outlive package show {pinned.key}",
    )


def _told(error: BaseException) -> str:
    if isinstance(error, OutliveError) and error.cause:
        return error.cause
    return str(error) or f"it sent nothing for {STALL_S:g} s"


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One try to bring a package from one holder."""

    shelf: Shelf
    ask: Ask
    pinned: Pinned
    holder: str
    threads: Threads

    async def whole(self) -> None:
        """Put it on the shelf. Raises an OutliveError, OSError, TimeoutError; what came stays for the next try."""
        manifest = await self._manifest()
        reception = await self.threads.run(self.shelf.receive, manifest, undo=Reception.leave)
        try:
            for batch in _batches(await self.threads.run(reception.missing)):
                await self._bring(reception, batch)
            await self.threads.run(reception.finish)
        finally:
            await self.threads.run(reception.leave)

    async def _manifest(self) -> Manifest:
        answer = await self.ask(self.holder, Request("GET", self._path("manifest")))
        try:
            self._check(answer)
            raw = await answer.whole(MOST_MANIFEST_BYTES, MANIFEST_S)
        finally:
            answer.close()
        pinned = self.pinned
        manifest = await self.threads.run(partial(read_manifest, raw, id=pinned.id))
        if (manifest.name, manifest.version) != (pinned.name, pinned.version):
            raise NotFetched(f"The package {pinned.key} is another.", cause=f"its content is that of {manifest}")
        return manifest

    def _path(self, what: str) -> str:
        return f"/v1/hosts/{quote(self.holder)}/packages/{self.pinned.id}/{what}"

    def _check(self, answer: Answer) -> None:
        if answer.status != 200:
            raise NotFetched(
                f"The package {self.pinned.key} was not given.", cause=f"{answer.host} answered {answer.status}"
            )

    async def _bring(self, reception: Reception, batch: list[Component]) -> None:
        """Bring some components in one answer, which has one after the other and nothing between them."""
        offset = 0
        if len(batch) == 1:
            incoming = await self.threads.run(reception.receive, batch[0], undo=Incoming.close)
            offset = incoming.offset
            await self.threads.run(incoming.close)
        wish = {"components": [[each.digest, each.bytes] for each in batch], "offset": offset}
        answer = await self.ask(self.holder, Request("POST", self._path("content"), msgspec.json.encode(wish)))
        pieces = _Pieces(answer)
        try:
            self._check(answer)
            for component in batch:
                await self._take_in(reception, component, offset, pieces)
        finally:
            answer.close()

    async def _take_in(self, reception: Reception, component: Component, offset: int, pieces: "_Pieces") -> None:
        incoming = await self.threads.run(reception.receive, component, undo=Incoming.close)
        try:
            at = offset
            if incoming.offset < at:
                raise NotFetched("What was brought before is gone.", cause=f"of component {component.digest}")
            while at < component.bytes:
                raw = await pieces.some(min(GATHERED_BYTES, component.bytes - at))
                fresh = raw[max(0, incoming.offset - at) :]
                at += len(raw)
                if fresh:
                    await self.threads.run(incoming.append, fresh)
            await self.threads.run(incoming.finish)
        finally:
            await self.threads.run(incoming.close)


def _batches(missing: Sequence[Component]) -> Iterator[list[Component]]:
    """Small components together, each large one by itself, so that it goes on where it broke off."""
    batch: list[Component] = []
    for component in missing:
        if batch and (len(batch) >= AT_ONCE or sum(each.bytes for each in batch) + component.bytes > AT_ONCE_BYTES):
            yield batch
            batch = []
        batch.append(component)
    if batch:
        yield batch


class _Pieces:
    """What an answer holds, in pieces of the size that is asked for."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._rest = bytearray()

    async def some(self, most_bytes: int) -> bytes:
        """So many bytes. Raises ClusterUnreachable, TimeoutError."""
        while len(self._rest) < most_bytes:
            async with asyncio.timeout(STALL_S):
                piece = await self._answer.piece()
            if not piece:
                raise NotFetched("Content of a package broke off.", cause=f"{self._answer.host} ended its answer early")
            self._rest += piece
        taken = bytes(self._rest[:most_bytes])
        del self._rest[:most_bytes]
        return taken
