"""The API's paths of operations: long actions that are asked for, followed and cancelled."""

import asyncio
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.cluster.workload import Protection

from . import answers, wishes
from .bodies import DryRunOnly, body, decoded
from .checkpoints import Checkpoints, checked_checkpoint, checked_label
from .declaring import query, route
from .machine_wishes import ABOUT_CHECKPOINTS
from .paging import Page, ascending
from .problems import Encoded, NotFound
from .view import View

MOST_WAIT_S = 30.0


class Waiting(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long an answer may wait."""

    wait_s: Annotated[
        float, msgspec.Meta(ge=0, description="Answer when it has ended, or after so many seconds (30 at most).")
    ] = 0.0


class Operate(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for. checkpoint: which to make or to resume from; '' for a name of its own, or the newest.

    target: the host to move to; null for the best other host.
    """

    kind: rec.OperationKind
    workload: str
    target: str | None = None
    checkpoint: str = ""

    def __post_init__(self) -> None:
        if self.checkpoint and self.kind not in ABOUT_CHECKPOINTS:
            raise ValueError(f"a {self.kind} has no checkpoint")
        if self.target is not None and self.kind is rec.OperationKind.CHECKPOINT:
            raise ValueError("a checkpoint has no target: it is made where the machine runs")


class Operations:
    """The handlers, around one agent's view."""

    def __init__(self, view: View, checkpoints: Checkpoints) -> None:
        self.view = view
        self._checkpoints = checkpoints

    @route("GET", "/v1/operations", answers.Operations, query=Page)
    async def operations(self, request: Request) -> Response:
        """All operations that are kept, the running ones and the last that ended, in pages."""
        kept = self.view.mirror.operations
        names, after = ascending("operations", kept, query(request, Page))
        told: answers.Operations = {"operations": [kept[name].record for name in names], "next": after}
        return Encoded(told)

    @route("POST", "/v1/operations", answers.Asked, statuses=(200, 202), query=DryRunOnly, body=Operate,
           problems=(404,))  # fmt: skip
    async def operate(self, request: Request) -> Response:
        """Ask for a migration, a failover, a checkpoint, or to go on from one. A dry run is answered with 200."""
        asked = decoded(await body(request), Operate)
        checkpoint, dry_run = asked.checkpoint, query(request, DryRunOnly).dry_run
        if checkpoint and asked.kind is rec.OperationKind.CHECKPOINT:
            checkpoint = checked_label(checkpoint)
        elif checkpoint:
            checkpoint = checked_checkpoint(checkpoint)
        if asked.kind is rec.OperationKind.RESUME and self._keeps_checkpoints(asked.workload):
            checkpoint = await self._checkpoints.to_resume(asked.workload, checkpoint)
        result = await wishes.operate(
            self.view, asked.kind, asked.workload, asked.target, checkpoint=checkpoint, dry_run=dry_run
        )
        return Encoded(result, status_code=200 if dry_run else 202)

    def _keeps_checkpoints(self, name: str) -> bool:
        """What keeps none is refused by the leader, with its reason."""
        entry = self.view.mirror.workloads.get(name)
        return entry is not None and entry.record.workload.protection is Protection.WARM

    @route("DELETE", "/v1/operations/{id}", answers.Asked, query=DryRunOnly, problems=(404,))
    async def cancel(self, request: Request) -> Response:
        """Cancel an operation that can still be taken back."""
        name, dry_run = request.path_params["id"], query(request, DryRunOnly).dry_run
        return Encoded(await wishes.cancel(self.view, name, dry_run=dry_run))

    @route("GET", "/v1/operations/{id}", rec.OperationRecord, query=Waiting, problems=(404,))
    async def operation(self, request: Request) -> Response:
        """One operation, now or once it has ended."""
        name = request.path_params["id"]
        deadline = self.view.now() + min(MOST_WAIT_S, query(request, Waiting).wait_s)
        while True:
            entry = self.view.mirror.operations.get(name)
            ended = entry is not None and entry.record.state in rec.ENDED
            if ended or self.view.now() >= deadline:
                break
            await asyncio.sleep(0.05)
        if entry is None:
            raise NotFound(f"There is no operation {name[:80]}.")
        return Encoded(entry.record)
