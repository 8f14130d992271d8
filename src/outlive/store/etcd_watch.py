"""One watch of an etcd store: whole revisions in order, resumed at another member when a connection ends.

etcd orders the changes of one watcher, and nothing else: progress that it is asked for can overtake changes (before
3.4.25 and 3.5.8). So freshness is shown by what cannot be overtaken: after a moment without changes the store's
revision is read; is it the last one told, nothing is missing; has it moved, a mark is written below the prefix, and
when that is told, so has been everything before it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Protocol

from outlive.cluster.transaction import Delete, KeyValue
from outlive.config.store_address import Endpoint

from . import etcd_messages as say
from .base import (
    PROGRESS_INTERVAL_S,
    StoreDenied,
    StoreError,
    StoreForeign,
    StoreReplaced,
    StoreTimeout,
    StoreUnavailable,
    WatchBatch,
)
from .boot_clock import boot_time_s
from .etcd_exchange import LoginNeeded, Refusal, as_raised
from .etcd_faults import compacted, refused
from .etcd_gateway import Gateway

INTERNAL = b"\x01"
"""What keys of our own begin with below the prefix: no key of a user's can, see `check_key`."""

AGAIN_S = 0.1
GRACE_S = 0.2
BEHIND_S = 1.5
PROBE_S = 2.0


class Probed(Protocol):
    """What a watch asks of its store."""

    async def revision(self, *, timeout_s: float) -> int: ...
    async def make_progress(self, *, timeout_s: float) -> None: ...


def key_value(kv: say.Kv, base: bytes) -> KeyValue:
    """A key below our prefix as the rest of the project knows it. Raises StoreForeign for a name that is no text."""
    try:
        key = kv.key.removeprefix(base).decode()
    except UnicodeDecodeError as error:
        raise StoreForeign(
            f"The store has a key whose name is no text: {kv.key!r}.",
            cause="another program wrote below its prefix",
            remedy="delete that key with etcdctl",
        ) from error
    return KeyValue(key, kv.value, kv.create_revision, kv.mod_revision, kv.lease or None)


class Assembly:
    """Puts messages together to whole revisions, each once, and leaves out what is not under the prefix."""

    def __init__(self, base: bytes, prefix: str, from_revision: int) -> None:
        self._base = base
        self._prefix = prefix
        self._internal = base + INTERNAL
        self._waiting: list[say.Event] = []
        self.told = from_revision - 1
        """All changes up to this revision have been given."""

    def begin(self) -> None:
        """A new connection: what was not whole comes again."""
        self._waiting.clear()

    def take(self, message: say.Watched) -> list[WatchBatch]:
        """The revisions that this message makes whole."""
        self._waiting += [event for event in message.events if event.kv.mod_revision > self.told]
        batches: list[WatchBatch] = []
        last = say.last_revision(self._waiting) if message.fragment else 0
        while self._waiting and (revision := self._waiting[0].kv.mod_revision) != last:
            count = next(
                (at for at, event in enumerate(self._waiting) if event.kv.mod_revision != revision), len(self._waiting)
            )
            changes = tuple(change for event in self._waiting[:count] if (change := self._change(event)) is not None)
            del self._waiting[:count]
            self.told = max(self.told, revision)
            if changes:
                batches.append(WatchBatch(revision, changes))
        return batches

    def _change(self, event: say.Event) -> KeyValue | Delete | None:
        if event.kv.key.startswith(self._internal):
            return None
        kv = key_value(event.kv, self._base)
        if not kv.key.startswith(self._prefix):
            return None
        return Delete(kv.key) if event.type == "DELETE" else kv


