"""The API's paths of events: what happened, in pages or as a stream that goes on."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from . import answers, streams
from .declaring import EVENTS, query, route
from .paging import MOST, Cursor, Limit, Page, backwards
from .problems import Encoded
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
    """Where a stream begins."""

    after: Annotated[str, msgspec.Meta(description="An id that a stream gave; Last-Event-ID goes before it.")] = ""
    last: (
        Annotated[int, msgspec.Meta(ge=0, le=MOST, description="Begin with the last so many.")] | msgspec.UnsetType
    ) = msgspec.UNSET


class Events:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/events", answers.Events, query=Which)
    async def events(self, request: Request) -> Response:
        """What happened: the last events, the oldest of them first. The page after has those before them."""
        asked = query(request, Which)
        found = {
            f"{event.unix_ms:013d}-{event.id}": event
            for event in self.view.book.happened()
            if asked.workload in ("", event.workload) and asked.host in ("", event.host)
        }
        keys, before = backwards("events", list(found), Page(asked.limit, asked.cursor))
        told: answers.Events = {"events": [found[key] for key in keys], "next": before}
        return Encoded(told)

    @route("GET", "/v1/events/stream", media=EVENTS, query=Follow, streams=True)
    async def stream(self, request: Request) -> Response:
        """What happened and happens (server-sent events), from after Last-Event-ID, the last so many, or all kept."""
        asked = query(request, Follow)
        given = request.headers.get("last-event-id") or asked.after
        after = streams.mark(given)
        if not given and asked.last is not msgspec.UNSET:
            after = streams.last(self.view, asked.last)
        return StreamingResponse(streams.events(self.view, after), media_type=EVENTS)
