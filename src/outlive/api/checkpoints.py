"""The API's paths of checkpoints: list them, verify them, and what has to be known before one is gone on from.

Any agent answers whose host reaches the datastore they are on; one that does not asks another. Nothing is changed
here: checkpoints are made, kept in order and gone on from by the machine's own host.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.cluster.machine_rules import datastores_of
from outlive.cluster.workload import Protection, Workload
from outlive.errors import ClusterUnreachable, OutliveError, RefusedForSafety, UsageInvalid, from_problem

from . import answers, relaying
from .declaring import NDJSON, query, route
from .paging import Page, backwards
from .problems import Encoded, NotFound
from .relaying import Piecewise
from .view import Looks, View

MOST_LIST_BYTES = 16 * 1024 * 1024
LISTED_S = 35.0
VERIFY_BEGUN_S = 30.0
LOOKED_AT_S = 25.0
"""How long a checkpoint is looked at before it is gone on from; its host looks at all of it once more."""
MOST_HOSTS_ASKED = 3
WHOLE = b"{}"
"""The last line of what one agent tells another: nothing is missing."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,200}")
_FOLDER = re.compile(r"g[0-9]{20}-[0-9]{10}")


class Missing(NotFound):
    """There is no checkpoint of that name, or none at all."""

    id = "checkpoint.missing"


class Unlike(RefusedForSafety):
    """A checkpoint was taken on hardware that the machine does not have any more."""

    id = "checkpoint.hardware"


class Damaged(RefusedForSafety):
    """What stands in a checkpoint is not what was written there, so it is not gone on from."""

    id = "checkpoint.damaged"


def checked_checkpoint(text: str) -> str:
    """The name of a checkpoint, or its label. Raises UsageInvalid for what can be neither."""
    if _NAME.fullmatch(text):
        return text
    raise UsageInvalid(
        f"{text[:80]!r} cannot name a checkpoint.",
        cause="a name has up to 201 letters, digits and . _ : @ + -, and begins with a letter, a digit or '_'",
        remedy="see `outlive checkpoints NAME`",
    )


def checked_label(text: str) -> str:
    """What a new checkpoint may be called. Raises UsageInvalid."""
    if _FOLDER.fullmatch(text):
        raise UsageInvalid(f"{text} is what a checkpoint is called by itself.", remedy="choose another name")
    return checked_checkpoint(text)


