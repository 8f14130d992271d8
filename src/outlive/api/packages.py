"""The API's paths of packages: pushed to any agent, listed, looked at, removed; and given to other hosts' agents.

What is pushed is taken in as it arrives and refused when it breaks a rule; then its record says that it is there, and
the leader sees to its copies. A version never changes: the same name and version with other content is refused.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from outlive.cluster import copies
from outlive.cluster import records as rec
from outlive.cluster.package import Component, Manifest
from outlive.cluster.pushed import MOST_COPIES, PackageRecord, copies_of, split
from outlive.cluster.transaction import Put, Transaction, absent, unchanged
from outlive.cluster.versions import parse_version
from outlive.depot.errors import PackageMissing
from outlive.errors import UsageInvalid

from . import answers, once
from .bodies import DryRunOnly, body, decoded
from .choosing import check_can_be_had
from .deciding import commands_for
from .declaring import RAW, query, route
from .paging import Page, ascending
from .problems import Conflict, Encoded, NotFound
from .view import View
from .wishes import seen

MOST_ASKED = 1024
SEE = "see `outlive package ls`"


class Push(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a package is kept."""

    copies: Annotated[
        int, msgspec.Meta(ge=0, le=MOST_COPIES, description="On how many hosts; 0: as the size of the cluster says.")
    ] = 0


