"""Following one run of the emulator: its monitor's events, the guest's health, and the way down.

What is told to the module's supervisor is raised as `Sick`; everything else is noted. A monitor that does not answer
is tried again for as long as the process lives: storage that hangs holds QEMU up, and is no reason to kill a guest.

A guest in epochs is stopped and let go on hundreds of times a second, and QEMU tells every client of each: there we
connect for a moment now and then instead. Nothing is missed by that, since each state that matters stays.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from outlive.cluster.machine import Machine, OnPanic
from outlive.errors import OutliveError
from outlive.runtime.health import Sick
from outlive.runtime.runner import Running

from . import evidence
from .console import trim
from .guest_watch import LOOK_EVERY_S, Impression, Judgement, Look, after_reset, judged, seen
from .qmp import CONNECT_WITHIN_S, Events, Monitor, VmFailed, VmUnreachable
from .seat import Seat
from .states import GuestState, from_qmp

RECONNECT_S = 1.0
READY_POLL_S = 0.1
LOOK_IN_S = 2.0
TRIM_EVERY_S = 20.0
EPOCH_S = 2.0
DISK_RETRY_S = 2.0
DISK_FAILED_S = 30.0
SILENT_NOTED_S = 60.0
BUTTON_AGAIN_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that happened to a guest beside its module's status.

    what: guest.paused, guest.running, guest.waiting, guest.moved, guest.reset, guest.panicked, guest.disk-failed,
          guest.hung, vm.monitor-silent.
    """

    what: str
    sentence: str


_STATES_NOTED = {
    GuestState.PAUSED: "guest.paused",
    GuestState.RUNNING: "guest.running",
    GuestState.WAITING: "guest.waiting",
    GuestState.MOVED: "guest.moved",
    GuestState.POWERED_OFF: "guest.powered-off",
}