class EtcdWatch:
    """A watch for one reader. A connection that ends is replaced as long as `silence_s` is not over."""

    def __init__(
        self, store: Probed, gateway: Gateway, base: bytes, prefix: str, from_revision: int, silence_s: float
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._base = base
        self._prefix = prefix
        self._silence_s = silence_s
        self._assembly = Assembly(base, prefix, from_revision)
        self._moved = asyncio.Event()
        self._given = 0
        self._heard_at = boot_time_s()
        self._why = ""

    async def batches(self, closed: asyncio.Event) -> AsyncGenerator[WatchBatch, None]:
        """What `Store.watch` promises."""
        self._heard_at = boot_time_s()
        while True:
            self._gateway.check_open()
            endpoint = self._gateway.preferred
            connection, token = self._connected(endpoint, closed), self._gateway.token
            try:
                async for batch in connection:
                    self._given = batch.revision
                    yield batch
                    self._heard_at = boot_time_s()
            except LoginNeeded as error:
                self._why = str(error)
                await self._gateway.renew_token(token, self._why, PROBE_S)
            except Refusal as error:
                raise refused(error.fault, "watch") from None
            except (StoreReplaced, StoreDenied, StoreForeign, StoreTimeout):
                raise
            except StoreUnavailable as error:
                self._gateway.check_open()
                self._why = str(error)
                self._gateway.turn(endpoint)
            finally:
                await connection.aclose()
            self._check_silence()
            with suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), AGAIN_S)

    def _check_silence(self) -> None:
        if boot_time_s() - self._heard_at >= self._silence_s:
            raise StoreTimeout(
                f"The store told nothing to the watch of {self._prefix!r} for {self._silence_s:g} s.",
                cause=self._why or "etcd did not answer",
                remedy="it goes on as soon as a majority of etcd's members can be reached",
            )

    async def _connected(self, endpoint: Endpoint, closed: asyncio.Event) -> AsyncGenerator[WatchBatch, None]:
        """What comes over one connection. Raises StoreUnavailable when it ends or falls behind."""
        self._assembly.begin()
        body = say.watch_request(self._base, say.after_prefix(self._base), max(1, self._assembly.told))
        async with self._gateway.stream(endpoint, "/v3/watch", body, begin_s=min(PROBE_S, self._silence_s)) as lines:
            line = asyncio.ensure_future(anext(lines))
            closing = asyncio.ensure_future(closed.wait())
            look: asyncio.Future[int] | None = None
            due_at = boot_time_s()
            try:
                while True:
                    now = boot_time_s()
                    wake_at = min(self._heard_at + self._silence_s, due_at if look is None else now + PROBE_S)
                    waited: set[asyncio.Future[Any]] = {line, closing} | ({look} if look else set())
                    await asyncio.wait(waited, timeout=max(0.0, wake_at - now), return_when=asyncio.FIRST_COMPLETED)
                    self._gateway.check_open()
                    if line.done():
                        batches = self._take(line.result())
                        line = asyncio.ensure_future(anext(lines))
                        for batch in batches:
                            yield batch
                            due_at = boot_time_s() + PROGRESS_INTERVAL_S
                    if look is not None and look.done():
                        revision = self._looked(look)
                        look, due_at = None, boot_time_s() + PROGRESS_INTERVAL_S
                        if revision is not None:
                            yield WatchBatch(max(revision, self._given), ())
                    elif look is None and boot_time_s() >= due_at:
                        look = asyncio.ensure_future(self._look(endpoint))
                    self._check_silence()
            finally:
                await _end(line, closing, *([look] if look else []))

    def _take(self, line: bytes) -> list[WatchBatch]:
        message = say.read_streamed(line, say.Watched)
        if isinstance(message, say.Fault):
            raise as_raised(message)
        self._gateway.check_cluster(message.header)
        if message.compact_revision:
            raise compacted(message.compact_revision)
        if message.canceled:
            raise as_raised(say.Fault(message.cancel_reason or "etcd ended the watch"))
        batches = self._assembly.take(message)
        self._moved.set()
        return batches

    def _looked(self, look: "asyncio.Future[int]") -> int | None:
        """What a look found; None when the store could not be read: that may pass."""
        try:
            return look.result()
        except (_Behind, StoreReplaced, StoreDenied):
            raise
        except StoreError as error:
            self._why = str(error)
            return None

    async def _look(self, endpoint: Endpoint) -> int:
        """A revision up to which all was told. Raises _Behind when this connection does not get there."""
        revision = await self._store.revision(timeout_s=PROBE_S)
        if not await self._reaches(revision, GRACE_S):
            await self._store.make_progress(timeout_s=PROBE_S)
            if not await self._reaches(revision, BEHIND_S):
                raise _Behind(f"A watch at {endpoint} fell behind.", cause="that member is cut off from the others")
        return revision

    async def _reaches(self, revision: int, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._assembly.told < revision:
                    self._moved.clear()
                    await self._moved.wait()
        return self._assembly.told >= revision


class _Behind(StoreUnavailable):
    """A connection over which changes do not come that the store has made."""


async def _end(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
