"""What operators ask for, written to the store as records that the leader acts on.

Each wish is one compare-and-swap on the record that the agent's picture shows; when somebody else was faster it is
tried again on the new picture, a few times. A dry run writes nothing and returns what the leader would decide
(`deciding`).
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace

from outlive.cluster import records as rec
from outlive.cluster import rollout
from outlive.cluster.mirror import Mirror
from outlive.cluster.transaction import Compare, Put, Transaction, absent, unchanged
from outlive.cluster.workload import Workload
from outlive.errors import UsageInvalid

from . import choosing, once
from .admitting import weigh
from .answers import Asked, Changed
from .boards import common_board
from .company import as_looked_at, check_company, check_order, strangers
from .deciding import commands_for
from .machine_wishes import cancelled, check_machine, completed
from .problems import Conflict, NotFound, RevisionChanged
from .view import View

TRIES = 5
RETRY_PAUSE_S = 0.1
SEEN_S = 2.0

Change = Callable[[rec.WorkloadRecord | None], rec.WorkloadRecord | None]
"""From the record that stands (None: none) to the one wanted; None: nothing to change."""


async def apply(
    view: View,
    workload: Workload,
    *,
    dry_run: bool,
    if_revision: int | None = None,
    force: bool = False,
    packages: choosing.Wishes = choosing.AS_IS,
) -> Changed:
    """Have the cluster keep `workload` as given, if it is still at that revision; returns what changed.

    force: also when fewer hosts could be lost then than the policy asks for.
    packages: how the versions of its packages are chosen.
    """
    machine, board = workload.machine, None
    if machine is not None and machine.version is None:
        board = await common_board(view, machine.type)

    def change(stands: rec.WorkloadRecord | None) -> rec.WorkloadRecord | None:
        wanted = completed(view.mirror, workload, stands.workload if stands is not None else None, board)
        wanted = choosing.chosen(view.mirror, wanted, rollout.newest(stands), packages)
        if stands is not None and stands.desired is rec.Desired.REMOVED:
            raise Conflict(f"{wanted.name} is being removed.", remedy="apply it again once it is gone")
        return rollout.applied(stands, wanted)

    check_addresses(view.mirror, workload)
    check_machine(view.mirror, workload)
    retry = packages.retry
    return await _change(view, workload.name, "workload.applied", change, dry_run, if_revision, force, retry)


def check_addresses(picture: Mirror, workload: Workload) -> None:
    """Refuse a virtual IP that another workload, or a host, has. Raises UsageInvalid."""
    wanted = {each.address.partition("/")[0] for each in workload.virtual_ips}
    for name, entry in picture.workloads.items():
        taken = wanted & {each.address.partition("/")[0] for each in entry.record.workload.virtual_ips}
        if taken and name != workload.name:
            raise UsageInvalid(
                f"The virtual IP {min(taken)} of {workload.name} is {name}'s already.",
                remedy="give each workload addresses of its own",
            )
    for name, host in picture.hosts.items():
        if host.record.address in wanted:
            raise UsageInvalid(
                f"The virtual IP {host.record.address} of {workload.name} is host {name}'s own address.",
                remedy="choose a free address in the same network",
            )


async def desire(
    view: View, name: str, desired: rec.Desired, *, dry_run: bool, if_revision: int | None = None, force: bool = False
) -> Changed:
    """Have a workload run, stop, or be removed, if it is still at that revision. Raises NotFound, RevisionChanged."""

    def change(stands: rec.WorkloadRecord | None) -> rec.WorkloadRecord | None:
        if stands is None:
            raise NotFound(f"There is no workload {name}.", remedy="see `outlive ps`")
        if stands.desired is desired:
            return None
        if stands.desired is rec.Desired.REMOVED:
            raise Conflict(f"{name} is being removed.", remedy="apply it again once it is gone")
        return replace(stands, desired=desired)

    word = {rec.Desired.RUNNING: "started", rec.Desired.STOPPED: "stopped", rec.Desired.REMOVED: "removed"}[desired]
    return await _change(view, name, f"workload.asked_to_be_{word}", change, dry_run, if_revision, force)


async def _change(
    view: View,
    name: str,
    kind: str,
    change: Change,
    dry_run: bool,
    if_revision: int | None,
    force: bool,
    retry: bool = False,
) -> Changed:
    key = rec.WORKLOADS + name
    if if_revision is not None:
        await seen(view, if_revision)
    for _ in range(TRIES):
        entry = view.mirror.workloads.get(name)
        stands = entry.mod_revision if entry else 0
        if if_revision not in (None, stands):
            raise RevisionChanged(name, stands, int(if_revision or 0))
        known = entry.record if entry else None
        wanted = change(known)
        if wanted is None:
            return {"workload": name, "changed": False, "revision": stands}
        picture, asked = view.mirror, rollout.as_asked(wanted)
        checked = _checked(picture, known, asked.workload)
        notes = await weigh(view, known, asked, force=force)
        if known is None or known.workload != asked.workload:
            notes += strangers(picture, asked.workload)
        if dry_run:
            commands = await commands_for(view, key, rec.encode(wanted))
            tried: Changed = {"workload": name, "changed": True, "commands": commands}
            return _noted(tried, notes)
        cause = view.record(kind, workload=name)
        value = rec.encode(rollout.caused(wanted, cause.id))
        compare = unchanged(key, _revision(picture, key, stands))
        told = _noted({"workload": name, "changed": True, "event": cause.id, "revision": 0}, notes)
        uses, forgiven = choosing.using(picture, wanted, retry=retry)
        writes = (Put(key, value), *forgiven)
        done = await once.transact(view, Transaction((compare, *checked, *uses), writes), told)
        if done.succeeded:
            await seen(view, done.revision)
            return {**told, "revision": done.revision}
        await asyncio.sleep(RETRY_PAUSE_S)
    raise Conflict(f"{name} was changed by others each time it was tried.", remedy="look at it, and try again")


def _checked(picture: Mirror, stands: rec.WorkloadRecord | None, wanted: Workload) -> tuple[Compare, ...]:
    """That what a changed workload was checked against stays as it is. Raises UsageInvalid for what cannot be."""
    if stands is not None and stands.workload == wanted:
        return ()
    check_order(picture, wanted)
    check_company(picture, wanted)
    return as_looked_at(picture, wanted)


def _noted(told: Changed, notes: list[str]) -> Changed:
    return {**told, "notes": notes} if notes else told


async def seen(view: View, revision: int) -> None:
    """Wait until this agent's picture has the change, so that who asked for it finds it; not for long."""
    deadline = view.now() + SEEN_S
    while view.mirror.revision < revision and view.now() < deadline:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.01)


