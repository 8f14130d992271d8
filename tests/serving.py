"""Servers on this machine for as long as a block lasts, of which nothing is left to the garbage collector.

A connection whose task is cancelled before its first step is closed by nobody, in Python 3.11; what is found of it
later fails whichever test runs then. So who serves here knows every connection from the moment it is made.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

STEPS = 10
"""How many turns of the loop an accepted connection takes at most until it is known here."""


class Connections:
    """All connections of a server. Its `begin` is what asyncio calls for each."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection was made."""
        self._writers.add(writer)
        self._tasks.add(asyncio.ensure_future(self._answered(reader, writer)))

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)

    async def end(self) -> None:
        """Cancel what is being answered and close every connection; raises what an answer raised."""
        for _ in range(STEPS):
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()
        for each in ended:
            if isinstance(each, Exception):
                raise each


@asynccontextmanager
async def serving(answer: Answering, **options: Any) -> AsyncIterator[int]:
    """A TCP server on loopback; its port. options: as for `asyncio.start_server`."""
    connections = Connections(answer)
    server = await asyncio.start_server(connections.begin, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await connections.end()
