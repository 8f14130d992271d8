"""The API of one agent, put together from the rooms of its paths.

Nouns are plural; long actions are operations; what can be followed is a stream. Handlers read the agent's view and
hand wishes to `wishes`; the command line has no other way in. A path that is not declared is not served (`declaring`).
"""

import asyncio
import time
from functools import cache
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from outlive.errors import OutliveError

from . import once
from .checkpoints import Checkpoints
from .deciding import Decisions
from .declaring import JSON, Declared, Handler, route, served, take
from .document import document
from .events import Events
from .fencing import Fencing
from .hosts import Hosts
from .machines import Machines
from .maintenance import MaintenanceApi
from .networks import Networks
from .operations import Operations
from .packages import PackagesApi
from .policies import PoliciesApi
from .problems import on_http_exception, on_mistake, on_outlive_error, status_of
from .view import View
from .what_if import WhatIf
from .workloads import Workloads


class Described:
    """The API's description of itself."""

    @route("GET", "/v1/openapi.json", dict[str, Any], to_peers=True)
    async def openapi(self, request: Request) -> Response:
        """This document."""
        # Made once, and in a thread: it takes a tenth of a second, which the agent's loop does not have.
        return Response(await asyncio.to_thread(_text), media_type=JSON)


@cache
def _text() -> bytes:
    return msgspec.json.encode(document(GROUPS))


GROUPS: tuple[type, ...] = (
    Described, Decisions, Hosts, Workloads, Operations, Events, Networks, PackagesApi, PoliciesApi, MaintenanceApi,
    Fencing, WhatIf, Machines, Checkpoints,
)  # fmt: skip
"""All classes of handlers."""


def application(view: View, *, peers_only: bool = False) -> Starlette:
    """The API of one agent. peers_only: just what other agents need of this host, for the TLS port."""
    checkpoints = Checkpoints(view)
    groups = (
        Described(),
        Decisions(view),
        Hosts(view),
        Workloads(view),
        Operations(view, checkpoints),
        Events(view),
        Networks(view),
        PackagesApi(view),
        PoliciesApi(view),
        MaintenanceApi(view),
        Fencing(view),
        WhatIf(view),
        Machines(view),
        checkpoints,
    )
    assert tuple(map(type, groups)) == GROUPS
    handlers: dict[Any, Any] = {
        OutliveError: on_outlive_error,
        HTTPException: on_http_exception,
        Exception: on_mistake,
    }

    async def around(declared: Declared, handler: Handler, request: Request) -> Response:
        begun, status = time.perf_counter(), 500
        try:
            take(request, declared)
            response = await once.answered(view, declared, handler, request)
            status = response.status_code
        except OutliveError as error:
            status = status_of(error)
            raise
        finally:
            view.figures.requests[declared.method, declared.path, int(status)] += 1
            view.figures.answers.note(time.perf_counter() - begun)
        return response

    app = Starlette(routes=list(served(groups, around, peers_only=peers_only)), exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app
