"""This host's virtual machines as the API sees them: how they stand, their displays, consoles and checkpoints.

Nothing here decides anything, and nothing changes a machine but what is typed at its console. A question about a
machine that does not run here is answered with None. Storage is asked by processes of its own, so that a datastore
that hangs costs whoever asked, and nobody else.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from outlive.cluster.commands import Role
from outlive.cluster.machine import MachineType
from outlive.datastore.datastore import Datastore
from outlive.errors import OutliveError
from outlive.replication import checkpoint_inquiry as inquiry
from outlive.replication.checkpoint import Checkpoint, order_of, refusal
from outlive.replication.checkpoint_errors import CheckpointFailed
from outlive.replication.checkpoint_folder import Listed, folder_of
from outlive.runtime.vm.console import Attachment, last_output
from outlive.runtime.vm.vm import Vm, VmRefused

from .holdings import Holdings
from .seating import Floor

Looks = AsyncGenerator[dict[str, Any], None]
"""What is found as checkpoints are looked at, and how far that is."""

MOST_VERIFIED_AT_ONCE = 2
PROGRESS_S = 0.5
TRIES = 3
_OVERLAP_S = 0.02
_MOST_OVERLAP_BYTES = 4096


class ConsoleUse:
    """One use of a console. past: what it wrote before."""

    def __init__(self, attachment: Attachment, past: bytes) -> None:
        self._attachment = attachment
        self._past = past

    async def read(self) -> bytes:
        """What it wrote, as soon as there is any, what it wrote before first; b"" when it has ended."""
        past, self._past = self._past, b""
        return past or await self._attachment.read()

    async def type(self, keys: bytes) -> None:
        """Send to the guest. Raises ConsoleClosed."""
        await self._attachment.write(keys)

    async def close(self) -> None:
        """Use it no longer."""
        await self._attachment.close()


class LocalMachines:
    """The machines that this host holds, and the datastores that it reaches."""

    def __init__(self, holdings: Holdings, datastores: Mapping[str, Datastore], floor: Floor) -> None:
        self._holdings = holdings
        self._datastores = datastores
        self._floor = floor
        self._verifying = asyncio.Semaphore(MOST_VERIFIED_AT_ONCE)

    def board(self, kind: MachineType) -> str | None:
        """The newest version of a board that this host can make; None without an emulator."""
        return self._floor.facts.newest.get(kind) if self._floor.facts is not None else None

    def told(self, workload: str) -> dict[str, Any] | None:
        """How a machine stands on this host; None when nothing of it is here."""
        machine = self._holdings.machine(workload)
        if machine is None:
            return None
        vm, move = machine.vm, machine.move
        return {
            "workload": workload,
            "host": self._floor.host,
            "role": machine.role,
            "generation": machine.generation,
            "pairing": machine.pairing,
            "state": vm.state if vm is not None else "unknown",
            "phase": machine.phase,
            "seeding": _told(machine.seeding) if machine.phase == "seeding" else None,
            "progress": _told(machine.progress),
            "move": _told(move.progress) if move is not None else None,
        }

    async def screenshot(self, workload: str) -> bytes | None:
        """What its display shows, as PNG. Raises VmFailed, VmUnreachable or ConsoleClosed."""
        vm = self._running(workload)
        return await vm.screenshot() if vm is not None else None

    async def press(self, workload: str, button: str) -> bool:
        """Press one of its buttons: pause, unpause or reset. Raises VmRefused, VmFailed or VmUnreachable."""
        vm = self._running(workload)
        if vm is None:
            return False
        if button != "reset" and vm.seat.comm_qmp is not None:
            raise VmRefused(
                f"{workload} is neither paused nor let go on by hand.",
                cause="its communication manager does both, for each epoch or checkpoint",
                remedy="stop it instead, or make it cold first",
            )
        await {"pause": vm.pause, "unpause": vm.resume, "reset": vm.reset}[button]()
        return True

    async def console(self, workload: str, replay_bytes: int) -> ConsoleUse | None:
        """Begin to use its console. Raises ConsoleClosed."""
        vm = self._running(workload)
        if vm is None:
            return None
        attachment = await vm.console.attach()
        try:
            past = await asyncio.to_thread(last_output, vm.seat.console_log, replay_bytes) if replay_bytes else b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OVERLAP_S):
                    past = _joined(past, await attachment.read())
        except BaseException:
            await attachment.close()
            raise
        return ConsoleUse(attachment, past)

    def _running(self, workload: str) -> Vm | None:
        machine = self._holdings.machine(workload)
        if machine is None or machine.role is not Role.PRIMARY or machine.vm is None:
            return None
        return machine.vm if machine.vm.pid is not None else None

    # Checkpoints.

    def reaches(self, datastore: str) -> bool:
        """Whether this host has a datastore, as far as its latest calls showed."""
        found = self._datastores.get(datastore)
        return found is not None and found.reachable

    async def checkpoints(self, datastore: str, workload: str) -> list[dict[str, Any]]:
        """A workload's checkpoints, the newest first. Raises CheckpointFailed, also when storage does not answer."""
        listed = await inquiry.listed(self._folder(datastore, workload))
        newest = next((each.checkpoint for each in listed if each.checkpoint is not None), None)
        return [_listed(each, newest) for each in listed]

    async def verify(self, datastore: str, workload: str, checkpoint: str) -> Looks | None:
        """Look at all of a workload's checkpoints, or at one by its name or label; None when it is not there.

        Each is told as {name, whole, problem}, after any number of {name, done_bytes, total_bytes}.
        Raises CheckpointFailed when they cannot be listed.
        """
        folder = self._folder(datastore, workload)
        listed = await inquiry.listed(folder)
        chosen = listed
        if checkpoint:
            chosen = [each for each in listed if _goes_by(each, checkpoint)][:1]
            if not chosen:
                return None
        return self._verified(folder, chosen, listed)

    async def _verified(self, folder: Path, chosen: Sequence[Listed], listed: Sequence[Listed]) -> Looks:
        async with self._verifying:
            silent = ""
            for entry in chosen:
                if silent:
                    yield _found(entry, silent)
                    continue
                try:
                    async for told in _verified(folder, entry, listed):
                        yield told
                except CheckpointFailed as error:
                    silent = f"it could not be read: {error}"
                    yield _found(entry, silent)

    def _folder(self, datastore: str, workload: str) -> Path:
        return folder_of(self._datastores[datastore].path, workload)


