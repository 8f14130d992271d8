"""Having a guard, always: what it must hold is remembered here and given to the next one when it dies.

The newest deadline is sent on at once and never queued up behind older ones. A guard that is lost is replaced at
once; until the next one holds the deadline and everything that is protected, the node is told only when that takes
longer than a moment, since then this host must stop acting. What fired stays fired: it is told, never undone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from outlive.cluster.events import GuardFired, GuardLost, GuardReady
from outlive.errors import OutliveError
from outlive.fence import guard as guards
from outlive.fence.guard import Fired, Guard, GuardRefused, Hello, Listener, Status, Stuck, Watchdog

from .observe import Clock, Tell

LOST_AFTER_S = 1.0
RETRY_S = 0.25

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Protected:
    generation: int
    cgroup: Path
    addresses: tuple[str, ...]


class GuardKeeper:
    """This host's guard, whichever process it is at the moment.

    make: gives a Guard that tells the listener; called once for each connection.
    watchdog: the device that it is to feed, as `make` starts it.
    late_s: how long after a deadline that one must have fired.
    """

    def __init__(self, make: Callable[[Listener], Guard], clock: Clock, *, watchdog: Watchdog | None = None) -> None:
        self._make = make
        self._clock = clock
        self._watchdog = watchdog
        self.late_s = 0.0
        self._tell: Tell = lambda _: None
        self._guard: Guard | None = None
        self._wanted: dict[str, _Protected] = {}
        self._deadline_at = 0.0
        self._in_force_at = 0.0
        self._wake = asyncio.Event()
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def deadline_at(self) -> float:
        """The deadline that the guard was last known to hold (boot clock, seconds)."""
        return self._in_force_at

    async def start(self) -> Status:
        """Find or start the guard; what it holds. Raises GuardLost or ProgramFailed."""
        guard = self._new()
        hello = await guard.start()
        if not hello.feeds(self._watchdog):
            guard, hello = await self._with_other_watchdog(guard, hello)
        self._guard = guard
        status = await guard.status()
        self._in_force_at = self._deadline_at = status.deadline_at
        log.info(
            "guard.connected",
            pid=hello.pid,
            watchdog=hello.watchdog,
            deadline_s=status.deadline_at,
            entries=len(status.entries),
        )
        for sentence in hello.lacking():
            log.warning("guard.weakened", reason=sentence)
        return status

    async def _with_other_watchdog(self, guard: Guard, hello: Hello) -> tuple[Guard, Hello]:
        """The guard was started when the agent file said otherwise: another takes its place if nothing is protected."""
        try:
            await guard.quit()
        except GuardRefused:
            log.warning(
                "guard.watchdog_unchanged",
                watchdog=hello.watchdog,
                device=hello.device,
                asked_s=hello.asked_s,
                reason="workloads are protected by it",
            )
            return guard, hello
        guard = self._new()
        return guard, await guard.start()

    async def whole(self) -> None:
        """Say that everything that this host acts for is protected. Raises GuardLost."""
        if self._guard is not None:
            await self._shielded(self._guard.whole())

    def adopt(self, workload: str, entry: guards.Entry) -> None:
        """Keep protected what an earlier agent had protected."""
        self._wanted[workload] = _Protected(entry.generation, entry.cgroup, entry.addresses)

    async def protect(self, workload: str, generation: int, cgroup: Path, addresses: tuple[str, ...]) -> None:
        """Protect a workload with this and every later guard. Raises GuardRefused or GuardLost."""
        await self._shielded(self._current().protect(workload, generation, cgroup, addresses))
        self._wanted[workload] = _Protected(generation, cgroup, addresses)

    async def release(self, workload: str, generation: int) -> None:
        """Let go of a workload of which nothing runs. Raises GuardRefused or GuardLost."""
        await self._shielded(self._current().release(workload, generation))
        wanted = self._wanted.get(workload)
        if wanted is not None and wanted.generation == generation:
            del self._wanted[workload]

    def set_deadline(self, at: float) -> None:
        """Have the guard hold this deadline, if it is later than the one it holds."""
        if at > self._deadline_at:
            self._deadline_at = at
            self._wake.set()

    async def run(self, tell: Tell) -> None:
        """Send deadlines on and replace lost guards, until cancelled."""
        self._tell = tell
        try:
            while True:
                if self._guard is None or not self._guard.connected:
                    await self._replace()
                await self._wake.wait()
                self._wake.clear()
                if self._guard is not None and self._guard.connected and self._deadline_at > self._in_force_at:
                    with contextlib.suppress(OutliveError):
                        self._in_force_at = await self._set(self._guard)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection; the guard goes on."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    async def _replace(self) -> None:
        lost_at, told = self._clock(), False
        log.warning("guard.lost", protected=len(self._wanted))
        while True:
            try:
                await self._take_up(self._new())
            except OutliveError as error:
                if not told and self._clock() - lost_at >= LOST_AFTER_S:
                    told = True
                    log.error("guard.not_replaced", reason=str(error), remedy=error.remedy)
                    self._tell(GuardLost(self._clock()))
                await asyncio.sleep(RETRY_S)
            else:
                log.info("guard.replaced", after_s=round(self._clock() - lost_at, 3))
                self._tell(GuardReady(self._clock()))
                return

    async def _take_up(self, guard: Guard) -> None:
        """Give a new guard all that is wanted; only then it is the one in use."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        try:
            await guard.start()
            self._in_force_at = (await guard.status()).deadline_at
            if self._deadline_at > self._in_force_at:
                self._in_force_at = await self._set(guard)
            for workload, wanted in list(self._wanted.items()):
                try:
                    await guard.protect(workload, wanted.generation, wanted.cgroup, wanted.addresses)
                except GuardRefused as refusal:
                    if refusal.reason != "fired":
                        raise
            await guard.whole()
        except BaseException:
            guard.close()
            raise
        self._guard = guard

    async def _set(self, guard: Guard) -> float:
        return await guard.deadline(self._deadline_at, self._deadline_at + self.late_s)

    def _new(self) -> Guard:
        return self._make(Listener(self._fired, self._stuck, self._wake.set))

    def _current(self) -> Guard:
        if self._guard is None:
            raise guards.GuardLost("No guard answers on this host.")
        return self._guard

    def _fired(self, fired: Fired) -> None:
        log.warning("guard.fired", workload=fired.workload, generation=fired.generation, late_s=round(fired.late_s, 3))
        self._tell(GuardFired(self._clock(), fired.workload, fired.generation))

    def _stuck(self, stuck: Stuck) -> None:
        log.error("guard.stuck", workload=stuck.workload, generation=stuck.generation, late_s=round(stuck.late_s, 3))

    async def _shielded(self, request: Coroutine[Any, Any, T]) -> T:
        """An answer that nobody waits for would be taken for the next one's, so a request is always heard out."""
        task = asyncio.ensure_future(request)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)
