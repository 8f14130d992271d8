"""Packages that are pushed to this host: taken in as they arrive, some at once, and whole or not at all.

A thread reads the archive while it comes; the loop hands it over piece by piece and waits while the disk is slower
than whoever sends. Nobody else touches what the thread has open.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from outlive.cluster.package import Manifest
from outlive.depot.archive import read_archive
from outlive.depot.errors import DepotBusy
from outlive.depot.package import package_id
from outlive.depot.shelf import Shelf
from outlive.errors import Failed

from .package_needs import Needs
from .package_threads import Threads, ended

MOST_UPLOADS = 4
STALLED_UPLOAD_S = 30.0
WAITING_BYTES = 1 << 20


class UploadStalled(Failed):
    """Who pushes a package sent nothing for too long."""

    id = "package.upload-stalled"


class UploadsCrowded(DepotBusy):
    """As many packages are being pushed to this host as it takes at once."""

    id = "package.uploads-crowded"


class BrokenOff(Exception):
    """Whoever sent an archive sends no more of it; told to the thread that reads."""


class Uploads:
    """The pushes to one host."""

    def __init__(self, shelf: Shelf, needs: Needs) -> None:
        self._shelf = shelf
        self._needs = needs
        self._threads = Threads("package-push", MOST_UPLOADS)
        self._running = 0

    async def take_in(self, pieces: AsyncIterator[bytes]) -> tuple[str, Manifest]:
        """Put an archive on the shelf as it arrives; its package's id and manifest.

        Needs hear of it before anything of it is here; of its end, by `pushed`, from whoever it was given to.
        Raises UploadsCrowded at once; PackageInvalid, DepotFull, UploadStalled and others: then nothing of it is left.
        """
        if self._running >= MOST_UPLOADS:
            raise UploadsCrowded(
                "Too many packages are being pushed to this host.",
                cause=f"it takes {MOST_UPLOADS} at once",
                remedy="push it again in a moment, or to another host's agent",
            )
        self._running += 1
        try:
            feed = Feed()
            reading = asyncio.create_task(self._threads.run(self._read, feed))
            reading.add_done_callback(lambda _: feed.wake())
            try:
                try:
                    await _poured(pieces, feed, reading)
                    feed.end()
                finally:
                    feed.break_off()
                    await ended(reading)
            except BaseException:
                if not reading.cancelled() and reading.exception() is None:
                    self._needs.pushed(reading.result()[0], refused=True)
                raise
            return reading.result()
        finally:
            self._running -= 1

    def _read(self, feed: "Feed") -> tuple[str, Manifest]:
        """Read an archive; unless that fails, its package is needed."""
        ids: list[str] = []

        def known(manifest: Manifest) -> None:
            ids.append(package_id(manifest))
            self._needs.brings(ids[0])

        try:
            manifest = read_archive(feed, self._shelf, known=known)
            return ids[0], manifest
        except BaseException:
            for id in ids:
                self._needs.pushed(id, refused=True)
            raise


async def _poured(pieces: AsyncIterator[bytes], feed: "Feed", reading: "asyncio.Task[tuple[str, Manifest]]") -> None:
    """Hand what arrives to the thread that reads it; ends early when that has ended."""
    while not reading.done():
        try:
            async with asyncio.timeout(STALLED_UPLOAD_S):
                piece = await anext(pieces, b"")
        except TimeoutError as error:
            raise UploadStalled(
                "The package did not arrive.", cause=f"nothing came for {STALLED_UPLOAD_S:g} s", remedy="push it again"
            ) from error
        if not piece:
            return
        feed.put(piece)
        while feed.is_full and not reading.done():
            await feed.taken()


class Feed:
    """Bytes on their way from the loop, which made it, to a thread that reads them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._some_taken = asyncio.Event()
        self._changed = threading.Condition()
        self._pieces: deque[memoryview] = deque()
        self._bytes = 0
        self._ended = False
        self._broken_off = False

    # For the loop.

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be read."""
        return self._bytes >= WAITING_BYTES

    def put(self, piece: bytes) -> None:
        """Have this read next."""
        with self._changed:
            self._pieces.append(memoryview(piece))
            self._bytes += len(piece)
            self._changed.notify()

    async def taken(self) -> None:
        """Wait until something was taken, or nobody reads any more."""
        await self._some_taken.wait()
        self._some_taken.clear()

    def wake(self) -> None:
        """End a wait."""
        self._some_taken.set()

    def end(self) -> None:
        """There is no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def break_off(self) -> None:
        """There would be more, and it does not come; without effect after `end`."""
        with self._changed:
            self._broken_off = not self._ended
            self._changed.notify()

    # For the thread.

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most so many, as soon as there are any; b"" at the end. Raises BrokenOff."""
        with self._changed:
            while not (self._pieces or self._ended or self._broken_off):
                self._changed.wait()
            if self._broken_off:
                raise BrokenOff
            if not self._pieces:
                return b""
            first = self._pieces.popleft()
            if len(first) > size:
                self._pieces.appendleft(first[size:])
            self._bytes -= min(size, len(first))
        with suppress(RuntimeError):  # a loop that is closed waits for nothing
            self._loop.call_soon_threadsafe(self.wake)
        return bytes(first[:size])