def _revision(picture: Mirror, key: str, known: int) -> int:
    """The revision to compare: a record that cannot be read is replaced as it stands."""
    return picture.bad[key][0] if key in picture.bad else known


async def operate(
    view: View, kind: rec.OperationKind, workload: str, target: str | None, *, checkpoint: str = "", dry_run: bool
) -> Asked:
    """Ask for a long action; the leader begins it, and `operation` tells how far it is."""
    if workload not in view.mirror.workloads:
        raise NotFound(f"There is no workload {workload}.", remedy="see `outlive ps`")
    if target is not None and target not in view.mirror.hosts:
        raise NotFound(f"There is no host {target}.", remedy="see `outlive status`")
    operation = rec.OperationRecord(f"{kind}-{secrets.token_hex(4)}", kind, workload, target, checkpoint)
    key = rec.OPERATIONS + operation.id
    if dry_run:
        return {"operation": operation, "commands": await commands_for(view, key, rec.encode(operation))}
    cause = view.record(f"{kind}.asked", workload=workload, host=target or "", text=checkpoint)
    operation = replace(operation, because=cause.id)
    told: Asked = {"operation": operation, "event": cause.id}
    done = await once.transact(view, Transaction((absent(key),), (Put(key, rec.encode(operation)),)), told, 202)
    if not done.succeeded:
        raise Conflict("The operation could not be written down.", cause="its name is taken", remedy="ask again")
    await seen(view, done.revision)
    return told


async def cancel(view: View, name: str, *, dry_run: bool) -> Asked:
    """Cancel an operation; what it has begun is undone by the leader. Raises NotFound, Conflict."""
    key = rec.OPERATIONS + name
    for _ in range(TRIES):
        entry = view.mirror.operations.get(name)
        if entry is None:
            raise NotFound(f"There is no operation {name[:80]}.")
        ended = cancelled(view.mirror, entry.record)
        if dry_run:
            return {"operation": ended, "commands": await commands_for(view, key, rec.encode(ended))}
        cause = view.record("operation.cancelled", workload=ended.workload, text=name, because=ended.because)
        ended = replace(ended, because=cause.id)
        told: Asked = {"operation": ended, "event": cause.id}
        writes = Transaction((unchanged(key, entry.mod_revision),), (Put(key, rec.encode(ended)),))
        done = await once.transact(view, writes, told)
        if done.succeeded:
            await seen(view, done.revision)
            return told
        await asyncio.sleep(RETRY_PAUSE_S)
    raise Conflict(f"Operation {name} was changed each time it was tried.", remedy="look at it, and try again")
