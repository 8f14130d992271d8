"""Errors over HTTP: every answer that is not what was asked for is a problem object (RFC 9457).

The ids are those of the command line, so that a script may match the same word in either place.
"""

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from outlive.depot.errors import ComponentMissing, DependencyConflict, DependencyCycle, DepotFailed, PackageMissing
from outlive.errors import ClusterUnreachable, Failed, OutliveError, RefusedForSafety, UsageInvalid

RETRY_AFTER_S = "2"
"""When to ask again what could not be answered: about as long as another leader is in coming."""


class NotFound(Failed):
    """There is nothing of that name."""

    id = "not-found"


class Conflict(RefusedForSafety):
    """Somebody else changed it meanwhile."""

    id = "conflict"


class RevisionChanged(Conflict):
    """A workload is not at the revision any more that a wish was made for."""

    id = "revision.changed"

    def __init__(self, name: str, stands: int, wished: int) -> None:
        super().__init__(
            f"{name} is not what it was at revision {wished}, so nothing was done.",
            cause=f"it is at revision {stands} now" if stands else "it does not exist now",
            remedy=f"look at it as it is, and ask again with revision {stands}",
        )
        self.revision = stands

    def problem(self) -> dict[str, str | int]:
        """The problem object, with the present revision."""
        return {**super().problem(), "revision": self.revision}


class NotRunning(Failed):
    """A machine is asked for what only one that runs has."""

    id = "machine.not-running"


class Gone(Failed):
    """It was there, and is not kept any more."""

    id = "gone"


STATUSES: tuple[tuple[type[OutliveError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (PackageMissing, HTTPStatus.NOT_FOUND),
    (ComponentMissing, HTTPStatus.NOT_FOUND),
    (DepotFailed, HTTPStatus.SERVICE_UNAVAILABLE),
    (DependencyConflict, HTTPStatus.CONFLICT),
    (DependencyCycle, HTTPStatus.CONFLICT),
    (Gone, HTTPStatus.GONE),
    (NotRunning, HTTPStatus.CONFLICT),
    (ClusterUnreachable, HTTPStatus.SERVICE_UNAVAILABLE),
    (RefusedForSafety, HTTPStatus.CONFLICT),
    (UsageInvalid, HTTPStatus.UNPROCESSABLE_ENTITY),
)


class Encoded(JSONResponse):
    """JSON made by msgspec, which knows dataclasses and enums."""

    def render(self, content: object) -> bytes:
        return msgspec.json.encode(content)


def status_of(error: OutliveError) -> HTTPStatus:
    """The status that an error is answered with: one that is known is no mistake of ours, but of what was to do it."""
    found = (status for kind, status in STATUSES if isinstance(error, kind))
    return next(found, HTTPStatus.BAD_GATEWAY)


async def on_outlive_error(request: Request, error: Exception) -> Response:
    """Answer with the error's problem object."""
    assert isinstance(error, OutliveError)
    status = status_of(error)
    headers = {"Retry-After": RETRY_AFTER_S} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Encoded(error.problem(), status, headers, media_type="application/problem+json")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework itself refuses (no such path, no such method) in the same form."""
    assert isinstance(error, HTTPException)
    problem = Failed(f"{request.method} {request.scope['path']} cannot be had.", cause=error.detail, id="http.refused")
    headers = dict(error.headers or {})  # such as Allow, which tells the methods that there are
    return Encoded(problem.problem(), error.status_code, headers, media_type="application/problem+json")


async def on_mistake(request: Request, error: Exception) -> Response:
    """Answer in the same form also where we made a mistake; the agent's log has the rest."""
    problem = Failed(
        f"Outlive made a mistake of its own: {type(error).__name__}.",
        cause=str(error),
        remedy="report it, with what the agent's log says at this time",
        id="internal",
    )
    return Encoded(problem.problem(), status_code=500, media_type="application/problem+json")