async def _verified(folder: Path, entry: Listed, listed: Sequence[Listed]) -> Looks:
    """Look at one. Raises CheckpointFailed when storage does not answer."""
    seen: deque[int] = deque([0], maxlen=1)
    for _ in range(TRIES):
        problem = entry.problem
        if entry.checkpoint is not None:
            total = _total_bytes(entry, listed)
            task = asyncio.create_task(inquiry.verified(folder, entry.name, progress=seen.append))
            try:
                while not (await asyncio.wait([task], timeout=PROGRESS_S))[0]:
                    yield {"name": entry.name, "done_bytes": min(seen[-1], total), "total_bytes": total}
                problem = _problem(task)
            finally:
                task.cancel()
                await asyncio.wait([task])
        if not problem:
            yield _found(entry, "")
            return
        # While it was read it may have been merged, or given up, by whoever keeps these checkpoints in order.
        listed = await inquiry.listed(folder)
        now = next((each for each in listed if each.name == entry.name), None)
        if now is None:
            return
        if now == entry:
            break
        entry = now
    yield _found(entry, problem)


def _problem(task: "asyncio.Task[Any]") -> str:
    """What was found wrong; '' for nothing. Raises CheckpointFailed."""
    error = task.exception()
    if error is None:
        return ""
    if isinstance(error, CheckpointFailed) or not isinstance(error, OutliveError):
        raise error
    return str(error)


def _found(entry: Listed, problem: str) -> dict[str, Any]:
    return {"name": entry.name, "whole": not problem, "problem": problem}


def _goes_by(entry: Listed, text: str) -> bool:
    return entry.name == text or (entry.checkpoint is not None and entry.checkpoint.label == text)


def _total_bytes(entry: Listed, listed: Sequence[Listed]) -> int:
    """How much memory there is to look at: its own and that of all it rests on."""
    known = {each.name: each.checkpoint for each in listed}
    total, name = 0, entry.checkpoint.name if entry.checkpoint else None
    for _ in range(len(known)):
        one = known.get(name) if name is not None else None
        if one is None:
            break
        total, name = total + one.memory.bytes, one.parent
    return total


def _listed(entry: Listed, newest: Checkpoint | None) -> dict[str, Any]:
    """One in a listing. differs: how the hardware that the newest was taken on is another than its own."""
    one = entry.checkpoint
    order = order_of(entry.name)
    return {
        "name": entry.name,
        "label": one.label if one else "",
        "generation": order[0] if order else 0,
        "host": one.host if one else "",
        "created_unix_s": one.created_unix_s if one else 0.0,
        "reason": one.reason if one else "",
        "parent": one.parent if one else None,
        "bytes": one.bytes if one else 0,
        "pause_ms": one.pause_ms if one else 0.0,
        "differs": refusal(one.hardware, newest.hardware) if one and newest else "",
        "problem": entry.problem,
    }


def _told(progress: Any) -> dict[str, Any] | None:
    if progress is None:
        return None
    told: dict[str, Any] = msgspec.to_builtins(progress)
    told.pop("told", None)
    return told


def _joined(past: bytes, live: bytes) -> bytes:
    """What a console wrote until now and since it was attached, without what stands in both."""
    most = min(len(past), len(live), _MOST_OVERLAP_BYTES)
    common = next((size for size in range(most, 0, -1) if past.endswith(live[:size])), 0)
    return past + live[common:]
