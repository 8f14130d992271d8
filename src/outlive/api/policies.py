"""The API's paths of what holds for the whole cluster: its policies, and whether it is frozen.

All of it is one record in the store. What cannot be is refused before it is written, and each change is one
compare-and-swap on what the agent's picture shows, tried again a few times when somebody else was faster.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.cluster.fence import EndProof
from outlive.cluster.policies import MOST_TEXT, AdmissionMode, Freeze, Policies, problem_with, told
from outlive.cluster.transaction import Put, Transaction, unchanged
from outlive.cluster.workload import OnIsolation
from outlive.errors import UsageInvalid

from . import answers, once
from .bodies import DryRunOnly, body, decoded
from .deciding import commands_for
from .declaring import query, route
from .problems import Conflict, Encoded
from .view import View
from .wishes import RETRY_PAUSE_S, TRIES, seen


class AdmissionWish(msgspec.Struct, forbid_unknown_fields=True):
    """How much must be kept free; what is left out stays."""

    can_lose_hosts: int | None = None
    mode: AdmissionMode | None = None


class PoliciesWish(msgspec.Struct, forbid_unknown_fields=True):
    """What shall hold for the whole cluster; what is left out stays."""

    admission: AdmissionWish | None = None
    restarts_per_host: int | None = None
    moves_per_host: int | None = None
    retry_minutes: tuple[float, ...] | None = None
    begin_within_s: float | None = None
    host_deaths: int | None = None
    host_deaths_minutes: float | None = None
    proof_of_end: EndProof | None = None
    on_isolation: OnIsolation | None = None


class FreezeWish(msgspec.Struct, forbid_unknown_fields=True):
    """Why nothing shall be done by itself, and who wishes it."""

    reason: str = ""
    by: str = ""


class PoliciesApi:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/policies", answers.PoliciesShown)
    async def show(self, request: Request) -> Response:
        """The policies that hold; revision 0: nobody has set any, and these are the defaults."""
        stands = self.view.mirror.policies
        problem = self.view.mirror.bad.get(rec.POLICIES, (0, ""))[1]
        return Encoded({"policies": stands.record, "revision": stands.mod_revision, "problem": problem})

    @route("PUT", "/v1/policies", answers.PoliciesChanged, query=DryRunOnly, body=PoliciesWish)
    async def change(self, request: Request) -> Response:
        """Change what the body names, and leave the rest."""
        asked = decoded(await body(request), PoliciesWish)

        def change(stands: Policies) -> Policies:
            wanted = _merged(stands, asked)
            if problem := problem_with(wanted):
                raise UsageInvalid("The policies cannot be so.", cause=problem)
            return wanted

        return Encoded(
            await self._swap("policies.changed", change, _difference, dry_run=query(request, DryRunOnly).dry_run)
        )

    @route("PUT", "/v1/policies/frozen", answers.PoliciesChanged, query=DryRunOnly, body=FreezeWish)
    async def freeze(self, request: Request) -> Response:
        """Have nothing done that nobody asked for; the body may have a reason, and who wishes it."""
        asked = decoded(await body(request), FreezeWish)
        if max(len(asked.reason), len(asked.by)) > MOST_TEXT:
            raise UsageInvalid(f"A reason has at most {MOST_TEXT} characters.")

        def change(stands: Policies) -> Policies:
            by = f"{asked.by or 'somebody'} on {self.view.host}"
            known = stands.frozen
            return stands if known is not None else replace(stands, frozen=Freeze(by, asked.reason))

        told_as: Callable[[Policies, Policies], str] = lambda _, wanted: _frozen(wanted)  # noqa: E731
        return Encoded(await self._swap("cluster.frozen", change, told_as, dry_run=query(request, DryRunOnly).dry_run))

    @route("DELETE", "/v1/policies/frozen", answers.PoliciesChanged, query=DryRunOnly)
    async def unfreeze(self, request: Request) -> Response:
        """Let the cluster act by itself again; what it has missed happens now."""
        told_as: Callable[[Policies, Policies], str] = lambda stands, _: f"it was {_frozen(stands)}"  # noqa: E731
        return Encoded(
            await self._swap(
                "cluster.unfrozen",
                lambda stands: replace(stands, frozen=None),
                told_as,
                dry_run=query(request, DryRunOnly).dry_run,
            )
        )

    async def _swap(
        self,
        kind: str,
        change: Callable[[Policies], Policies],
        text: Callable[[Policies, Policies], str],
        *,
        dry_run: bool,
    ) -> answers.PoliciesChanged:
        view, key = self.view, rec.POLICIES
        for _ in range(TRIES):
            stands, bad = view.mirror.policies, view.mirror.bad.get(key)
            wanted = change(stands.record)
            # One that cannot be read is written again also when it says what was wanted.
            if wanted == stands.record and bad is None:
                return {"policies": wanted, "changed": False}
            if dry_run:
                commands = await commands_for(view, key, rec.encode(wanted))
                return {"policies": wanted, "changed": True, "commands": commands}
            event = view.record(kind, text=text(stands.record, wanted))
            if wanted.frozen is not None and stands.record.frozen is None:
                wanted = replace(wanted, frozen=replace(wanted.frozen, since_unix_ms=event.unix_ms, because=event.id))
            compare = unchanged(key, bad[0] if bad is not None else stands.mod_revision)
            told: answers.PoliciesChanged = {"policies": wanted, "changed": True, "event": event.id, "revision": 0}
            done = await once.transact(view, Transaction((compare,), (Put(key, rec.encode(wanted)),)), told)
            if done.succeeded:
                await seen(view, done.revision)
                return {**told, "revision": done.revision}
            await asyncio.sleep(RETRY_PAUSE_S)
        raise Conflict("The policies were changed by others each time it was tried.", remedy="look, and try again")


def _merged(stands: Policies, asked: PoliciesWish) -> Policies:
    given = {name: getattr(asked, name) for name in asked.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(given.get("admission"), AdmissionWish):
        inner = {name: getattr(asked.admission, name) for name in AdmissionWish.__struct_fields__}
        known = {name: value for name, value in inner.items() if value is not None}
        given["admission"] = replace(stands.admission, **known)
    return replace(stands, **given)


def _difference(stands: Policies, wanted: Policies) -> str:
    before, after = told(stands), told(wanted)
    changes = [f"{key}: {before[key]} → {after[key]}" for key in after if before[key] != after[key]]
    return "; ".join(changes) or "written again"


def _frozen(policies: Policies) -> str:
    frozen = policies.frozen
    if frozen is None:
        return "not frozen"
    return f"frozen by {frozen.by}" + (f": {frozen.reason}" if frozen.reason else "")
