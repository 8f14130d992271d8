"""Threads for calls that may block, awaited up to a time limit, and what is served by one that reaches the kernel.

The event loop never waits for the kernel: a call that overstays its limit is left behind in its thread, and its
caller is told so. Calls of a single-threaded pool happen in the order in which they were made.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from outlive.errors import OutliveError
from outlive.network.errors import KernelSlow

T = TypeVar("T")


class Workers:
    """A pool of at most `threads` threads, started as they are needed."""

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, doing: str, work: Callable[[], T], limit_s: float) -> T:
        """Have `work` done in a thread. `doing` completes "The kernel did not ... within 1 s".

        Raises what it raises, or KernelSlow after `limit_s`. Work that has not begun by then is never done.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError as error:
            raise KernelSlow(
                f"The kernel did not {doing} within {limit_s:g} s.",
                cause="its network configuration is locked or the machine is overloaded",
                remedy="It is tried again; if it lasts, look for a process that hangs while changing the network.",
            ) from error

    def close(self) -> None:
        """Take no more work; what has not begun is dropped. Does not wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class KernelUser:
    """Something that reaches the kernel by a thread of its own, as `async with` its name. Leaving changes no device.

    close:   gives back the thread's own connections to the kernel; called in it, at the end.
    limit_s: the time that the kernel has for one call.
    beside:  other threads, which end with it.
    """

    def __init__(self, name: str, close: Callable[[], None], limit_s: float, *beside: Workers) -> None:
        self._kernel = Workers(name, 1)
        self._give_back = close
        self._limit_s = limit_s
        self._beside = beside

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with contextlib.suppress(OutliveError):
            await self._in_kernel("close", self._give_back)
        for workers in (self._kernel, *self._beside):
            workers.close()

    async def _in_kernel(self, doing: str, work: Callable[[], T]) -> T:
        return await self._kernel.run(doing, work, self._limit_s)
