"""Threads for calls that may block, awaited up to a time limit.

The event loop never waits for the kernel: a call that overstays its limit is left behind in its thread, and its
caller is told so. Calls of a single-threaded pool happen in the order in which they were made.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
