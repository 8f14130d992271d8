"""All workloads of this host: what concerns one is done in order, what concerns different ones side by side.

Commands of one workload wait in its line. Tearing down does not wait: it breaks off what is under way for
that workload, since whatever that had taken is let go of anyway. Here also the addresses in force are renewed
with every new deadline, and what the kernel says is compared with what should be, every few seconds.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

import structlog

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Held, Journal, Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Workload
from outlive.errors import OutliveError
from outlive.fence.guard import Entry, Status
from outlive.network.address import VirtualAddress
from outlive.network.errors import AddressMissing, LifetimeEnded

from .clearing import clear
from .durable import JournalKeeper
from .ground import Ground
from .holding import Holding, PreparationFailed
from .machine import MachineRuntime
from .machine_orders import MachineOrders
from .observe import Tell

RECONCILE_S = 3.0

Work = (
    do.Prepare
    | do.StartModule
    | do.Announce
    | do.TearDown
    | do.PrepareStandby
    | do.DiscardStandby
    | do.TakeOver
    | do.Pair
    | do.GoAlone
    | do.HandOver
    | do.MigrateTo
    | do.TakeCheckpoint
)

log = structlog.get_logger()


@dataclass(slots=True)
class _Line:
    """What waits to be done for one workload, each with the number of the journal it needs."""

    waiting: deque[tuple[Work, int]] = field(default_factory=deque)
    worker: asyncio.Task[None] | None = None
    under_way: Work | None = None
    doing: asyncio.Task[None] | None = None


class Holdings:
    """What this host holds. tell: takes the events."""

    def __init__(self, ground: Ground, journal: JournalKeeper, tell: Tell) -> None:
        self._ground = ground
        self._journal = journal
        self._tell = tell
        self._held: dict[str, Holding] = {}
        self._lines: dict[str, _Line] = {}
        self._renew = asyncio.Event()
        self._troubles: dict[VirtualAddress, str] = {}
        self._machines = MachineOrders(ground, self._held, self._holding, self._let_go_of_older, tell)

    @property
    def in_force(self) -> list[Holding]:
        """The workloads that are made ready here."""
        return [holding for holding in self._held.values() if holding.in_force]

    @property
    def names(self) -> set[str]:
        """The workloads of which anything is here."""
        return set(self._held)

    def machine(self, workload: str) -> MachineRuntime | None:
        """A workload's machine here, in whatever role; None when it is none, or nothing of it is here."""
        holding = self._held.get(workload)
        return holding.machine if holding is not None else None

    # What was left by an earlier agent.

    async def adopt(self, journal: Journal | None, status: Status) -> dict[str, dict[str, ModuleStatus]]:
        """Take over what is whole, and clear away everything else below our own cgroup; the modules' statuses."""
        entries = {entry.workload: entry for entry in status.entries}
        alive: dict[str, dict[str, ModuleStatus]] = {}
        for held in journal.held if journal is not None else ():
            entry = entries.get(held.workload.name)
            if entry is None or entry.state != "protected" or not _is_of(entry, held):
                continue
            holding = self._holding(held.workload, held.generation, held.role, held.pairing)
            try:
                statuses = await holding.adopt(held, entry)
            except (OutliveError, OSError) as error:
                # One that cannot be had again must not keep the agent from all the others.
                log.error("workload.not_adopted", workload=holding.name, generation=held.generation, reason=str(error))
                statuses = {}
            if statuses:
                self._held[holding.name] = holding
                alive[holding.name] = statuses
                log.info("workload.adopted", workload=holding.name, generation=holding.generation)
            else:
                await holding.let_go()
        leftovers = await asyncio.to_thread(self._leftovers)
        gone = {*leftovers, *entries} - alive.keys()
        await asyncio.gather(*(self._clear(name, entries.get(name)) for name in sorted(gone)))
        await self._remove_leftover_addresses()
        return alive

    def watch_adopted(self) -> None:
        """Begin to tell of what was adopted, once the machines know of it."""
        for holding in self._held.values():
            if holding.runtime is not None:
                holding.runtime.watch_adopted()

    async def _clear(self, name: str, entry: Entry | None) -> None:
        log.warning("leftover.cleared", workload=name, guard=entry.state if entry else "unknown to it")
        await clear(self._ground, name, entry.generation if entry else None)

    def _leftovers(self) -> list[str]:
        root = self._ground.premises.tree.root
        return [each.name for each in root.iterdir() if each.is_dir()] if root.is_dir() else []

    # Commands.

    def begin(self, command: Work, journal: int) -> None:
        """Have one command done in its turn. journal: the number of the journal that must be durable before."""
        name = command.workload.name if isinstance(command, do.Prepare | do.PrepareStandby) else command.workload
        line = self._lines.setdefault(name, _Line())
        if isinstance(command, do.TearDown | do.DiscardStandby):
            line.waiting = deque(work for work in line.waiting if work[0].generation != command.generation)
            under_way = line.under_way
            if line.doing is not None and under_way is not None and under_way.generation == command.generation:
                line.doing.cancel()
        line.waiting.append((command, journal))
        if line.worker is None:
            line.worker = self._ground.tasks.create_task(self._work(name, line))

    async def _work(self, name: str, line: _Line) -> None:
        while line.waiting:
            line.under_way, journal = line.waiting.popleft()
            line.doing = self._ground.tasks.create_task(self._do(line.under_way, journal))
            await asyncio.wait([line.doing])
            line.under_way = line.doing = None
        line.worker = None
        del self._lines[name]

    async def _do(self, command: Work, journal: int) -> None:
        match command:
            case do.Prepare():
                await self._prepare(command, journal)
            case do.StartModule():
                await self._start(command, journal)
            case do.Announce():
                holding = self._of(command)
                if holding is not None:
                    self._announce(holding.addresses)
            case do.TearDown():
                await self._tear_down(command)
            case _:
                if problem := await self._journal.saved(journal):
                    log.error("journal.not_saved", workload=command.workload, reason=problem)
                await self._machines.carry_out(command, problem)

    async def _prepare(self, command: do.Prepare, journal: int) -> None:
        workload, generation = command.workload, command.generation
        try:
            if problem := await self._journal.saved(journal):
                raise PreparationFailed("journal", problem)
            await self._let_go_of_older(workload.name)
            holding = self._held[workload.name] = self._holding(workload, generation)
            await holding.make_ready()
        except PreparationFailed as failed:
            log.warning(
                "workload.not_prepared",
                workload=workload.name,
                generation=generation,
                step=failed.step,
                reason=failed.reason,
            )
            await self._let_go_of_older(workload.name)
            self._tell(ev.PrepareFailed(self._ground.clock(), workload.name, generation, failed.step, failed.reason))
        else:
            self._tell(ev.Prepared(self._ground.clock(), workload.name, generation))

    async def _let_go_of_older(self, name: str) -> None:
        older = self._held.get(name)
        if older is not None:
            await older.let_go()
            self._held.pop(name, None)
        elif self._ground.premises.tree.workload(name).is_dir():
            await clear(self._ground, name, None)

    async def _start(self, command: do.StartModule, journal: int) -> None:
        await self._journal.saved(journal)
        holding = self._of(command)
        if holding is None or not holding.in_force or holding.runtime is None or not holding.lock_held:
            lacking = holding is not None and not holding.lock_held
            reason = "its run lock is not held" if lacking else "it is not ready to act here"
            self._tell_module(command.workload, command.generation, command.module, ModuleStatus.FAILED, reason)
            return
        await holding.runtime.start(command.module)

    async def _tear_down(self, command: do.TearDown) -> None:
        holding = self._held.get(command.workload)
        # An older one is there when the preparation that was to let go of it was broken off.
        if holding is None or holding.generation <= command.generation:
            await self._let_go_of_older(command.workload)
        log.info("workload.torn_down", workload=command.workload, generation=command.generation)
        self._tell(ev.TornDown(self._ground.clock(), command.workload, command.generation))

    def _of(self, command: do.StartModule | do.Announce) -> Holding | None:
        holding = self._held.get(command.workload)
        return holding if holding is not None and holding.generation == command.generation else None

    def _holding(self, workload: Workload, generation: int, role: Role = Role.PRIMARY, pairing: int = 0) -> Holding:
        name = workload.name

        def told(module: str, status: ModuleStatus, reason: str) -> None:
            # A standby that took over is at a later generation than it was made ready for.
            self._tell_module(name, holding.generation, module, status, reason)

        holding = Holding(workload, generation, self._ground, told, self._tell, role, pairing)
        return holding

    def _tell_module(self, workload: str, generation: int, module: str, status: ModuleStatus, reason: str) -> None:
        log.debug("module.changed", workload=workload, module=module, status=status.name.lower(), reason=reason)
        self._tell(ev.ModuleChanged(self._ground.clock(), workload, generation, module, status, reason))

    def placements_moved(self) -> None:
        """The store's placements are newer: machines that are about to move, or no longer, are told at once.

        This overtakes the line of orders, and may be older than the last of them: machines go by the pairing.
        """
        placements = self._ground.picture().placements
        for holding in self.in_force:
            placed, machine = placements.get(holding.name), holding.machine
            if placed is None or machine is None or placed.record.generation != holding.generation:
                continue
            if placed.record.moving_to is not None:
                self._ground.tasks.create_task(machine.hold_checkpoints(placed.record.pairing))
            else:
                machine.release_checkpoints(placed.record.pairing)

    # Addresses.

    def set_deadline(self, deadline_at: float) -> None:
        """Let the guard and the addresses in force have a new deadline."""
        self._ground.guard.set_deadline(deadline_at)
        self._renew.set()

    def announce_on(self, interface: str) -> None:
        """A link is back: tell its neighbours again what is here."""
        for holding in self.in_force:
            self._announce(tuple(each for each in holding.addresses if each.interface == interface))

    def _announce(self, addresses: tuple[VirtualAddress, ...]) -> None:
        for address in addresses:
            self._ground.tasks.create_task(self._announced(address))

    async def _announced(self, address: VirtualAddress) -> None:
        try:
            await self._ground.addresses.announce(address)
        except OutliveError as error:
            log.warning("address.not_announced", address=str(address), reason=str(error))

    async def keep_addresses(self) -> None:
        """Renew addresses with each deadline, and set right what differs from what should be, until cancelled."""
        self._ground.tasks.create_task(self._reconcile_now_and_then())
        while True:
            await self._renew.wait()
            self._renew.clear()
            for holding in self.in_force:
                for address in holding.addresses:
                    await self._keep(holding, address)

    async def _reconcile_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            await self._remove_leftover_addresses()

    async def _keep(self, holding: Holding, address: VirtualAddress) -> None:
        now = self._ground.clock()
        left_s = self._ground.guard.deadline_at - now
        if left_s <= 0:
            return
        addresses = self._ground.addresses
        try:
            try:
                await addresses.renew(address, left_s, counted_from_s=now)
            except AddressMissing as missing:
                if not holding.in_force:
                    return
                log.warning("address.missed", address=str(address), workload=holding.name, reason=missing.cause)
                await addresses.add(address, left_s, counted_from_s=now)
                self._announce((address,))
            self._troubles.pop(address, None)
        except LifetimeEnded:
            return
        except OutliveError as error:
            if self._troubles.get(address) != error.id:
                log.error("address.not_kept", address=str(address), workload=holding.name, reason=str(error))
            self._troubles[address] = error.id

    async def _remove_leftover_addresses(self) -> None:
        expected = [address for holding in self._held.values() for address in holding.addresses]
        try:
            await self._ground.addresses.reconcile(expected)
        except OutliveError as error:
            log.warning("address.not_reconciled", reason=str(error))

    def leave(self) -> None:
        """Let go of nothing; the next agent adopts what runs."""
        for holding in self._held.values():
            holding.leave()


def _is_of(entry: Entry, held: Held) -> bool:
    """Whether the guard protects what the journal tells of; a standby may have been taking over when its agent died."""
    taking_over = held.role is not Role.PRIMARY and held.ended is None and entry.generation == held.generation + 1
    return entry.generation == held.generation or taking_over
