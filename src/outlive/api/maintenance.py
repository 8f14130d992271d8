"""The API's paths of hosts' maintenance: what it would do, wish it, see how far it is, end it.

What would have to stop because it can go nowhere else is found before anything is written, and refused with its
reasons unless it is forced. The leader does the rest, from the record alone.
"""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import draining, emptying
from outlive.cluster import records as rec
from outlive.cluster.policies import MOST_TEXT
from outlive.cluster.transaction import Delete, Put, Transaction, unchanged
from outlive.errors import RefusedForSafety, UsageInvalid

from . import answers, once
from .bodies import DryRun, DryRunOnly, body, decoded
from .deciding import commands_for
from .declaring import query, route
from .paging import Page, ascending
from .problems import Conflict, Encoded, NotFound
from .view import View
from .wishes import RETRY_PAUSE_S, TRIES, seen

MOST_WAIT_S = 30.0


class NoPlaceElsewhere(RefusedForSafety):
    """A host cannot be emptied without stopping something."""

    id = "maintenance.no-place-elsewhere"


class MaintenanceWish(msgspec.Struct, forbid_unknown_fields=True):
    """force: stop what can go nowhere else; why the host shall be emptied, and who wishes it."""

    force: bool = False
    reason: str = ""
    by: str = ""


class Emptied(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long an answer may wait."""

    wait_s: Annotated[
        float, msgspec.Meta(ge=0, description="Answer when it is reached, or after so many seconds (30 at most).")
    ] = 0.0


class Ending(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How maintenance shall end."""

    back: Annotated[bool, msgspec.Meta(description="Bring back what was there.")] = False
    dry_run: DryRun = False


class MaintenanceApi:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/maintenance", answers.Maintenances, query=Page)
    async def all(self, request: Request) -> Response:
        """The hosts in maintenance, and how far each is, in pages."""
        names, after = ascending("maintenance", self.view.mirror.maintenance, query(request, Page))
        told: answers.Maintenances = {"hosts": [self._stands(host) for host in names], "next": after}
        return Encoded(told)

    @route("GET", "/v1/hosts/{name}/maintenance", answers.Maintenance, query=Emptied, problems=(404,))
    async def show(self, request: Request) -> Response:
        """How far one host is, and what is left there; of one that is not in maintenance what emptying it would do."""
        name = self._host(request)
        deadline = self.view.now() + min(MOST_WAIT_S, query(request, Emptied).wait_s)
        told = self._stands(name)
        while not told["done"] and self.view.now() < deadline:
            await asyncio.sleep(0.05)
            told = self._stands(name)
        return Encoded(told)

    def _host(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self.view.mirror.hosts and name not in self.view.mirror.maintenance:
            raise NotFound(f"There is no host {name[:80]}.", remedy="see `outlive status`")
        return name

    def _stands(self, host: str) -> answers.Maintenance:
        picture = self.view.mirror
        entry = picture.maintenance.get(host)
        held, followed = draining.held_by(picture, host), draining.followed_on(picture, host)
        done = not held and not followed
        if entry is not None and entry.record.phase is rec.MaintenancePhase.RETURNING:
            done = False
        return {
            "host": host,
            "record": entry.record if entry is not None else None,
            "workloads": list(held),
            "standbys": list(followed),
            "done": done or entry is None,
            "plan": list(emptying.plan(picture, host)),
        }

    def _told(
        self, host: str, *, changed: bool, event: str = "", commands: list[dict[str, Any]] | None = None
    ) -> answers.MaintenanceChanged:
        return {**self._stands(host), "changed": changed, "event": event, "commands": commands or []}

    @route("PUT", "/v1/hosts/{name}/maintenance", answers.MaintenanceChanged, query=DryRunOnly, body=MaintenanceWish,
           problems=(404,))  # fmt: skip
    async def begin(self, request: Request) -> Response:
        """Empty a host and keep it empty. Refused, with the reasons, where something could go nowhere else."""
        name, asked = self._host(request), decoded(await body(request), MaintenanceWish)
        if max(len(asked.reason), len(asked.by)) > MOST_TEXT:
            raise UsageInvalid(f"A reason has at most {MOST_TEXT} characters.")
        view, key = self.view, rec.MAINTENANCE + name
        for _ in range(TRIES):
            entry = view.mirror.maintenance.get(name)
            plan = emptying.plan(view.mirror, name)
            _check(name, plan, asked.force)
            known = entry.record if entry is not None else None
            if known is not None and known.phase is rec.MaintenancePhase.ON and known.force >= asked.force:
                return Encoded(self._told(name, changed=False))
            by = f"{asked.by or 'somebody'} on {view.host}"
            had = (*(known.had if known else ()), *draining.held_by(view.mirror, name))
            wish = rec.MaintenanceRecord(
                name, had=tuple(dict.fromkeys(had)), force=asked.force, by=by, reason=asked.reason
            )
            if query(request, DryRunOnly).dry_run:
                commands = await commands_for(view, key, rec.encode(wish))
                return Encoded(self._told(name, changed=True, commands=commands))
            event = view.record("maintenance.began", host=name, text=asked.reason)
            wish = replace(wish, since_unix_ms=event.unix_ms, because=event.id)
            told = self._told(name, changed=True, event=event.id)
            if await self._write(key, entry.mod_revision if entry else 0, Put(key, rec.encode(wish)), told):
                return Encoded(self._told(name, changed=True, event=event.id))
        raise Conflict(f"{name} was changed by others each time it was tried.", remedy="look, and try again")

    @route("DELETE", "/v1/hosts/{name}/maintenance", answers.MaintenanceChanged, query=Ending, problems=(404,))
    async def end(self, request: Request) -> Response:
        """Let a host have workloads again; what it had stays where it is, unless it is asked back."""
        name, asked, view = self._host(request), query(request, Ending), self.view
        back, key = asked.back, rec.MAINTENANCE + name
        for _ in range(TRIES):
            entry = view.mirror.maintenance.get(name)
            if entry is None or (back and entry.record.phase is rec.MaintenancePhase.RETURNING):
                return Encoded(self._told(name, changed=False))
            returning = replace(entry.record, phase=rec.MaintenancePhase.RETURNING, empty=False)
            if asked.dry_run:
                commands = await commands_for(view, key, rec.encode(returning) if back else None)
                return Encoded(self._told(name, changed=True, commands=commands))
            event = view.record("maintenance.ended", host=name, because=entry.record.because)
            write = Put(key, rec.encode(replace(returning, because=event.id))) if back else Delete(key)
            told = self._told(name, changed=True, event=event.id)
            if await self._write(key, entry.mod_revision, write, told):
                return Encoded(self._told(name, changed=True, event=event.id))
        raise Conflict(f"{name} was changed by others each time it was tried.", remedy="look, and try again")

    async def _write(self, key: str, stood: int, write: Put | Delete, told: answers.MaintenanceChanged) -> bool:
        bad = self.view.mirror.bad.get(key)
        compare = unchanged(key, bad[0] if bad is not None else stood)
        done = await once.transact(self.view, Transaction((compare,), (write,)), told)
        if done.succeeded:
            await seen(self.view, done.revision)
            return True
        await asyncio.sleep(RETRY_PAUSE_S)
        return False


def _check(host: str, plan: tuple[emptying.Leaving, ...], force: bool) -> None:
    """Refuse what would stop something, unless that is wished. Raises NoPlaceElsewhere."""
    stuck = [each for each in plan if each.to is None and each.how != "standby"]
    if not stuck or force:
        return
    names = ", ".join(each.workload for each in stuck[:5]) + (" and others" if stuck[5:] else "")
    raise NoPlaceElsewhere(
        f"{host} cannot be emptied: no other host can have {names}.",
        cause="; ".join(f"{each.workload}: {each.reason}" for each in stuck[:5]),
        remedy=f"make room elsewhere, or stop {'it' if len(stuck) == 1 else 'them'} there with --force",
    )
