"""A planned move of a running guest, by QEMU's own live migration: one function for each step of either side.

The source copies memory (and local disks) while the guest runs, stops it, and waits; `switch` sends the rest. The
target then holds the whole guest and stands still: its disks are not locked and nothing runs until `go_on`. Whoever
calls decides which of the two may go on, by what is placed; until then either can: `roll_back` lets the source go on.
The invariant: nothing here lets a guest run but `go_on` and `roll_back` and an end before `switch`.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlive.errors import Failed

from .qmp import Monitor, VmFailed, VmUnreachable
from .seat import node

POLL_S = 0.1
CANCELLED_WITHIN_S = 30.0
JOB_ENDED_WITHIN_S = 60.0
UNLIMITED_BYTES_S = 1 << 34
_MIB = 1024 * 1024
_CREDENTIALS = "move-tls"
_ENDED = ("failed", "cancelled", "none", "completed")
_OURS = "pause-before-switchover"
_ANNOUNCEMENT = {"initial": 50, "max": 550, "rounds": 5, "step": 100}


class MoveFailed(Failed):
    """A guest could not be moved; unless the cause says otherwise it runs on where it was."""

    id = "vm.move-failed"


@dataclass(frozen=True, slots=True)
class Tls:
    """What either side proves itself with. folder: as `tls_folder` made it.

    peer: the name that must stand in the target's certificate; for the source alone.
    """

    folder: Path
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """downtime_ms: how long the guest may stand still at the end, as far as can be foreseen.

    bandwidth_mib_s: None: as fast as it goes.  within_s: when the move is given up, from its beginning on.
    """

    downtime_ms: float = 100.0
    bandwidth_mib_s: float | None = None
    within_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a move is. phase: disks, memory, or switching. Bytes are those of that phase."""

    phase: str
    done_bytes: int
    total_bytes: int
    dirty_pages_s: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """downtime_ms: how long the guest had stood still when all was sent; `go_on` adds a little.

    bytes: of memory and device state.
    """

    downtime_ms: float
    took_s: float
    bytes: int


