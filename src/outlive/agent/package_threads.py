"""Threads for one kind of work with packages, few and of their own, so that nothing else of the agent waits for them.

Whoever waits for a thread that has files of his, and is cancelled, is so once the thread has left them alone: a file
that one closes while a thread still writes is a file that the thread writes into whoever opened one next. A thread
that hangs in a disk then makes him wait without end; the agent's own end does not wait for that (`daemon`).
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most so many threads; what comes beyond that waits in a row."""

    def __init__(self, name: str, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(
        self,
        work: Callable[..., T],
        *arguments: Any,
        cancelled: threading.Event | None = None,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Do blocking work in one of them, to its end: also where the caller is cancelled meanwhile.

        For work with files that the caller, or whoever called that, would close.

        cancelled: set then, for work that looks at it and ends early.  undo: done then with what the work returned.
        """
        handed: Future[T] = self._pool.submit(work, *arguments)
        waiting = asyncio.wrap_future(handed)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.set()
            try:
                await ended(waiting)
            finally:
                if undo is not None and waiting.exception() is None:
                    self._pool.submit(undo, waiting.result())
            raise

    async def left(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do blocking work that has all its files to itself: a caller who is cancelled leaves it alone, at once.

        A disk that hangs, or is long at reading, then keeps nobody from tearing down.
        """
        return await asyncio.wrap_future(self._pool.submit(work, *arguments))


async def ended(future: "asyncio.Future[T]") -> None:
    """Wait for a future's end, also where one is cancelled meanwhile, which one is then; how it ended is for others."""
    interrupted: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            interrupted = error
    if not future.cancelled():
        future.exception()
    if interrupted is not None:
        raise interrupted
