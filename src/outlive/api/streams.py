"""What the API sends piece by piece: events that can be taken up again, logs that follow their workload.

A stream ends when its reader goes. Marks in the event stream are the store's revision and key, so that a reader that
comes back to any agent of the cluster misses nothing and reads nothing twice.
"""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from outlive.cluster.records import EventRecord
from outlive.errors import OutliveError, UsageInvalid

from .view import Arrival, View

KEEP_ALIVE_S = 10.0
MOST_WAITING_LINES = 1000


def mark(text: str | None) -> Arrival:
    """Read a mark as `events` writes them; None is the beginning. Raises UsageInvalid."""
    if not text:
        return (0, "")
    revision, _, key = text.partition(":")
    if not revision.isdigit() or len(revision) > 18:
        raise UsageInvalid(
            f"{text[:80]!r} is no mark of an event stream.", remedy="give back an id that the stream gave"
        )
    return (int(revision), key)


def last(view: View, count: int) -> Arrival:
    """The mark after which the last `count` events come."""
    arrived = view.book.arrived()
    return arrived[-count - 1][0] if len(arrived) > count else (0, "")


async def events(view: View, after: Arrival) -> AsyncIterator[bytes]:
    """Server-sent events from after the mark, and on; a comment now and then keeps the connection."""
    while True:
        # Until there is none: what arrives while we are sending would not end the wait below.
        while found := view.book.arrived(after):
            for arrival, event in found:
                after = arrival
                data = msgspec.json.encode(event).decode()
                yield f"id: {arrival[0]}:{arrival[1]}\nevent: {event.kind}\ndata: {data}\n\n".encode()
        await view.book.wait(KEEP_ALIVE_S)
        if not view.book.arrived(after):
            yield b": still here\n\n"


def chain(event: EventRecord, known: dict[str, EventRecord]) -> list[EventRecord]:
    """The event and its causes, the first cause first; a cause that is not kept any more ends the chain."""
    found = [event]
    seen = {event.id}
    while (cause := known.get(found[-1].because)) is not None and cause.id not in seen:
        found.append(cause)
        seen.add(cause.id)
    return found[::-1]


@dataclass(frozen=True, slots=True)
class _Line:
    unix_ms: int


_decoder = msgspec.json.Decoder(_Line)


def _when(line: bytes) -> int:
    try:
        return _decoder.decode(line).unix_ms
    except msgspec.MsgspecError:
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