def tls_folder(folder: Path, ca: Path, certificate: Path, key: Path, account: tuple[int, int] | None) -> Path:
    """Put a host's proof where QEMU looks for it, readable by its user alone, and return the folder. Blocks."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = [("ca-cert.pem", ca)]
    for side in ("client", "server"):
        sources += [(f"{side}-cert.pem", certificate), (f"{side}-key.pem", key)]
    for name, source in sources:
        target = folder / name
        target.unlink(missing_ok=True)
        target.touch(0o600)
        target.write_bytes(source.read_bytes())
    if account is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, *account)
    return folder


async def await_guest(
    monitor: Monitor, uri: str, *, disks: Iterable[str] = (), disks_at: str | None = None, tls: Tls | None = None
) -> str:
    """Make a machine whose seat is `incoming` listen for a guest, and return where: `uri` with its real port.

    uri:      tcp:ADDRESS:PORT (port 0: any), unix:PATH, or fd:NAME after `Monitor.hand_over`.
    disks:    the names of disks that are copied too; disks_at: unix:PATH or tcp:ADDRESS:PORT to take them in.
    Raises MoveFailed.
    """
    try:
        await _set(monitor, {"late-block-activate": True})
        if tls is not None:
            await _credentials(monitor, tls, "server")
            await monitor.call("migrate-set-parameters", {"tls-creds": _CREDENTIALS})
        if disks_at is not None:
            where = _socket(disks_at)
            start: dict[str, object] = {"addr": {"type": where.pop("type"), "data": where}}
            if tls is not None:
                start["tls-creds"] = _CREDENTIALS
            await monitor.call("nbd-server-start", start)
            for disk in disks:
                export = {"type": "nbd", "id": f"move-{disk}", "node-name": node(disk), "name": disk, "writable": True}
                await monitor.call("block-export-add", export)
        await monitor.call("migrate-incoming", {"uri": uri})
        return await _listening(monitor, uri)
    except VmFailed as error:
        raise MoveFailed("This host cannot take the guest in.", cause=error.cause) from error


async def arrived(monitor: Monitor, within_s: float) -> None:
    """Return once the whole guest is there and stands still. Raises MoveFailed."""
    until = time.monotonic() + within_s
    while True:
        state = await monitor.call("query-migrate")
        status = (await monitor.call("query-status"))["status"]
        if state.get("status") == "completed" and status == "paused":
            break
        if state.get("status") in ("failed", "cancelled"):
            raise MoveFailed("The guest did not arrive.", cause=state.get("error-desc", "the source gave up"))
        if time.monotonic() >= until:
            raise MoveFailed("The guest did not arrive.", cause=f"not within {within_s:g} s")
        await asyncio.sleep(POLL_S / 10)
    with contextlib.suppress(VmFailed):  # there is none where disks are shared
        await monitor.call("nbd-server-stop")


async def go_on(monitor: Monitor) -> None:
    """Let the guest go on here and tell the network where it is now. Raises VmFailed where a disk is locked."""
    await monitor.call("cont")
    await monitor.call("announce-self", _ANNOUNCEMENT)


async def send(
    monitor: Monitor,
    uri: str,
    *,
    pace: Pace,
    told: Callable[[Progress], None] = lambda _: None,
    disks: Iterable[str] = (),
    disks_at: str | None = None,
    tls: Tls | None = None,
) -> None:
    """Copy a guest while it runs; return when all but the last is sent, with the guest stopped for `switch`.

    The guest waits for that, so be quick; or call `cancel`, which lets it go on. Should this be cancelled, or fail,
    the guest runs on here. Raises MoveFailed.
    """
    until = time.monotonic() + pace.within_s
    names = tuple(disks) if disks_at is not None else ()
    try:
        if tls is not None:
            await _credentials(monitor, tls, "client")
        if disks_at is not None:
            await _mirror(monitor, names, disks_at, tls, told, until)
        await _set(monitor, {_OURS: True, "auto-converge": True, "events": True})
        bandwidth = UNLIMITED_BYTES_S if pace.bandwidth_mib_s is None else int(pace.bandwidth_mib_s * _MIB)
        parameters: dict[str, object] = {"max-bandwidth": bandwidth, "downtime-limit": int(pace.downtime_ms)}
        parameters |= {"tls-creds": _CREDENTIALS if tls else "", "tls-hostname": (tls and tls.peer) or ""}
        await monitor.call("migrate-set-parameters", parameters)
        await monitor.call("migrate", {"uri": uri})
        await _until_stopped(monitor, told, until)
        await _end_mirrors(monitor, names, wait_for_last=True)
    except BaseException as error:
        await asyncio.shield(asyncio.ensure_future(_given_up(monitor)))
        if isinstance(error, VmFailed):
            raise MoveFailed("The guest was not moved and runs on here.", cause=error.cause) from error
        raise


async def switch(monitor: Monitor, within_s: float) -> Sent:
    """Send the rest of a guest that `send` stopped; from then on it stands still at both ends.

    Raises MoveFailed; the guest then runs on here, as far as QEMU says. When this end does not know (VmUnreachable),
    ask the target before anything goes on.
    """
    until = time.monotonic() + within_s
    await monitor.call("migrate-continue", {"state": "pre-switchover"})
    while (state := await monitor.call("query-migrate"))["status"] != "completed":
        if state["status"] in ("failed", "cancelled"):
            await _forget(monitor)
            raise MoveFailed("The guest was not moved and runs on here.", cause=state.get("error-desc", ""))
        if time.monotonic() >= until:
            await cancel(monitor)
            raise MoveFailed("The guest was not moved and runs on here.", cause=f"not within {within_s:g} s")
        await asyncio.sleep(POLL_S / 20)
    await _forget(monitor)
    return Sent(
        float(state.get("downtime", 0)),
        state.get("total-time", 0) / 1000,
        int(state.get("ram", {}).get("transferred", 0)),
    )


async def cancel(monitor: Monitor) -> None:
    """Give a move up before it is complete; the guest runs on here. Raises MoveFailed where it was complete."""
    await monitor.call("migrate_cancel")
    until = time.monotonic() + CANCELLED_WITHIN_S
    while (status := (await monitor.call("query-migrate")).get("status", "none")) not in _ENDED:
        if time.monotonic() >= until:
            raise MoveFailed("The move was cancelled and does not end.", cause=f"it is {status}")
        await asyncio.sleep(POLL_S)
    await _end_mirrors(monitor, await _mirrored(monitor), wait_for_last=False)
    if status == "completed":
        raise MoveFailed("The move was complete when it was cancelled.", cause="the guest stands still at both ends")
    await _forget(monitor)


async def roll_back(monitor: Monitor) -> None:
    """Let the guest go on at the source after all: only when it is certain that it will not at the target.

    Raises VmFailed where the target still holds a disk's lock.
    """
    await monitor.call("cont")
    await monitor.call("announce-self", _ANNOUNCEMENT)


async def abandon(monitor: Monitor) -> bool:
    """Cancel a move that an agent before us began and did not complete; return whether there was one."""
    capabilities = await monitor.call("query-migrate-capabilities")
    ours = any(one["capability"] == _OURS and one["state"] for one in capabilities)
    status = (await monitor.call("query-migrate")).get("status", "none")
    if not ours or status in _ENDED:
        return False
    await cancel(monitor)
    return True


async def _until_stopped(monitor: Monitor, told: Callable[[Progress], None], until: float) -> None:
    while True:
        state = await monitor.call("query-migrate")
        status = state.get("status", "none")
        if status == "pre-switchover":
            return
        if status in ("failed", "cancelled", "none"):
            raise MoveFailed(
                "The guest was not moved and runs on here.", cause=state.get("error-desc", "the move was cancelled")
            )
        if ram := state.get("ram"):
            total, remaining = int(ram["total"]), int(ram["remaining"])
            told(Progress("memory", max(0, total - remaining), total, int(ram.get("dirty-pages-rate", 0))))
        if time.monotonic() >= until:
            raise MoveFailed(
                "The guest was not moved and runs on here.",
                cause="it writes to its memory faster than that can be copied",
                remedy="move it at a quieter time, or allow a longer downtime or more bandwidth",
            )
        await asyncio.sleep(POLL_S)


async def _mirror(
    monitor: Monitor, disks: tuple[str, ...], at: str, tls: Tls | None, told: Callable[[Progress], None], until: float
) -> None:
    """Copy disks to where `await_guest` takes them in, and keep the copies the same from then on."""
    for disk in disks:
        target: dict[str, object] = {
            "driver": "nbd",
            "node-name": f"mirror-{disk}",
            "server": _socket(at),
            "export": disk,
            "discard": "unmap",
        }
        if tls is not None:
            target |= {"tls-creds": _CREDENTIALS, **({"tls-hostname": tls.peer} if tls.peer else {})}
        await monitor.call("blockdev-add", target)
        job = {"job-id": f"move-{disk}", "device": node(disk), "target": f"mirror-{disk}", "sync": "full"}
        await monitor.call("blockdev-mirror", {**job, "copy-mode": "write-blocking"})
    while disks:
        jobs = {job["device"]: job for job in await monitor.call("query-block-jobs")}
        ours = [jobs.get(f"move-{disk}") for disk in disks]
        if any(job is None for job in ours):
            raise MoveFailed("The guest was not moved and runs on here.", cause="a disk could not be copied")
        told(Progress("disks", sum(job["offset"] for job in ours if job), sum(job["len"] for job in ours if job)))
        if all(job and job["ready"] for job in ours):
            return
        if time.monotonic() >= until:
            raise MoveFailed("The guest was not moved and runs on here.", cause="its disks were not copied in time")
        await asyncio.sleep(POLL_S)


async def _mirrored(monitor: Monitor) -> tuple[str, ...]:
    nodes = await monitor.call("query-named-block-nodes", {"flat": True})
    names = (str(one["node-name"]) for one in nodes)
    return tuple(name.removeprefix("mirror-") for name in names if name.startswith("mirror-"))


async def _end_mirrors(monitor: Monitor, disks: tuple[str, ...], *, wait_for_last: bool) -> None:
    """End the copying of disks. wait_for_last: both are the same then."""
    for disk in disks:
        try:
            await monitor.call("block-job-cancel", {"device": f"move-{disk}", "force": not wait_for_last})
        except VmFailed:
            if wait_for_last:
                raise
    until = time.monotonic() + JOB_ENDED_WITHIN_S
    while disks and any(job["device"].startswith("move-") for job in await monitor.call("query-block-jobs")):
        if time.monotonic() >= until:
            raise MoveFailed("The guest's disks were not copied to the end.", cause="the target does not answer")
        await asyncio.sleep(POLL_S / 20)
    for disk in disks:
        await monitor.call("blockdev-del", {"node-name": f"mirror-{disk}"})


async def _given_up(monitor: Monitor) -> None:
    # What made us give up is what is told.
    with contextlib.suppress(VmFailed, VmUnreachable, MoveFailed):
        await cancel(monitor)


async def _forget(monitor: Monitor) -> None:
    """After a move, leave QEMU as it was, so that the next migration is whoever's it is."""
    await _set(monitor, {_OURS: False, "auto-converge": False, "events": False})
    await monitor.call("migrate-set-parameters", {"tls-creds": "", "tls-hostname": ""})
    with contextlib.suppress(VmFailed):  # there was no TLS
        await monitor.call("object-del", {"id": _CREDENTIALS})


