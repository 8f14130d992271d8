"""The API's paths, and what each answers.

Nouns are plural; long actions are operations; what can be followed is a stream. Handlers read the agent's view and
hand wishes to `wishes`; the command line has no other way in.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from outlive import __version__
from outlive.cluster import outlook
from outlive.cluster import records as rec
from outlive.cluster.workload import Protection
from outlive.config.workload_file import parse_workload
from outlive.errors import OutliveError, UsageInvalid

from . import streams, wishes
from .bodies import body, decoded, flag, number
from .checkpoints import Checkpoints, checked_checkpoint, checked_label
from .following import Following
from .machine_wishes import ABOUT_CHECKPOINTS
from .machines import Machines
from .networks import Networks
from .policies import PoliciesApi
from .problems import Encoded, NotFound, on_http_exception, on_mistake, on_outlive_error
from .view import View

MOST_WAIT_S = 30.0


def application(view: View, *, peers_only: bool = False) -> Starlette:
    """The API of one agent. peers_only: just what other agents need of this host, for the TLS port."""
    machines, checkpoints = Machines(view), Checkpoints(view)
    api = Api(view, checkpoints)
    shared = [
        Route("/healthz", api.health),
        Route("/v1/hosts/{name}/logs/{workload}", api.host_logs),
        *machines.host_routes(),
        *checkpoints.host_routes(),
    ]
    local = [
        Route("/v1/cluster", api.cluster),
        Route("/v1/hosts", api.hosts),
        Route("/v1/hosts/{name}", api.host),
        Route("/v1/workloads", api.workloads),
        Route("/v1/workloads/{name}", api.workload, methods=["GET"]),
        Route("/v1/workloads/{name}", api.apply, methods=["PUT"]),
        Route("/v1/workloads/{name}", api.remove, methods=["DELETE"]),
        Route("/v1/workloads/{name}/desired", api.desire, methods=["PUT"]),
        Route("/v1/workloads/{name}/why", api.why),
        Route("/v1/workloads/{name}/logs", api.logs),
        Route("/v1/operations", api.operations, methods=["GET"]),
        Route("/v1/operations", api.operate, methods=["POST"]),
        Route("/v1/operations/{id}", api.operation, methods=["GET"]),
        Route("/v1/operations/{id}", api.cancel, methods=["DELETE"]),
        Route("/v1/events", api.events),
        *Networks(view).routes(),
        *PoliciesApi(view).routes(),
        *machines.routes(),
        *checkpoints.routes(),
    ]
    handlers: dict[Any, Any] = {
        OutliveError: on_outlive_error,
        HTTPException: on_http_exception,
        Exception: on_mistake,
    }
    app = Starlette(routes=shared if peers_only else shared + local, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class Api:
    """The handlers, around one agent's view."""

    def __init__(self, view: View, checkpoints: Checkpoints) -> None:
        self.view = view
        self._checkpoints = checkpoints
        self._following = Following(view)

    async def health(self, request: Request) -> Response:
        """Alive, and which host and version this is."""
        return Encoded({"host": self.view.host, "version": __version__, "store_reachable": self.view.store_reachable})

    def _look(self) -> outlook.Outlook:
        return outlook.look(self.view.mirror, store_reachable=self.view.store_reachable, at=self.view.now())

    async def cluster(self, request: Request) -> Response:
        """Everything, with the verdict that `outlive status` ends with."""
        return Encoded({"host": self.view.host, "revision": self.view.mirror.revision, "outlook": self._look()})

    async def hosts(self, request: Request) -> Response:
        """All hosts."""
        return Encoded({"hosts": self._look().hosts})

    async def host(self, request: Request) -> Response:
        """One host."""
        return Encoded(self._one(self._look().hosts, request, "host"))

    async def workloads(self, request: Request) -> Response:
        """All workloads."""
        return Encoded({"workloads": self._look().workloads})

    async def workload(self, request: Request) -> Response:
        """One workload: how it stands, what was asked, where it is placed and what its host reports.

        Of a machine also how it and its replica stand, as the host where it runs tells within a second.
        """
        stands = self._one(self._look().workloads, request, "workload")
        name, picture = stands.name, self.view.mirror
        placed, report = picture.placements.get(name), picture.reports.get(name)
        return Encoded(
            {
                "outlook": stands,
                "record": picture.workloads[name].record,
                "placement": placed.record if placed else None,
                "report": report.record if report else None,
                **await self._following.of(name),
            }
        )

    @staticmethod
    def _one(things: tuple[Any, ...], request: Request, what: str) -> Any:
        name = request.path_params["name"]
        for thing in things:
            if thing.name == name:
                return thing
        raise NotFound(f"There is no {what} {name}.", remedy="see `outlive ps` and `outlive status`")

    async def apply(self, request: Request) -> Response:
        """Take a workload file (TOML, as it is on disk) and have the cluster keep what it says."""
        source = request.query_params.get("source", "request")
        workload = parse_workload(await body(request), source)
        if workload.name != request.path_params["name"]:
            raise UsageInvalid(f"{source} describes {workload.name}, not {request.path_params['name']}.")
        return Encoded(await wishes.apply(self.view, workload, dry_run=flag(request, "dry_run")))

    async def remove(self, request: Request) -> Response:
        """Stop a workload and forget it."""
        name = request.path_params["name"]
        return Encoded(await wishes.desire(self.view, name, rec.Desired.REMOVED, dry_run=flag(request, "dry_run")))

    async def desire(self, request: Request) -> Response:
        """Have a workload run or be stopped: the body is {"desired": "running" | "stopped"}."""
        asked = decoded(await body(request), _Desire)
        name = request.path_params["name"]
        desired = rec.Desired(asked.desired)
        return Encoded(await wishes.desire(self.view, name, desired, dry_run=flag(request, "dry_run")))

    async def operations(self, request: Request) -> Response:
        """All operations that are kept, the running ones and the last that ended."""
        return Encoded({"operations": [entry.record for _, entry in sorted(self.view.mirror.operations.items())]})

    async def operate(self, request: Request) -> Response:
        """Ask for a migration, a failover, a checkpoint, or to go on from one."""
        asked = decoded(await body(request), _Operate)
        kind, checkpoint, dry_run = rec.OperationKind(asked.kind), asked.checkpoint, flag(request, "dry_run")
        if checkpoint and kind is rec.OperationKind.CHECKPOINT:
            checkpoint = checked_label(checkpoint)
        elif checkpoint:
            checkpoint = checked_checkpoint(checkpoint)
        if kind is rec.OperationKind.RESUME and self._keeps_checkpoints(asked.workload):
            checkpoint = await self._checkpoints.to_resume(asked.workload, checkpoint)
        result = await wishes.operate(
            self.view, kind, asked.workload, asked.target, checkpoint=checkpoint, dry_run=dry_run
        )
        return Encoded(result, status_code=200 if dry_run else 202)

    def _keeps_checkpoints(self, name: str) -> bool:
        """What keeps none is refused by the leader, with its reason."""
        entry = self.view.mirror.workloads.get(name)
        return entry is not None and entry.record.workload.protection is Protection.WARM

    async def cancel(self, request: Request) -> Response:
        """Cancel an operation that can still be taken back."""
        name = request.path_params["id"]
        return Encoded(await wishes.cancel(self.view, name, dry_run=flag(request, "dry_run")))

    async def operation(self, request: Request) -> Response:
        """One operation; with ?wait_s=N the answer comes when it has ended, or after that time."""
        name = request.path_params["id"]
        wait_s = min(MOST_WAIT_S, number(request, "wait_s", 0.0))
        deadline = self.view.now() + wait_s
        while True:
            entry = self.view.mirror.operations.get(name)
            ended = entry is not None and entry.record.state in rec.ENDED
            if ended or self.view.now() >= deadline:
                break
            await asyncio.sleep(0.05)
        if entry is None:
            raise NotFound(f"There is no operation {name}.")
        return Encoded(entry.record)

    async def events(self, request: Request) -> Response:
        """What happened. As text/event-stream it goes on, from after Last-Event-ID or the ?last=N; else a list."""
        if "text/event-stream" in request.headers.get("accept", ""):
            given = request.headers.get("last-event-id") or request.query_params.get("after")
            after = streams.mark(given)
            if not given and "last" in request.query_params:
                after = streams.last(self.view, int(number(request, "last", 0)))
            return StreamingResponse(streams.events(self.view, after), media_type="text/event-stream")
        found = self.view.book.happened()
        for field in ("workload", "host"):
            if wanted := request.query_params.get(field):
                found = [event for event in found if getattr(event, field) == wanted]
        return Encoded({"events": found[-max(1, int(number(request, "limit", 100))) :]})

    async def why(self, request: Request) -> Response:
        """The chain of causes that led to a workload's last change, the first cause first."""
        name = request.path_params["name"]
        happened = self.view.book.happened()
        about = [event for event in happened if event.workload == name]
        if not about:
            raise NotFound(f"Nothing is recorded of a workload {name}.", remedy="see `outlive ps`")
        return Encoded({"workload": name, "chain": streams.chain(about[-1], {event.id: event for event in happened})})

    async def host_logs(self, request: Request) -> Response:
        """This host's own lines of a workload."""
        name = request.path_params["name"]
        if name != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {name}.")
        modules, lines, follow = _log_options(request)
        found = self.view.log_lines(request.path_params["workload"], modules, lines, follow)
        return StreamingResponse(found, media_type="application/x-ndjson")

    async def logs(self, request: Request) -> Response:
        """A workload's lines from all hosts; followed, they go on wherever it goes."""
        name = request.path_params["name"]
        if name not in self.view.mirror.workloads:
            raise NotFound(f"There is no workload {name}.", remedy="see `outlive ps`")
        modules, lines, follow = _log_options(request)
        found: AsyncIterator[bytes] = streams.logs(self.view, name, modules, lines, follow)
        return StreamingResponse(found, media_type="application/x-ndjson")


class _Desire(msgspec.Struct, forbid_unknown_fields=True):
    desired: str

    def __post_init__(self) -> None:
        if self.desired not in ("running", "stopped"):
            raise ValueError("desired is running or stopped")


class _Operate(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    workload: str
    target: str | None = None
    checkpoint: str = ""

    def __post_init__(self) -> None:
        if self.kind not in tuple(rec.OperationKind):
            raise ValueError("kind is migrate, failover, checkpoint or resume")
        if self.checkpoint and self.kind not in ABOUT_CHECKPOINTS:
            raise ValueError(f"a {self.kind} has no checkpoint")
        if self.target is not None and self.kind == rec.OperationKind.CHECKPOINT:
            raise ValueError("a checkpoint has no target: it is made where the machine runs")


def _log_options(request: Request) -> tuple[list[str], int, bool]:
    modules = [name for name in request.query_params.get("modules", "").split(",") if name]
    lines = int(number(request, "lines", 100))
    return modules, lines, flag(request, "follow")
