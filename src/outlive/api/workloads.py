"""The API's paths of workloads: how they stand, and what is wished of them.

Wishes are written by `wishes`; nothing is decided here.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from outlive.cluster import outlook
from outlive.cluster import records as rec
from outlive.config.workload_file import parse_workload
from outlive.errors import UsageInvalid

from . import answers, wishes
from .bodies import DryRun, DryRunOnly, body, decoded, etag, if_revision
from .choosing import Wishes
from .declaring import NDJSON, TOML, query, route
from .following import Following
from .logs import LogOptions, logs
from .paging import Page, ascending
from .problems import Encoded, NotFound
from .view import View

Force = Annotated[bool, msgspec.Meta(description="Also when fewer hosts could be lost then than the policy asks for.")]


class Apply(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a file is applied."""

    dry_run: DryRun = False
    force: Force = False
    source: Annotated[str, msgspec.Meta(description="What the file is called in its mistakes.")] = "request"
    upgrade: Annotated[
        bool, msgspec.Meta(description="Take the newest versions of its packages that the file allows.")
    ] = False
    retry_failed: Annotated[
        bool, msgspec.Meta(description="Try a version of its package again that was given up before.")
    ] = False


class Start(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a workload is started or stopped."""

    dry_run: DryRun = False
    force: Force = False


class Desire(msgspec.Struct, forbid_unknown_fields=True):
    """What a workload shall be."""

    desired: Literal["running", "stopped"]


class Workloads:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._following = Following(view)

    @route("GET", "/v1/workloads", answers.Workloads, query=Page)
    async def workloads(self, request: Request) -> Response:
        """All workloads, in pages."""
        picture = self.view.mirror
        names, after = ascending("workloads", picture.workloads, query(request, Page))
        found = outlook.of_workloads(picture, names, store_reachable=self.view.store_reachable)
        told: answers.Workloads = {"workloads": list(found), "next": after}
        return Encoded(told)

    @route("GET", "/v1/workloads/{name}", answers.OneWorkload, problems=(404,))
    async def workload(self, request: Request) -> Response:
        """One workload: how it stands, what was asked, where it is placed and what its host reports.

        Of a machine also how it and its replica stand, as the host where it runs tells within a second.
        """
        name, picture = request.path_params["name"], self.view.mirror
        self._check(name)
        [stands] = outlook.of_workloads(picture, [name], store_reachable=self.view.store_reachable)
        placed, report = picture.placements.get(name), picture.reports.get(name)
        told: answers.OneWorkload = {
            "outlook": stands,
            "record": picture.workloads[name].record,
            "placement": placed.record if placed else None,
            "report": report.record if report else None,
        }
        return Encoded({**told, **await self._following.of(name)}, headers=etag(stands.revision))

    @route(
        "PUT",
        "/v1/workloads/{name}",
        answers.Changed,
        query=Apply,
        body=bytes,
        takes=TOML,
        problems=(404,),
        matches=True,
    )
    async def apply(self, request: Request) -> Response:
        """Take a workload file (TOML, as it is on disk) and have the cluster keep what it says."""
        asked = query(request, Apply)
        workload = parse_workload(await body(request), asked.source)
        if workload.name != request.path_params["name"]:
            raise UsageInvalid(f"{asked.source} describes {workload.name}, not {request.path_params['name'][:80]}.")
        changed = await wishes.apply(
            self.view,
            workload,
            dry_run=asked.dry_run,
            if_revision=if_revision(request),
            force=asked.force,
            packages=Wishes(asked.upgrade or asked.retry_failed, asked.retry_failed),
        )
        return self._changed(changed)

    @route("DELETE", "/v1/workloads/{name}", answers.Changed, query=DryRunOnly, problems=(404,), matches=True)
    async def remove(self, request: Request) -> Response:
        """Stop a workload and forget it."""
        name, dry_run = request.path_params["name"], query(request, DryRunOnly).dry_run
        at = if_revision(request)
        return self._changed(await wishes.desire(self.view, name, rec.Desired.REMOVED, dry_run=dry_run, if_revision=at))

    @route(
        "PUT",
        "/v1/workloads/{name}/desired",
        answers.Changed,
        query=Start,
        body=Desire,
        problems=(404,),
        matches=True,
    )
    async def desire(self, request: Request) -> Response:
        """Have a workload run or be stopped."""
        asked, how = decoded(await body(request), Desire), query(request, Start)
        name, desired, at = request.path_params["name"], rec.Desired(asked.desired), if_revision(request)
        return self._changed(
            await wishes.desire(self.view, name, desired, dry_run=how.dry_run, if_revision=at, force=how.force)
        )

    @route("GET", "/v1/workloads/{name}/logs", media=NDJSON, query=LogOptions, problems=(404,), streams=True)
    async def logs(self, request: Request) -> Response:
        """A workload's lines from all hosts; followed, they go on wherever it goes."""
        name, asked = request.path_params["name"], query(request, LogOptions)
        self._check(name)
        found: AsyncIterator[bytes] = logs(self.view, name, asked.names(), asked.lines, asked.follow)
        return StreamingResponse(found, media_type=NDJSON)

    @staticmethod
    def _changed(told: answers.Changed) -> Response:
        return Encoded(told, headers=etag(told["revision"]) if "revision" in told else None)

    def _check(self, name: str) -> None:
        if name not in self.view.mirror.workloads:
            raise NotFound(f"There is no workload {name[:80]}.", remedy="see `outlive ps`")
