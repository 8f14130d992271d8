"""How one machine is bound to its other half: seeded, held back for, handed over, gone on without, taken over from.

It does what the node decided, through the communication manager, and tells what comes of it. Who may go on is decided
by the store in between, never here. The invariant: a manager that may have held output back is never replaced before
the node has said that the store was won.
"""

import asyncio

import structlog

from outlive.cluster import commands as do
from outlive.cluster.commands import Role
from outlive.errors import OutliveError
from outlive.replication import control

from .comm import HELD_PHASES, PRIMARY_PHASES, CommFailed, Ended
from .machine_events import MachineEvents
from .machine_news import missed
from .machine_processes import Processes
from .standing import Standing

ADOPTED_WITHIN_S = 10.0

log = structlog.get_logger()


class Pairing:
    """The pairing of one machine.

    _bound: its manager may hold output for a standby, so that after its death none is let out before GoAlone.
    """

    def __init__(self, standing: Standing, processes: Processes, events: MachineEvents) -> None:
        self._standing = standing
        self._processes = processes
        self._events = events
        self._bound = False
        self._adopted: asyncio.Future[control.Adopted] | None = None

    # What the node decided.

    async def pair(self, command: do.Pair) -> None:
        """Have a standby seeded; what comes of it is told."""
        self._standing.pairing = command.pairing
        self._bound = True
        order = control.Pair(command.standby, command.address, command.port, command.generation, command.pairing)
        # The end of the one before it was told when it held nothing; only its successor can be told to pair.
        await self._processes.revived()
        if not await self._order(order):
            self._events.peer_lost("its communication manager cannot be told to pair")

    async def hand_over(self) -> None:
        """Complete a last epoch and leave the guest standing still."""
        await self._order(control.HandOver())

    def ended_by(self, pairing: int) -> bool:
        """The store was won at this pairing: nothing is held for anybody since. False when that was done before."""
        if self._standing.pairing >= pairing:
            return False
        self._standing.pairing = pairing
        self._bound = False
        return True

    async def let_out(self) -> None:
        """Let out what is held, and go on; a manager that died meanwhile is started anew."""
        if not self._processes.comm.runs:
            await self._processes.revive()
        else:
            await self._order(control.Alone(self._standing.pairing))

    async def adopt(self, to_generation: int) -> None:
        """The manager adopts the last whole epoch, unless an earlier agent has told it so before it ended.

        Raises OutliveError or TimeoutError.
        """
        comm = self._processes.comm
        if comm.phase in PRIMARY_PHASES:
            return
        self._adopted = asyncio.get_running_loop().create_future()
        if comm.phase != "adopting":
            await comm.send(control.Adopt(to_generation))
        async with asyncio.timeout(ADOPTED_WITHIN_S):
            adopted = await self._adopted
        log.info(
            "machine.adopted",
            workload=self._standing.workload,
            generation=to_generation,
            epoch=adopted.epoch,
            adopt_ms=round(adopted.adopt_ms, 1),
            load_ms=round(adopted.load_ms, 1),
        )

    async def _order(self, command: control.Command) -> bool:
        """Give it to the manager; False when there is none. The end of one that was bound is told by itself."""
        try:
            await self._processes.comm.send(command)
        except OutliveError as error:
            log.warning(
                "comm.not_told", workload=self._standing.workload, order=type(command).__name__, reason=str(error)
            )
            return False
        return True

    # What the manager tells.

    def found(self, status: control.Status | None) -> None:
        """An earlier agent's manager was found at a primary's side; None: none was, though there had been one."""
        self._bound = status is None or status.phase != "free"

    def died_unseen(self) -> None:
        """There is no manager any more, and no agent ran when it ended.

        What it held is lost with it, as frames on a wire may be. Nor does anybody know any more in which pairing it
        was; the note tells the one in which this machine came here.
        """
        self._standing.pairing = 0
        self.heard(Ended("it ended while no agent ran", "paired"))

    def heard(self, event: control.Event | Ended) -> None:
        """The manager told something, or is no more."""
        match event:
            case control.Status():
                if self._standing.role is Role.PRIMARY:
                    self._standing.pairing = max(self._standing.pairing, event.pairing)
                elif event.phase in PRIMARY_PHASES:
                    # It adopted while no agent listened, and what it told of that went nowhere.
                    self._has_adopted(control.Adopted(event.epoch, event.generation, 0.0, 0.0))
                if (before := missed(event)) is not None:
                    self.heard(before)
            case control.Adopted():
                self._has_adopted(event)
            case control.Refused(command=command, reason=reason):
                log.warning("comm.refused", workload=self._standing.workload, order=command, reason=reason)
                if command == "Adopt":
                    self._not_adopted(reason)
            case Ended(reason=reason, phase=phase):
                self._manager_ended(f"the communication manager ended: {reason}", phase)
            case _:
                self._events.news(event)

    def _has_adopted(self, adopted: control.Adopted) -> None:
        if self._adopted is not None and not self._adopted.done():
            self._adopted.set_result(adopted)

    def _not_adopted(self, reason: str) -> bool:
        """Whether it was to adopt, and that is over now."""
        if self._adopted is None or self._adopted.done():
            return False
        self._adopted.set_exception(CommFailed("The standby could not be adopted.", cause=reason))
        return True

    def _manager_ended(self, reason: str, phase: str) -> None:
        if self._not_adopted(reason):
            return  # whoever waits for it clears away what is left
        if self._standing.role is Role.STANDBY:
            self._events.standby_failed(reason)
            return
        # One that was seeding may have held already, and its standby have a whole epoch that was never told here.
        bound = self._bound or phase in ("seeding", *HELD_PHASES)
        if bound:
            self._events.peer_lost(reason)
        # What was held back is let out only by GoAlone; a manager that held nothing is replaced at once.
        self._processes.manager_ended(reason, replace_it=not bound)