class Follower:
    """Follows one run. may_act: whether the host's claim is in force."""

    def __init__(
        self,
        machine: Machine,
        seat: Seat,
        running: Running,
        noted: Callable[[Noted], None],
        may_act: Callable[[], bool],
    ) -> None:
        self._machine = machine
        self._seat = seat
        self._running = running
        self._noted = noted
        self._may_act = may_act
        self._events: Events | None = None
        self._halted_at: float | None = None
        self._silent_since: float | None = None
        self._silence_noted = False
        self._asking = asyncio.Lock()
        self.monitor: Monitor | None = None
        self.state = GuestState.UNKNOWN
        self.ready = False
        self.told_ready = False
        self.quitting = False

    async def connect(self, within_s: float) -> None:
        """Connect to the monitor and ask what the guest does. Raises VmUnreachable or VmFailed."""
        await self.close()
        monitor = await Monitor.connect(self._seat.agents_qmp, within_s)
        self.monitor, self._events = monitor, monitor.listen()
        await self._ask()
        self.ready = True

    async def close(self) -> None:
        """Let go of the monitor."""
        monitor, self.monitor = self.monitor, None
        if self._events is not None:
            self._events.close()
            self._events = None
        if monitor is not None:
            await monitor.close()

    @asynccontextmanager
    async def monitored(self) -> AsyncIterator[Monitor]:
        """The monitor for a while, connected for that time where it is not. Raises VmUnreachable."""
        async with self._asking:
            if self.monitor is None or not self.monitor.connected:
                await self.connect(CONNECT_WITHIN_S)
            assert self.monitor is not None
            try:
                yield self.monitor
            finally:
                if self._seat.in_epochs:
                    await self.close()

    async def until_ready(self, within_s: float) -> None:
        """Return once the guest runs, or waits as it should. Raises Sick when that takes too long."""
        until = time.monotonic() + within_s
        while True:
            try:
                async with self.monitored():
                    return
            except OutliveError as error:
                if self.ready:  # adopted: it had been ready before
                    return
                if time.monotonic() >= until:
                    raise Sick(f"its emulator did not become ready within {within_s:g} s: {error}") from None
                await asyncio.sleep(READY_POLL_S)

    async def follow(self) -> None:
        """Follow it until it has failed. Raises Sick."""
        async with asyncio.TaskGroup() as following:
            following.create_task(self._look_in() if self._seat.in_epochs else self._follow_events())
            following.create_task(self._trim())
            following.create_task(self._follow_disks())
            if self._machine.watch.enabled and self._machine.guest_agent:
                following.create_task(self._watch_guest())

    async def shut_down(self, within_s: float) -> None:
        """Ask the guest to power itself off and give it time; then, or where it does not run, ask QEMU to end."""
        try:
            if self.monitor is None or not self.monitor.connected:
                await self.connect(CONNECT_WITHIN_S)
            await self._ask()
            until = time.monotonic() + EPOCH_S
            while self._seat.in_epochs and self.state is GuestState.PAUSED and time.monotonic() < until:
                await asyncio.sleep(READY_POLL_S / 10)
                await self._ask()
            if self.state is GuestState.RUNNING and within_s > 0:
                await self._power_off(within_s)
            await self._call("quit")
            self.quitting = True
        except VmUnreachable:
            self.quitting = self.state is GuestState.POWERED_OFF
        except VmFailed as error:
            log.warning("vm.would_not_quit", reason=str(error))

    async def _power_off(self, within_s: float) -> None:
        until = time.monotonic() + within_s
        pressed_at = 0.0
        while self.state is GuestState.RUNNING and (now := time.monotonic()) < until:
            if now - pressed_at >= BUTTON_AGAIN_S:
                # Again: a guest that is just starting does not see the first time.
                await self._call("system_powerdown")
                pressed_at = now
            await asyncio.sleep(READY_POLL_S)
            await self._ask()
        if self.state is GuestState.RUNNING:
            log.warning("vm.power_button_ignored", waited_s=within_s)

    async def _call(self, command: str) -> Any:
        if self.monitor is None:
            raise VmUnreachable("The emulator's monitor is not connected.")
        return await self.monitor.call(command)

    async def _ask(self) -> None:
        status = await self._call("query-status")
        self._is(from_qmp(str(status.get("status"))))

    def _is(self, state: GuestState) -> None:
        if state is self.state:
            return
        before, self.state = self.state, state
        if state is GuestState.HALTED_BY_DISK:
            self._halted_at = time.monotonic()
        elif state is GuestState.RUNNING:
            self._halted_at = None
        # A communication manager stops the guest and lets it go on as its daily work.
        routine = self._seat.comm_qmp is not None and {before, state} == {GuestState.RUNNING, GuestState.PAUSED}
        # One that powered itself off while no agent ran has done so all the same.
        news = before is not GuestState.UNKNOWN or state is GuestState.POWERED_OFF
        if news and state in _STATES_NOTED and not routine:
            self._noted(Noted(_STATES_NOTED[state], f"the guest is {state.value} and was {before.value}"))

    async def _follow_events(self) -> None:
        while True:
            try:
                async with self.monitored():
                    events = self._events
                self._answered()
                while events is not None:
                    await self._heard(await events.next())
            except OutliveError as error:
                self._silent(error)
            await asyncio.sleep(RECONNECT_S)

    async def _look_in(self) -> None:
        while True:
            try:
                async with self.monitored():
                    await self._ask()
                self._answered()
            except OutliveError as error:
                self._silent(error)
            await asyncio.sleep(LOOK_IN_S)

    def _answered(self) -> None:
        self._silent_since, self._silence_noted = None, False
        self._judge()

    def _silent(self, error: OutliveError) -> None:
        now = time.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since >= SILENT_NOTED_S and not self._silence_noted:
            self._silence_noted = True
            self._noted(Noted("vm.monitor-silent", f"its emulator does not answer: {error}"))

    async def _heard(self, event: Mapping[str, Any]) -> None:
        name, data = event.get("event"), event.get("data") or {}
        match name:
            case "STOP" | "RESUME" | "SHUTDOWN" | "MIGRATION":
                await self._ask()
            case "RESET":
                self._noted(
                    Noted("guest.reset", f"the guest was reset: {data.get('reason', 'nothing is known of why')}")
                )
            case "GUEST_PANICKED":
                self._noted(Noted("guest.panicked", "its kernel panicked"))
                await self._ask()
            case "GUEST_CRASHLOADED":
                self._noted(Noted("guest.panicked", "its kernel panicked and handles that by itself"))
            case "BLOCK_IO_ERROR":
                reason = data.get("reason", "nothing is said of why")
                disk = str(data.get("node-name") or data.get("device") or data.get("qom-path") or "?")
                self._noted(Noted("guest.disk-failed", f"{data.get('operation')} of {disk} failed: {reason}"))
                await self._ask()
            case _:
                return
        self._judge()

    def _judge(self) -> None:
        """Raises Sick where the guest's state is a failure of its module."""
        match self.state:
            case GuestState.POWERED_OFF:
                raise Sick("the guest powered itself off")
            case GuestState.PANICKED if self._machine.watch.panic is OnPanic.RESTART:
                raise Sick("the guest's kernel panicked")
            case GuestState.BROKEN:
                raise Sick("its emulator met an error of its own")

    async def _follow_disks(self) -> None:
        """Let a guest go on that a failed disk halted, in case it was for a moment; after a while it has failed."""
        while True:
            await asyncio.sleep(DISK_RETRY_S)
            if self.state is not GuestState.HALTED_BY_DISK or self._halted_at is None:
                continue
            if time.monotonic() - self._halted_at >= DISK_FAILED_S:
                raise Sick(f"a disk of it failed for {DISK_FAILED_S:g} s")
            # Under a communication manager, running and standing still are the manager's to say.
            if self._seat.comm_qmp is None and self._may_act():
                since = self._halted_at
                try:
                    async with self.monitored() as monitor:
                        await monitor.call("cont")
                    await asyncio.sleep(DISK_RETRY_S)
                except OutliveError:
                    continue
                if self.state is GuestState.HALTED_BY_DISK:
                    self._halted_at = since

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            try:
                await asyncio.to_thread(trim, self._seat.console_log)
            except OSError as error:
                log.warning("vm.console_not_trimmed", reason=str(error))

    async def _watch_guest(self) -> None:
        policy = self._machine.watch
        impression = Impression(_now())
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            impression = seen(impression, await self._look())
            match judged(policy, impression, _now()):
                case Judgement.RESET if self._may_act():
                    quiet = f"silent for {policy.silence_s:g} s and without input or output for {policy.no_io_s:g} s"
                    self._noted(Noted("guest.hung", f"the guest hangs and is reset: {quiet}"))
                    try:
                        async with self.monitored() as monitor:
                            await monitor.call("system_reset")
                    except OutliveError as error:
                        log.warning("vm.not_reset", reason=str(error))
                    else:
                        impression = after_reset(policy, impression, _now())
                case Judgement.GIVE_UP:
                    raise Sick(f"the guest hangs, and was reset {policy.resets} times within {policy.window_s:g} s")

    async def _look(self) -> Look:
        try:
            async with self.monitored() as monitor:
                return await evidence.look(monitor, self._seat, _now())
        except OutliveError:
            return Look(_now(), running=False, answered=False)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
