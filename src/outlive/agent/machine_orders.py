"""Orders about virtual machines beside starting and tearing down: standing by, pairing, taking over, moving.

Each is carried out in its workload's line of commands, so that two never meet, and is answered by events. An order for
a generation, or a pairing, that is not the one held here is answered by saying so, never carried out.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError

from .ground import Ground
from .holding import Holding, PreparationFailed
from .machine import MachineRuntime
from .observe import Tell

log = structlog.get_logger()


class _Make(Protocol):
    def __call__(self, workload: Workload, generation: int, role: Role = ..., pairing: int = ...) -> Holding: ...


class MachineOrders:
    """Carries them out. held: this host's holdings by workload.  let_go: of whatever is held of a workload."""

    def __init__(
        self,
        ground: Ground,
        held: dict[str, Holding],
        make: _Make,
        let_go: Callable[[str], Awaitable[None]],
        tell: Tell,
    ) -> None:
        self._ground = ground
        self._held = held
        self._make = make
        self._let_go = let_go
        self._tell = tell

    async def carry_out(self, command: do.Command, problem: str) -> None:
        """Carry out one order. problem: why the journal could not be saved; '' when it was."""
        match command:
            case do.PrepareStandby():
                await self._prepare_standby(command, problem)
            case do.DiscardStandby():
                await self._discard_standby(command)
            case do.TakeOver():
                await self._take_over(command, problem)
            case do.Pair() | do.MigrateTo() if problem:
                self._not_begun(command, problem)
            case do.Pair():
                await self._primary(command.workload, command.generation, lambda machine: machine.pair(command))
            case do.GoAlone():
                await self._primary(command.workload, command.generation, lambda machine: machine.go_alone(command))
            case do.HandOver():
                await self._primary(command.workload, command.generation, lambda machine: machine.hand_over())
            case do.MigrateTo():
                await self._primary(command.workload, command.generation, lambda machine: machine.migrate(command))
            case do.TakeCheckpoint():
                await self._primary(command.workload, command.generation, lambda machine: machine.checkpoint(command))
            case _:
                raise AssertionError(f"{type(command).__name__} is no order about machines")

    async def _prepare_standby(self, command: do.PrepareStandby, problem: str) -> None:
        workload, generation, pairing = command.workload, command.generation, command.pairing
        try:
            if problem:
                raise PreparationFailed("journal", problem)
            await self._let_go(workload.name)
            holding = self._held[workload.name] = self._make(workload, generation, command.role, pairing)
            await holding.make_ready()
            assert holding.machine is not None
            await holding.machine.stand_by()
        except (PreparationFailed, OutliveError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            log.warning("standby.not_prepared", workload=workload.name, generation=generation, reason=reason)
            await self._let_go(workload.name)
            at = self._ground.clock()
            self._tell(ev.StandbyFailed(at, workload.name, generation, pairing, reason))
        else:
            log.info("standby.prepared", workload=workload.name, generation=generation, pairing=pairing)

    async def _discard_standby(self, command: do.DiscardStandby) -> None:
        holding = self._held.get(command.workload)
        if holding is not None and holding.role is not Role.PRIMARY:
            await self._let_go(command.workload)
        at = self._ground.clock()
        self._tell(ev.StandbyDiscarded(at, command.workload, command.generation, command.pairing))

    async def _take_over(self, command: do.TakeOver, problem: str) -> None:
        name, to = command.workload, command.to_generation
        holding = self._held.get(name)
        if holding is not None and holding.generation == to and holding.in_force:
            self._tell(ev.TookOver(self._ground.clock(), name, to))
            return
        try:
            if problem:
                raise PreparationFailed("journal", problem)
            if holding is None or (holding.generation, holding.pairing) != (command.generation, command.pairing):
                raise PreparationFailed("adopt", "nothing stands by here for that pairing")
            await holding.take_over(to)
        except PreparationFailed as failed:
            log.error("machine.not_adopted", workload=name, generation=to, step=failed.step, reason=failed.reason)
            await self._let_go(name)
            self._tell(ev.TakeOverFailed(self._ground.clock(), name, to, str(failed)))
        else:
            self._tell(ev.TookOver(self._ground.clock(), name, to))

    def _not_begun(self, command: do.Pair | do.MigrateTo, problem: str) -> None:
        """A later agent would not know of it, and take what it holds for nobody's."""
        at, name, generation, pairing = self._ground.clock(), command.workload, command.generation, command.pairing
        reason = f"journal: {problem}"
        if isinstance(command, do.Pair):
            self._tell(ev.PeerLost(at, name, generation, pairing, Role.PRIMARY, reason))
        else:
            self._tell(ev.MigrationFailed(at, name, generation, pairing, reason))

    async def _primary(
        self, workload: str, generation: int, order: Callable[[MachineRuntime], Awaitable[None]]
    ) -> None:
        holding = self._held.get(workload)
        if holding is None or holding.generation != generation or holding.machine is None:
            log.info("machine.order_dropped", workload=workload, generation=generation, reason="it is not held here")
            return
        await order(holding.machine)
