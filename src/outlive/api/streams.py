"""The stream of events, which can be taken up again, at any agent, with nothing skipped and nothing told twice.

An event's id is its place in the order in which events reached the store: the revision at which it came, and its key.
That order is the same at every agent and stays the same over restarts. The store forgets what came first and says
how far (`Book.pruned`); a reader that was away for longer is told so, and with which id it can go on. A stream ends
when its reader goes, or falls so far behind.
"""

from collections.abc import AsyncIterator, Callable

import msgspec

from outlive.cluster.records import EventRecord
from outlive.errors import ClusterUnreachable, UsageInvalid

from .problems import Gone
from .view import Arrival, View
from .wishes import seen

KEEP_ALIVE_S = 10.0
BEGINNING: Arrival = (0, "")
STILL_HERE, STORE_AWAY = b": still here\n\n", b": the store does not answer\n\n"

Wanted = Callable[[EventRecord], bool]


class EventsGone(Gone):
    """What came after an id is not kept any more."""

    id = "events.gone"

    def __init__(self, oldest: Arrival) -> None:
        self.oldest = text_of(oldest)
        super().__init__(
            "Some of the events since then are not kept any more.",
            cause="the store keeps the last ones only",
            remedy=f"go on with all that is kept: with the id {self.oldest}",
        )

    def problem(self) -> dict[str, str | int]:
        """The problem object, with the id after which everything is kept."""
        return {**super().problem(), "oldest": self.oldest}


def text_of(arrival: Arrival) -> str:
    """An event's id as a stream gives it."""
    return f"{arrival[0]}:{arrival[1]}"


def mark(text: str | None) -> Arrival:
    """Read an id as `events` writes them; None is the beginning. Raises UsageInvalid."""
    if not text:
        return BEGINNING
    revision, _, key = text.partition(":")
    if not (revision.isascii() and revision.isdigit()) or len(revision) > 18 or int(revision) == 0:
        raise UsageInvalid(
            f"{text[:80]!r} is no mark of an event stream.", remedy="give back an id that the stream gave"
        )
    return (int(revision), key)


def last(view: View, count: int, wanted: Wanted) -> Arrival:
    """The id after which the last `count` wanted events come."""
    arrived = [arrival for arrival, event in view.book.arrived() if wanted(event)]
    return arrived[-count - 1] if len(arrived) > count else BEGINNING


async def check(view: View, after: Arrival) -> None:
    """Raise EventsGone, UsageInvalid or ClusterUnreachable unless everything after that id can be told."""
    if after == BEGINNING:
        return
    if after < view.book.pruned:
        raise EventsGone(view.book.pruned)
    await seen(view, after[0])
    if after[0] <= view.mirror.revision:
        return
    if not view.store_reachable:
        raise ClusterUnreachable(
            f"The agent of {view.host} does not know of events as new as that.",
            cause="the store does not answer it",
            remedy="ask another host's agent, or try again",
        )
    raise UsageInvalid(
        f"{text_of(after)[:80]!r} is no mark of this cluster's events.",
        cause="nothing in its store is as new as that",
        remedy="begin anew, without an id",
    )


async def events(view: View, after: Arrival, wanted: Wanted) -> AsyncIterator[bytes]:
    """Server-sent events from after the id, and on; a comment now and then keeps the connection.

    With it comes the id of what was passed over since, so that who wants little need not look through it again.
    """
    book = view.book
    after, told = max(after, book.pruned), after
    while after >= book.pruned:
        # Until there is none: what arrives while we are sending would not end the wait below.
        while found := book.arrived(after):
            for arrival, event in found:
                after = arrival
                if wanted(event):
                    told = arrival
                    data = msgspec.json.encode(event).decode()
                    yield f"id: {text_of(arrival)}\nevent: {event.kind}\ndata: {data}\n\n".encode()
            if after < book.pruned:
                return
        await book.wait(KEEP_ALIVE_S)
        if not book.arrived(after):
            yield STILL_HERE if view.store_reachable else STORE_AWAY
            if told < after:
                told = after
                yield f"id: {text_of(after)}\n\n".encode()
