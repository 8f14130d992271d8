"""Planned moves of running machines, by QEMU's own live migration: both ends' part of it on this host.

The source sends, and tells when all of the guest is at the target; the target takes it in and waits. Who may go on is
decided by the store in between. Until then the source can be let go on; afterwards only the target can.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from outlive.config.agent_file import TlsFiles
from outlive.errors import OutliveError
from outlive.runtime.runner import Account
from outlive.runtime.vm import moving
from outlive.runtime.vm.moving import MoveFailed, Pace, Progress, Sent, Tls
from outlive.runtime.vm.qmp import Monitor, VmFailed
from outlive.runtime.vm.vm import Vm

FOLDER = "move-tls"
FIRST_PORT, LAST_PORT = 49152, 60000
PORTS_TRIED = 50
SWITCHED_WITHIN_S = 20.0
ARRIVED_WITHIN_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a guest goes. disks: the names of those that are copied too; peer: the target's name in its certificate."""

    address: str
    port: int
    disks: tuple[str, ...]
    tls: Tls | None


class Move:
    """One move away from here, from its beginning until it is known how it ended.

    sent: told when all of the guest is at the target.  failed: why not, and that the guest is here.
    """

    def __init__(self, vm: Vm, tasks: asyncio.TaskGroup, sent: Callable[[Sent], None], failed: Callable[[str], None]):
        self._vm = vm
        self._tasks = tasks
        self._sent = sent
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None

    def begin(self, route: Route) -> None:
        """Send the guest; how that ends is told."""
        self._task = self._tasks.create_task(self._run(route))

    async def _run(self, route: Route) -> None:
        try:
            sent = await _send(self._vm, route, self._told)
        except (OutliveError, OSError) as error:
            self._failed(error.cause if isinstance(error, OutliveError) and error.cause else str(error))
        else:
            self._sent(sent)

    def _told(self, progress: Progress) -> None:
        self.progress = progress

    async def end(self) -> None:
        """Nobody takes the guest over: let it go on here, wherever the move had come to. Raises OutliveError."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await _go_on_after_all(self._vm)


async def credentials(files: TlsFiles | None, run: Path, account: Account | None, peer: str | None) -> Tls | None:
    """What this end proves itself with; None where hosts have no certificates. peer: the target's name, at the source.

    Raises OSError.
    """
    if files is None:
        return None
    owner = (account.user, account.group) if account is not None else None
    folder = await asyncio.to_thread(
        moving.tls_folder, run / FOLDER, files.ca, files.certificate, files.key, owner
    )  # fmt: skip
    return Tls(folder, peer)


async def await_guest(vm: Vm, address: str, disks: Sequence[str], tls: Tls | None) -> int:
    """Listen for a guest, its memory at the port returned and its local disks at the next. Raises OutliveError."""
    for _ in range(PORTS_TRIED):
        port = random.randrange(FIRST_PORT, LAST_PORT, 2)
        if _is_free(address, port) and _is_free(address, port + 1):
            break
    else:
        raise MoveFailed("This host cannot take the guest in.", cause="no port is free for it")
    uri, disks_at = _uris(address, port, disks)
    async with vm.monitored() as monitor:
        await moving.await_guest(monitor, uri, disks=disks, disks_at=disks_at, tls=tls)
    return port


def _uris(address: str, port: int, disks: Sequence[str]) -> tuple[str, str | None]:
    """Where memory goes, and where disks do if there are any."""
    at = f"[{address}]" if ":" in address else address
    return f"tcp:{at}:{port}", f"tcp:{at}:{port + 1}" if disks else None


def _is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried, contextlib.suppress(OSError):
        tried.bind((address, port))
        return True
    return False


async def _send(vm: Vm, route: Route, told: Callable[[Progress], None]) -> Sent:
    uri, disks_at = _uris(route.address, route.port, route.disks)
    async with vm.monitored() as monitor:
        # A communication manager leaves memory out of what it saves; a move takes all of it along.
        whole = [{"capability": "x-ignore-shared", "state": False}]
        await monitor.call("migrate-set-capabilities", {"capabilities": whole})
        await moving.send(monitor, uri, pace=Pace(), told=told, disks=route.disks, disks_at=disks_at, tls=route.tls)
        return await moving.switch(monitor, SWITCHED_WITHIN_S)


async def _runs(monitor: Monitor) -> bool:
    return bool((await monitor.call("query-status"))["status"] == "running")


async def go_on_here(vm: Vm) -> None:
    """At the target, once the store has it: let the guest run. Raises OutliveError."""
    async with vm.monitored() as monitor:
        if await _runs(monitor):
            return  # an agent before this one let it, and ended before that was known
        await moving.arrived(monitor, ARRIVED_WITHIN_S)
        await moving.go_on(monitor)


async def _go_on_after_all(vm: Vm) -> None:
    """At the source, once the store says that nobody else goes on: let the guest run. Raises OutliveError."""
    async with vm.monitored() as monitor:
        await moving.abandon(monitor)
        if await _runs(monitor):
            return
        try:
            await moving.roll_back(monitor)
        except VmFailed as error:
            # The target may hold the disks' locks for another moment.
            log.warning("move.not_rolled_back_yet", reason=error.cause)
            await asyncio.sleep(1.0)
            await moving.roll_back(monitor)
