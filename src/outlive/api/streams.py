"""The stream of events, which can be taken up again.

A stream ends when its reader goes. Marks in the event stream are the store's revision and key, so that a reader that
comes back to any agent of the cluster misses nothing and reads nothing twice.
"""

from collections.abc import AsyncIterator

import msgspec

from outlive.cluster.records import EventRecord
from outlive.errors import UsageInvalid

from .view import Arrival, View

KEEP_ALIVE_S = 10.0


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