class ContentWish(msgspec.Struct, forbid_unknown_fields=True):
    """Components, each as digest and size, wanted one after the other; of the first what comes after `offset`."""

    components: Annotated[list[tuple[str, int]], msgspec.Meta(max_length=MOST_ASKED)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class PackagesApi:
    """The handlers, around one agent's view."""

    def __init__(self, view: View) -> None:
        self.view = view

    @route("GET", "/v1/packages", answers.Packages, query=Page)
    async def all(self, request: Request) -> Response:
        """All packages that were pushed, in pages."""
        kept = self.view.mirror.packages
        names, after = ascending("packages", kept, query(request, Page))
        workloads = copies.needing(self.view.mirror)
        told: answers.Packages = {
            "packages": [self._shown(kept[name].record, workloads) for name in names],
            "next": after,
        }
        return Encoded(told)

    @route(
        "POST", "/v1/packages", answers.PackagePushed, query=Push, body=bytes, takes=RAW, problems=(404,), large=True
    )
    async def push(self, request: Request) -> Response:
        """Push a package: its archive as `outlive package build` makes it. The same package again changes nothing."""
        wanted = query(request, Push)
        async with self.view.packages.arrival(_pieces(request)) as (id, manifest):
            return Encoded(await self._record(id, manifest, wanted.copies))

    @route("GET", "/v1/packages/{name}", answers.PackageShown, problems=(404,))
    async def one(self, request: Request) -> Response:
        """One package, NAME@VERSION, or the newest version of NAME; its files where this host has it."""
        record = self._find(request.path_params["name"])
        manifest = None
        with suppress(PackageMissing):
            manifest = msgspec.json.decode(await self.view.packages.manifest(record.id))
        shown: answers.PackageShown = {
            **self._shown(record),
            "start": record.start,
            "check": record.check,
            "manifest": manifest,
        }
        return Encoded(shown)

    @route("DELETE", "/v1/packages/{name}", answers.PackageRemoved, query=DryRunOnly, problems=(404,))
    async def remove(self, request: Request) -> Response:
        """Remove a version of a package that nothing uses."""
        name, versionless = request.path_params["name"], "@" not in request.path_params["name"]
        if versionless:
            raise UsageInvalid(f"Which version of {name[:80]} is to go?", remedy="name it: NAME@VERSION")
        record = self._find(name)
        entry = self.view.mirror.packages[record.key]
        if users := copies.users(self.view.mirror, record):
            raise Conflict(
                f"The package {record.key} is in use.",
                cause=f"{', '.join(map(str, users))} needs it",
                remedy="bring these to another version first, or remove them",
            )
        key = rec.PACKAGES + record.key
        if query(request, DryRunOnly).dry_run:
            gone = rec.encode(replace(record, removing=True))
            commands = await commands_for(self.view, key, gone)
            return Encoded({"package": record.key, "changed": True, "commands": commands})
        # The leader removes it once it has seen that nobody began to use it meanwhile (`cluster.copies`).
        cause = self.view.record("package.asked_to_be_removed", text=record.key)
        value = rec.encode(replace(record, removing=True, because=cause.id))
        told: answers.PackageRemoved = {"package": record.key, "changed": True, "event": cause.id}
        transaction = Transaction((unchanged(key, entry.mod_revision),), (Put(key, value),))
        done = await once.transact(self.view, transaction, told)
        if not done.succeeded:
            raise Conflict(f"The package {record.key} was changed meanwhile.", remedy="look at it, and try again")
        await seen(self.view, done.revision)
        return Encoded(told)

    # For other hosts.

    @route("GET", "/v1/hosts/{host}/packages/{id}/manifest", media=RAW, problems=(404,), to_peers=True)
    async def manifest(self, request: Request) -> Response:
        """The manifest of a package that this host has."""
        self._check_host(request)
        return Response(await self.view.packages.manifest(request.path_params["id"]), media_type=RAW)

    @route(
        "POST", "/v1/hosts/{host}/packages/{id}/content",
        media=RAW, body=ContentWish, problems=(404,), to_peers=True, streams=True, asks=True,
    )  # fmt: skip
    async def content(self, request: Request) -> Response:
        """The content of components of a package that this host has, one after the other."""
        self._check_host(request)
        wish = decoded(await body(request), ContentWish)
        wanted = [Component(digest, size) for digest, size in wish.components]
        found = self.view.packages.content(request.path_params["id"], wanted, wish.offset)
        # What is not here is refused before anything is sent.
        first = await anext(found, b"")
        return StreamingResponse(_after(first, found), media_type=RAW)

    def _check_host(self, request: Request) -> None:
        if (name := request.path_params["host"]) != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {name[:80]}.")

    # Records.

    def _find(self, name: str) -> PackageRecord:
        kept = self.view.mirror.packages
        if "@" in name:
            key = "@".join(split(name))
            if key not in kept:
                raise NotFound(f"There is no package {key}.", remedy=SEE)
            return kept[key].record
        found = [entry.record for entry in kept.values() if entry.record.name == name]
        if not found:
            raise NotFound(f"There is no package {name[:80]}.", remedy=SEE)
        return max(found, key=lambda record: parse_version(record.version))

    def _shown(self, record: PackageRecord, workloads: Mapping[str, Sequence[str]] | None = None) -> answers.Package:
        picture = self.view.mirror
        have = sorted(host for host, entry in picture.depots.items() if record.id in entry.record.holds)
        troubles = {
            host: entry.record.troubles[record.key]
            for host, entry in picture.depots.items()
            if record.key in entry.record.troubles
        }
        return {
            "name": record.name,
            "version": record.version,
            "id": record.id,
            "requires": record.requires,
            "size_bytes": record.size_bytes,
            "copies": copies_of(record, len(picture.hosts)),
            "hosts": list(record.hosts),
            "held_by": have,
            "troubles": troubles,
            "used_by": [str(user) for user in copies.users(picture, record, workloads)],
            "failed": record.failed,
            "removing": record.removing,
            "pushed_by": record.pushed_by,
        }

    async def _record(self, id: str, manifest: Manifest, wanted_copies: int) -> answers.PackagePushed:
        key, room = f"{manifest.name}@{manifest.version}", rec.PACKAGES + f"{manifest.name}@{manifest.version}"
        stands = self.view.mirror.packages.get(key)
        if stands is not None and stands.record.id != id:
            raise Conflict(
                f"There is another package {key} already.",
                cause="a version never changes, so that what runs anywhere is what was pushed",
                remedy="give what you have changed a version of its own",
            )
        if stands is not None and stands.record.removing:
            raise Conflict(f"The package {key} is being removed.", remedy="push it again once it is gone")
        if stands is not None and wanted_copies in (0, stands.record.copies):
            return {"package": self._shown(stands.record), "changed": False}
        check_can_be_had(self.view.mirror, manifest)
        cause = self.view.record("package.pushed", host=self.view.host, text=key)
        record = PackageRecord(
            name=manifest.name,
            version=manifest.version,
            id=id,
            requires=dict(manifest.dependencies),
            size_bytes=manifest.bytes,
            start=manifest.start,
            check=manifest.check,
            copies=wanted_copies,
            hosts=(self.view.host,),
            pushed_by=self.view.host,
            because=cause.id,
        )
        compare = absent(room)
        if stands is not None:
            record = replace(stands.record, copies=wanted_copies)
            compare = unchanged(room, stands.mod_revision)
        told: answers.PackagePushed = {"package": self._shown(record), "changed": True, "event": cause.id}
        transaction = Transaction((compare,), (Put(room, rec.encode(record)),))
        done = await once.transact(self.view, transaction, told)
        if not done.succeeded:
            raise Conflict(f"The package {key} was pushed by somebody else meanwhile.", remedy="look at it: " + SEE)
        await seen(self.view, done.revision)
        return told


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece
