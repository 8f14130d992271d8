"""The API's paths of events: what happened, in pages or as a stream that goes on."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from outlive.cluster.records import EventRecord

from . import answers, streams
from .declaring import EVENTS, query, route
from .paging import MOST, Cursor, Limit, Page, backwards
from .problems import Encoded, NotFound
from .view import View

OfWorkload = Annotated[str, msgspec.Meta(description="Only of this workload.")]
OfHost = Annotated[str, msgspec.Meta(description="Only about this host.")]


class Which(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which events are listed."""

    limit: Limit = 100
    cursor: Cursor = ""
    workload: OfWorkload = ""
    host: OfHost = ""


class Follow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where a stream begins, and what is in it."""

    after: Annotated[str, msgspec.Meta(description="An id that a stream gave; Last-Event-ID goes before it.")] = ""
    last: (
        Annotated[int, msgspec.Meta(ge=0, le=MOST, description="Begin with the last so many.")] | msgspec.UnsetType
    ) = msgspec.UNSET
    workload: OfWorkload = ""
    host: OfHost = ""


class Events:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/events", answers.Events, query=Which)
    async def events(self, request: Request) -> Response:
        """What happened: the last events, the oldest of them first. The page after has those before them."""
        asked = query(request, Which)
        wanted = _wanted(asked.workload, asked.host)
        found = {f"{event.unix_ms:013d}-{event.id}": event for event in self.view.book.happened() if wanted(event)}
        keys, before = backwards("events", list(found), Page(asked.limit, asked.cursor))
        told: answers.Events = {"events": [found[key] for key in keys], "next": before}
        return Encoded(told)

    @route("GET", "/v1/events/stream", media=EVENTS, query=Follow, problems=(410,), streams=True)
    async def stream(self, request: Request) -> Response:
        """What happened and happens, as server-sent events, from after Last-Event-ID, the last so many, or all kept.

        An id that one agent gave is good at any other. One after which events are not kept any more is refused with
        410, and `oldest` is the id to go on with.
        """
        asked = query(request, Follow)
        wanted, given = _wanted(asked.workload, asked.host), request.headers.get("last-event-id") or asked.after
        after = streams.mark(given)
        if not given and asked.last is not msgspec.UNSET:
            after = streams.last(self.view, asked.last, wanted)
        await streams.check(self.view, after)
        told = streams.events(self.view, after, wanted)
        return StreamingResponse(told, headers={"Cache-Control": "no-cache"}, media_type=EVENTS)

    @route("GET", "/v1/workloads/{name}/why", answers.Why, problems=(404,))
    async def why(self, request: Request) -> Response:
        """The chain of causes that led to a workload's last change, the first cause first."""
        name = request.path_params["name"]
        happened = self.view.book.happened()
        about = [event for event in happened if event.workload == name]
        if not about:
            raise NotFound(f"Nothing is recorded of a workload {name[:80]}.", remedy="see `outlive ps`")
        told: answers.Why = {"workload": name, "chain": chain(about[-1], {event.id: event for event in happened})}
        return Encoded(told)


def _wanted(workload: str, host: str) -> streams.Wanted:
    return lambda event: workload in ("", event.workload) and host in ("", event.host)


def chain(event: EventRecord, known: dict[str, EventRecord]) -> list[EventRecord]:
    """The event and its causes, the first cause first; a cause that is not kept any more ends the chain."""
    found = [event]
    seen = {event.id}
    while (cause := known.get(found[-1].because)) is not None and cause.id not in seen:
        found.append(cause)
        seen.add(cause.id)
    return found[::-1]
