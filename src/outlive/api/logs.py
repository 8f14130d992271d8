"""A workload's lines from all hosts, in one order, going on wherever the workload goes.

A stream ends when its reader goes; a host that does not answer is left out, and asked again where lines are followed.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from outlive.errors import OutliveError

from .view import View

MOST_WAITING_LINES = 1000
MOST_LINES = 100_000


class LogOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which lines are wanted."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=MOST_LINES, description="The last so many.")] = 100
    follow: Annotated[bool, msgspec.Meta(description="Whether it goes on with each new one.")] = False
    modules: Annotated[str, msgspec.Meta(description="Only of these modules, with commas between; '' for all.")] = ""

    def names(self) -> list[str]:
        """The modules one by one."""
        return [name for name in self.modules.split(",") if name]


@dataclass(frozen=True, slots=True)
class _Line:
    unix_ms: int


_decoder = msgspec.json.Decoder(_Line)


def _when(line: bytes) -> int:
    try:
        return _decoder.decode(line).unix_ms
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return 0


async def logs(view: View, workload: str, modules: Sequence[str], lines: int, follow: bool) -> AsyncIterator[bytes]:
    """The last lines from every host in order of time; followed, each new one as it comes, from any host."""
    past: list[tuple[int, int, bytes]] = []
    numbers = itertools.count()

    async def gather(host: str) -> None:
        with contextlib.suppress(OutliveError, OSError):
            async for line in await _of(view, host, workload, modules, lines, follow=False):
                heapq.heappush(past, (_when(line), next(numbers), line))
                if len(past) > lines:
                    heapq.heappop(past)

    if lines:
        # Side by side: a host that does not answer costs its patience once, whatever the number of such hosts.
        async with asyncio.TaskGroup() as group:
            for host in sorted(view.mirror.hosts):
                group.create_task(gather(host))
    for _, _, line in sorted(past):
        yield line
    if follow:
        async for line in _followed(view, workload, modules):
            yield line


async def _of(
    view: View, host: str, workload: str, modules: Sequence[str], lines: int, *, follow: bool
) -> AsyncIterator[bytes]:
    if host == view.host:
        return view.log_lines(workload, modules, lines, follow)
    return await view.peer_log_lines(host, workload, modules, lines, follow)


async def _followed(view: View, workload: str, modules: Sequence[str]) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING_LINES)

    async def follow(host: str) -> None:
        while True:
            with contextlib.suppress(OutliveError, OSError):
                async for line in await _of(view, host, workload, modules, 0, follow=True):
                    await queue.put(line)
            await asyncio.sleep(1.0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(host)) for host in sorted(view.mirror.hosts)]
        try:
            while True:
                yield await queue.get()
        finally:
            for task in tasks:
                task.cancel()