async def _set(monitor: Monitor, capabilities: dict[str, bool]) -> None:
    listed = [{"capability": name, "state": state} for name, state in capabilities.items()]
    await monitor.call("migrate-set-capabilities", {"capabilities": listed})


async def _credentials(monitor: Monitor, tls: Tls, side: str) -> None:
    with contextlib.suppress(VmFailed):  # there is one of an earlier try at most
        await monitor.call("object-del", {"id": _CREDENTIALS})
    what = {"qom-type": "tls-creds-x509", "id": _CREDENTIALS, "dir": str(tls.folder), "endpoint": side}
    await monitor.call("object-add", {**what, "verify-peer": True})


async def _listening(monitor: Monitor, uri: str) -> str:
    if not uri.startswith("tcp:"):
        return uri
    state: dict[str, Any] = await monitor.call("query-migrate")
    for address in state.get("socket-address", ()):
        return f"{uri.rpartition(':')[0]}:{address['port']}"
    return uri


def _socket(uri: str) -> dict[str, str]:
    """As QAPI's SocketAddress."""
    kind, _, rest = uri.partition(":")
    if kind == "unix":
        return {"type": "unix", "path": rest}
    host, _, port = rest.rpartition(":")
    return {"type": "inet", "host": host.strip("[]"), "port": port}
