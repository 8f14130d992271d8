"""A machine's serial console: what it wrote last, bytes both ways for whoever is attached; and its display's picture.

QEMU writes all that the console says to a log, whether or not anybody is attached, and takes one client on its socket:
the one connection that is made here, while at least one is attached, and shared by all of them. One that reads too
slowly loses the oldest bytes; the guest is never held up. The log is kept short by `trim`.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import BinaryIO, Literal

from outlive.errors import Failed

from .qmp import Monitor

MOST_KEPT_BYTES = 1024 * 1024
"""Of the console's log; as much again lies beside it under `.1`."""
MOST_WAITING_BYTES = 256 * 1024
CONNECT_WITHIN_S = 5.0
WRITE_WITHIN_S = 10.0
DRAWN_WITHIN_S = 30.0
MOST_PICTURE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 16 * 1024


class ConsoleClosed(Failed):
    """The console of a machine cannot be reached, or was lost as the machine stopped."""

    id = "vm.console-closed"


class Attachment:
    """One user of a console."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._ended = False

    async def read(self) -> bytes:
        """Return what the console wrote since the last call, as soon as there is any; b"" when it has ended."""
        while not self._waiting and not self._ended:
            await self._news.wait()
            self._news.clear()
        got = bytes(self._waiting)
        self._waiting.clear()
        return got

    async def write(self, data: bytes) -> None:
        """Type at the console. Raises ConsoleClosed, also where the guest does not read within WRITE_WITHIN_S."""
        await self._console.type(data)

    async def close(self) -> None:
        """Attach no longer."""
        await self._console.detach(self)

    def take(self, data: bytes) -> None:
        """Keep what the console wrote until it is read."""
        self._waiting += data
        if len(self._waiting) > MOST_WAITING_BYTES:
            del self._waiting[: len(self._waiting) - MOST_WAITING_BYTES]
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._news.set()


class Console:
    """The console of one machine. path: its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._attached: set[Attachment] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def attach(self) -> Attachment:
        """Begin to use it. Raises ConsoleClosed."""
        attachment = Attachment(self)
        self._attached.add(attachment)
        try:
            await self._connect()
        except BaseException:
            self._attached.discard(attachment)
            raise
        return attachment

    async def type(self, data: bytes) -> None:
        """Send to the guest. Raises ConsoleClosed."""
        writer = self._writer
        if writer is None:
            raise ConsoleClosed("The console is not connected.")
        try:
            async with asyncio.timeout(WRITE_WITHIN_S):
                writer.write(data)
                await writer.drain()
        except (OSError, TimeoutError) as error:
            raise ConsoleClosed(
                "The console takes nothing in.", cause=str(error) or "the guest does not read"
            ) from error

    async def detach(self, attachment: Attachment) -> None:
        """End one use of it; with the last one the connection ends too."""
        self._attached.discard(attachment)
        attachment.end()
        if not self._attached:
            await self.close()

    async def close(self) -> None:
        """End every use of it."""
        for attachment in self._attached:
            attachment.end()
        self._attached.clear()
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            reading.cancel()
            await asyncio.wait([reading])
        self._disconnected()

    async def _connect(self) -> None:
        async with self._connecting:
            if self._writer is not None:
                return
            try:
                async with asyncio.timeout(CONNECT_WITHIN_S):
                    reader, self._writer = await asyncio.open_unix_connection(str(self._path))
            except (OSError, TimeoutError) as error:
                raise ConsoleClosed(
                    "The console cannot be reached.", cause=str(error), remedy="see whether the machine runs"
                ) from error
            self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                for attachment in self._attached:
                    attachment.take(data)
        for attachment in self._attached:
            attachment.end()
        self._disconnected()

    def _disconnected(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def last_output(path: Path, most_bytes: int = MOST_KEPT_BYTES) -> bytes:
    """The last that a console wrote, from its log. Blocks."""
    kept = b""
    for file in (path, older(path)):
        with contextlib.suppress(FileNotFoundError), _opened(file, os.O_RDONLY) as reading:
            size = reading.seek(0, os.SEEK_END)
            reading.seek(max(0, size - (most_bytes - len(kept))))
            kept = reading.read(most_bytes - len(kept)) + kept
        if len(kept) >= most_bytes:
            break
    return kept


def trim(path: Path) -> bool:
    """Keep a console's log short; return whether anything went. Blocks.

    QEMU opened it for appending, so that it may be cut under its hands; what comes in between is lost.
    """
    try:
        if path.stat().st_size <= MOST_KEPT_BYTES:
            return False
        with _opened(path, os.O_RDWR) as log:
            log.seek(-MOST_KEPT_BYTES, os.SEEK_END)
            kept = log.read(MOST_KEPT_BYTES)
            older(path).unlink(missing_ok=True)
            with _opened(older(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL) as beside:
                beside.write(kept)
            log.truncate(0)
    except FileNotFoundError:
        return False
    return True


def _opened(path: Path, flags: int) -> BinaryIO:
    """Open a file where the emulator may make files, too: never through a link that it put there."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    mode: Literal["rb", "wb", "r+b"] = "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb"
    return os.fdopen(descriptor, mode)


def _read(path: Path) -> bytes:
    with _opened(path, os.O_RDONLY) as file:
        return file.read(MOST_PICTURE_BYTES)


def older(path: Path) -> Path:
    """Where the part of a console's log is that came before."""
    return path.with_name(path.name + ".1")


async def screenshot(monitor: Monitor, folder: Path) -> bytes:
    """Return what a machine's display shows, as PNG. folder: one that the emulator may write to.

    Raises VmFailed or VmUnreachable.
    """
    file = folder / "screenshot.png"
    try:
        await monitor.call("screendump", {"filename": str(file), "format": "png"}, within_s=DRAWN_WITHIN_S)
        return await asyncio.to_thread(_read, file)
    except OSError as error:
        raise ConsoleClosed("The picture cannot be read.", cause=str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