class Which(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which checkpoints are looked at."""

    checkpoint: Annotated[str, msgspec.Meta(description="Its name or label; '' for all.")] = ""


class Checkpoints:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/workloads/{name}/checkpoints", answers.Checkpoints, query=Page, problems=(404,))
    async def all(self, request: Request) -> Response:
        """A workload's checkpoints, the newest first, in pages."""
        listed = await self.listed(request.path_params["name"])
        found = {each["name"]: each for each in listed["checkpoints"]}
        names, before = backwards("checkpoints", sorted(found), query(request, Page))
        return Encoded({**listed, "checkpoints": [found[name] for name in reversed(names)], "next": before})

    @route("GET", "/v1/workloads/{name}/checkpoints/verify", media=NDJSON, query=Which, problems=(404,), streams=True)
    async def verify(self, request: Request) -> Response:
        """Read all checkpoints, or ?checkpoint=NAME, to the last byte: lines of progress, and of what was found."""
        found = await self.looked_at(request.path_params["name"], _checkpoint(request))
        return Piecewise(_lines(found), _nothing, {}, NDJSON)

    @route(
        "GET",
        "/v1/hosts/{host}/machines/{workload}/checkpoints",
        answers.OwnCheckpoints,
        problems=(404,),
        to_peers=True,
    )
    async def own_list(self, request: Request) -> Response:
        """The same, as this host reads them."""
        workload, on = self._own(request)
        return Encoded(await self._listed(workload, on) if on else _no_list(workload.name))

    @route(
        "GET",
        "/v1/hosts/{host}/machines/{workload}/checkpoints/verify",
        media=NDJSON,
        query=Which,
        problems=(404,),
        to_peers=True,
        streams=True,
    )
    async def own_verify(self, request: Request) -> Response:
        """The same, as this host reads them; the last line says that nothing is missing."""
        workload, on = self._own(request)
        checkpoint = _checkpoint(request)
        found = await self._looked_at(workload.name, on, checkpoint) if on else _none()
        return Piecewise(_lines(found, WHOLE + b"\n"), _nothing, {}, NDJSON)

    async def listed(self, name: str) -> dict[str, Any]:
        """A workload's checkpoints, the newest first, as `{workload, on, checkpoints}`. Raises an OutliveError."""
        workload = self._workload(name)
        on = _datastore_of(workload)
        if on is None:
            return _no_list(name)
        if self.view.local.reaches(on):
            return await self._listed(workload, on)
        last: OutliveError = _unreached(on)
        for host in self._hosts_with(on, name):
            try:
                answer = await relaying.whole(
                    self.view, host, "GET", _path(host, name), most_bytes=MOST_LIST_BYTES, within_s=LISTED_S
                )
                told = relaying.told(bytes(answer.body), dict[str, Any])
            except ClusterUnreachable as error:
                last = error
                continue
            if answer.status_code == 200:
                return told
            last = from_problem(told)
        raise last

    async def looked_at(self, name: str, checkpoint: str) -> Looks:
        """Look at all checkpoints or one; Missing when it is not there. Raises an OutliveError."""
        on = _datastore_of(self._workload(name))
        if on is None:
            return _none()
        if self.view.local.reaches(on):
            return await self._looked_at(name, on, checkpoint)
        last: OutliveError = _unreached(on)
        for host in self._hosts_with(on, name):
            path = f"{_path(host, name)}/verify?checkpoint={quote(checkpoint, safe='')}"
            try:
                answer = await self.view.ask_peer(host, "GET", path, answer_s=VERIFY_BEGUN_S)
                if answer.status == 200:
                    return _decoded(relaying.lines(answer, WHOLE))
                problem = await relaying.refusal(answer)
                told = relaying.told(bytes(problem.body), dict[str, Any])
            except ClusterUnreachable as error:
                last = error
                continue
            if answer.status == 404:
                raise _missing(name, checkpoint)
            last = from_problem(told)
        raise last

    async def to_resume(self, name: str, checkpoint: str) -> str:
        """The checkpoint that a machine may be resumed from: the one named, or the newest whole one.

        It is looked at for a while, before anything is changed. Raises Missing, Unlike or Damaged.
        """
        listed = (await self.listed(name))["checkpoints"]
        if checkpoint:
            named = [each for each in listed if checkpoint in (each["name"], each["label"])][:1]
            if not named:
                raise _missing(name, checkpoint)
            if differs := self._differs(name, named[0], listed[0]):
                raise Unlike(
                    f"Checkpoint {checkpoint} of {name} was taken on other hardware, and {name} goes on as it is.",
                    cause=differs, remedy="apply the file that the machine had then, and resume it after that",
                )  # fmt: skip
            if problem := await self._problem(name, named[0], LOOKED_AT_S):
                raise Damaged(
                    f"Checkpoint {checkpoint} of {name} is damaged, and {name} goes on as it is.", cause=problem,
                    remedy=f"find a whole one: outlive verify {name}",
                )  # fmt: skip
            return checkpoint
        begun_at, problem = self.view.now(), ""
        for each in listed:
            if problem := self._differs(name, each, listed[0]):
                continue
            left_s = LOOKED_AT_S - (self.view.now() - begun_at)
            if not (problem := await self._problem(name, each, left_s)):
                return str(each["name"])
        raise Missing(
            f"{name} has no checkpoint that it could go on from.",
            cause=problem,
            remedy=f"make one with `outlive checkpoint {name}`",
        )

    def _differs(self, name: str, one: dict[str, Any], newest: dict[str, Any]) -> str:
        """How its hardware differs from the machine's, as far as a checkpoint of its present reign tells."""
        placed = self.view.mirror.placements.get(name)
        present = placed is not None and placed.record.generation == newest["generation"]
        return str(one["differs"]) if present else ""

    async def _problem(self, name: str, listed: dict[str, Any], within_s: float) -> str:
        """What is wrong with a checkpoint, as far as can be seen in that time; '' for nothing."""
        if listed["problem"]:
            return str(listed["problem"])
        try:
            async with asyncio.timeout(max(0.0, within_s)), aclosing(_while(self, name, listed["name"])) as found:
                async for told in found:
                    if "whole" in told:
                        return str(told["problem"])
        except TimeoutError:
            return ""
        return "it is gone"

    async def _listed(self, workload: Workload, on: str) -> dict[str, Any]:
        found = await self.view.local.checkpoints(on, workload.name)
        return {"workload": workload.name, "on": on if workload.protection is Protection.WARM else "",
                "checkpoints": found}  # fmt: skip

    async def _looked_at(self, name: str, on: str, checkpoint: str) -> Looks:
        found = await self.view.local.verify(on, name, checkpoint)
        if found is None:
            raise _missing(name, checkpoint)
        return found

    def _workload(self, name: str) -> Workload:
        entry = self.view.mirror.workloads.get(name)
        if entry is None:
            raise NotFound(f"There is no workload {name[:80]}.", remedy="see `outlive ps`")
        return entry.record.workload

    def _own(self, request: Request) -> tuple[Workload, str]:
        """Which workload's are asked for, and where they are; '' for what can have none. Raises an OutliveError."""
        host, name = request.path_params["host"], request.path_params["workload"]
        if host != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {host[:80]}.")
        workload = self._workload(name)
        on = _datastore_of(workload)
        if on is not None and not self.view.local.reaches(on):
            raise _unreached(on)
        return workload, on or ""

    def _hosts_with(self, datastore: str, name: str) -> tuple[str, ...]:
        """The hosts that should reach a datastore, its machine's own first."""
        picture = self.view.mirror
        placed = picture.placements.get(name)
        found = [
            host
            for host, entry in sorted(picture.hosts.items())
            if datastore in entry.record.datastores and host != self.view.host
            and (verdict := picture.verdicts.get(host)) is not None and verdict.record.verdict is rec.Verdict.ALIVE
        ]  # fmt: skip
        found.sort(key=lambda host: placed is None or placed.record.host != host)
        return tuple(found[:MOST_HOSTS_ASKED])


async def _while(checkpoints: Checkpoints, name: str, checkpoint: str) -> Looks:
    async with aclosing(await checkpoints.looked_at(name, checkpoint)) as found:
        async for told in found:
            yield told


async def _decoded(found: AsyncGenerator[bytes, None]) -> Looks:
    async with aclosing(found):
        async for line in found:
            yield relaying.told(line, dict[str, Any])


async def _lines(found: Looks, last: bytes = b"") -> AsyncGenerator[bytes, None]:
    async with aclosing(found):
        async for told in found:
            yield msgspec.json.encode(told) + b"\n"
    if last:
        yield last


def _no_list(name: str) -> dict[str, Any]:
    return {"workload": name, "on": "", "checkpoints": []}


async def _none() -> Looks:
    nothing: tuple[dict[str, Any], ...] = ()
    for each in nothing:
        yield each


async def _nothing() -> None:
    """Nothing is left to end: what looks at checkpoints ends with its reader."""


def _checkpoint(request: Request) -> str:
    text = query(request, Which).checkpoint
    return checked_checkpoint(text) if text else ""


def _datastore_of(workload: Workload) -> str | None:
    """The datastore that a machine's checkpoints are, or were, on; None for what can have none."""
    if workload.machine is None:
        return None
    return workload.warm.on or next(iter(datastores_of(workload)), None)


def _path(host: str, name: str) -> str:
    return f"/v1/hosts/{quote(host, safe='')}/machines/{quote(name, safe='')}/checkpoints"


def _missing(name: str, checkpoint: str) -> Missing:
    return Missing(f"{name} has no checkpoint {checkpoint[:80]}.", remedy=f"list them: outlive checkpoints {name}")


def _unreached(datastore: str) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"No host that answers reaches the datastore {datastore}.", remedy="see `outlive status` and `outlive doctor`"
    )
