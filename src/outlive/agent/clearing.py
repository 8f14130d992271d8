"""Making sure that nothing of a workload is left on this host, however it came to be there.

Used when a workload is let go of, and for what an earlier agent left behind. It insists: it returns when it is so,
and says loudly what keeps it from being so. In which order things go is what safety rests on: the run lock goes last.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from outlive.errors import OutliveError
from outlive.fence.guard import GuardRefused
from outlive.runtime import cgroup

from .ground import Ground
from .guarding import GuardKeeper
from .seating import forget

RETRY_S = 0.2
EMPTIED_WITHIN_S = 5.0
TOLD_EVERY = 10

log = structlog.get_logger()


async def clear(ground: Ground, name: str, generation: int | None) -> None:
    """Kill whatever is left of a workload, then let go of its lock, guard and cgroups; returns when it is so.

    generation: as the guard knows it; None: the guard does not hold it.
    """
    tree = ground.premises.tree
    folder = tree.workload(name)
    # What holds the lock goes last, so that nobody else has it while a module still writes.
    await _emptied(name, [each for each in await asyncio.to_thread(_below, folder) if each.name != cgroup.RUNNER])
    await _emptied(name, [folder])
    if generation is not None:
        await insisting("guard.not_released", name, lambda: _released(ground.guard, name, generation))
    await insisting("cgroup.not_removed", name, lambda: tree.remove(name, EMPTIED_WITHIN_S))
    try:
        await ground.floor.wires.unplug(name)
    except OutliveError as error:
        # A tap that nobody has open carries nothing; whoever plugs in next finds it.
        log.warning("tap.not_removed", workload=name, reason=str(error))
    await asyncio.to_thread(forget, ground.floor, name)
    await asyncio.to_thread(shutil.rmtree, ground.premises.states / name, ignore_errors=True)


async def insisting(event: str, workload: str, act: Callable[[], Awaitable[object]]) -> None:
    """Do it again until it succeeds, loudly."""
    tries = 0
    while True:
        try:
            await act()
            return
        except OutliveError as error:
            if tries % TOLD_EVERY == 0:
                log.error(event, workload=workload, tries=tries + 1, reason=str(error))
            tries += 1
            await asyncio.sleep(RETRY_S if tries < TOLD_EVERY else 1.0)


async def _released(guard: GuardKeeper, name: str, generation: int) -> None:
    try:
        await guard.release(name, generation)
    except GuardRefused as refusal:
        if refusal.reason != "generation":
            raise
        # It holds another generation: that one is not ours to let go of.
        log.warning("guard.other_generation", workload=name, generation=generation)


async def _emptied(name: str, folders: list[Path]) -> None:
    tries = 0
    for folder in folders:
        while True:
            with contextlib.suppress(OSError):
                cgroup.kill(folder)
            if await cgroup.wait_empty(folder, EMPTIED_WITHIN_S):
                break
            log.error("workload.unkillable", workload=name, cgroup=str(folder), tries=(tries := tries + 1))


def _below(folder: Path) -> list[Path]:
    try:
        return [each for each in folder.iterdir() if each.is_dir()]
    except OSError:
        return []
