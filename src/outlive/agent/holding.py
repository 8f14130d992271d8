"""One workload at one generation on this host: made ready to act, and let go of again.

The order is what safety rests on: the guard protects it before anything runs, the run lock is held before its
data is touched, its addresses come last. Letting go goes the other way and does not end before it is true.
What was taken is noted before it is taken, so that whoever interrupts can let go of it. When to do either is
decided elsewhere.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from outlive.cluster import events as ev
from outlive.cluster.commands import Held, Role
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine_rules import datastores_of
from outlive.cluster.workload import Kind, Workload
from outlive.datastore import locks
from outlive.datastore.locks import Record, RunLock, RunLockRefused, RunLockUnavailable
from outlive.errors import OutliveError
from outlive.fence.guard import Entry
from outlive.network.address import VirtualAddress, complete, parse
from outlive.network.errors import AddressInUse
from outlive.runtime import cgroup
from outlive.runtime.accounts import account
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.service import Service

from . import comm
from .clearing import clear, insisting
from .ground import Ground
from .machine import MachineRuntime
from .note import Note, read_note, write_note
from .observe import Tell
from .packages import Ready
from .seating import is_followed, lock_path

PATIENCE_S = 3.0
RETRY_S = 0.05
OWNED_WITHIN_S = 5.0

log = structlog.get_logger()


class PreparationFailed(Exception):
    """A workload could not be made ready. step: package, guard, lock, data, address…"""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.step}: {self.reason}"


class Holding:
    """A workload that this host has begun. in_force: it is made ready, and nothing of it was let go of since.

    role: a standby, or the target of a migration, is made ready too, but acts for nobody until `take_over`.
    told: takes what becomes of its modules.  tell: whatever else a machine tells.
    """

    def __init__(
        self,
        workload: Workload,
        generation: int,
        ground: Ground,
        told: Told,
        tell: Tell,
        role: Role = Role.PRIMARY,
        pairing: int = 0,
    ) -> None:
        self.workload = workload
        self.generation = generation
        self.role = role
        self.pairing = pairing
        self.in_force = False
        self.addresses: tuple[VirtualAddress, ...] = ()
        self.runtime: Service | MachineRuntime | None = None
        self.lock: RunLock | None = None
        self._ground = ground
        self._told = told
        self._tell = tell
        self._data: dict[str, Path] = {}
        self._package: Ready | None = None
        self._lock_watch: asyncio.Task[None] | None = None
        self._guarded = generation

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.workload.name

    @property
    def machine(self) -> MachineRuntime | None:
        """Its runtime, if it is a virtual machine that is made ready."""
        return self.runtime if isinstance(self.runtime, MachineRuntime) else None

    @property
    def lock_held(self) -> bool:
        """Whether it holds its run lock, if it needs one."""
        return self.lock is None or self.lock.held

    @property
    def _states(self) -> Path:
        return self._ground.premises.states / self.name

    @property
    def _lock_path(self) -> Path | None:
        return lock_path(self.workload, self._data)

    async def make_ready(self) -> None:
        """Take all that it needs to act, or to stand by. Raises PreparationFailed; then `let_go` is due."""
        tree, name = self._ground.premises.tree, self.name
        if self.workload.package is not None:
            with _step("package"):
                self._package = await self._ground.packages.ready(self.name, self.workload.package, self._say_step)
        with _step("cgroup"):
            followed = [comm.MODULE] if is_followed(self.workload) else []
            tree.make(name, [module.name for module in self.workload.modules] + followed)
        with _step("address"):
            wanted = [
                await self._ground.addresses.resolve(each.address, each.interface) for each in self.workload.virtual_ips
            ]
        with _step("guard"):
            texts = tuple(str(address) for address in wanted)
            await self._ground.guard.protect(name, self.generation, tree.workload(name), texts)
        await self._take_data()
        with _step("state"):
            await self._write_note(texts)
        self.addresses = tuple(wanted)
        with _step("address"):
            taken = await asyncio.gather(*map(self._take_address, wanted), return_exceptions=True)
            for outcome in taken:
                if isinstance(outcome, BaseException):
                    raise outcome
        self._stand()

    def _say_step(self, package: str, step: str, text: str) -> None:
        self._tell(ev.PackageStep(self._ground.clock(), self.name, self.generation, package, step, text))

    def _stand(self) -> None:
        """Everything is taken: modules may be started."""
        ground = self._ground
        addresses = tuple(str(address.ip) for address in self.addresses)
        data = self._data.get(self.workload.data_on) if self.workload.data_on is not None else None
        where = Whereabouts(ground.host, self.name, self.generation, data, addresses)
        if self._package is not None:
            where = replace(where, package=self._package.folder, variables=self._package.variables)
        if self.workload.kind is Kind.VM:
            self.runtime = MachineRuntime(
                self.workload, where, self.role, self.pairing, self._data, ground, self._told, self._tell
            )
        else:
            self.runtime = Service(self.workload, where, ground.premises, self._told, ground.tasks, ground.may_act)
        self.in_force = self.role is Role.PRIMARY
        if self.lock is not None:
            self._lock_watch = ground.tasks.create_task(self._keep_lock())

    async def take_over(self, to_generation: int) -> None:
        """Act from now on, at this generation, in the primary's place. Raises PreparationFailed; `let_go` is due."""
        assert self.machine is not None
        with _step("guard"):
            folder = self._ground.premises.tree.workload(self.name)
            await self._ground.guard.protect(self.name, to_generation, folder, ())
        self.generation = self._guarded = to_generation
        if self.role is Role.INCOMING and self._data and self.lock is None:
            with _step("lock"):
                await self._take_lock(PATIENCE_S)
            self._lock_watch = self._ground.tasks.create_task(self._keep_lock())
        self.role = Role.PRIMARY
        with _step("state"):
            await self._write_note(())
        with _step("adopt"):
            await self.machine.take_over(to_generation)
        self.in_force = True

    async def _write_note(self, addresses: tuple[str, ...]) -> None:
        data = {name: str(path) for name, path in self._data.items()}
        note = Note(self.generation, data, addresses, self.role, self.pairing)
        if self._package is not None:
            note = replace(note, package=str(self._package.folder), variables=self._package.variables)
        await asyncio.to_thread(write_note, self._states, note)

    async def _take_data(self) -> None:
        for name in datastores_of(self.workload):
            datastore = self._ground.datastores.get(name)
            if datastore is None:
                raise PreparationFailed("data", f"this host has no datastore {name}")
            with _step("data"):
                self._data[name] = await datastore.ensure_data_folder(self.name)
        if not self._data:
            return
        if self.role is Role.PRIMARY:
            with _step("lock"):
                await self._take_lock(PATIENCE_S)
        if self.workload.data_on is not None:
            with _step("data"):
                await self._own(self._data[self.workload.data_on])

    async def _take_lock(self, patience_s: float) -> None:
        """Take the run lock; one that is held may be let go at any moment by a host that is just being fenced."""
        path = self._lock_path
        assert path is not None
        self._states.mkdir(mode=0o750, parents=True, exist_ok=True)
        until = self._ground.clock() + patience_s
        while True:
            try:
                self.lock = await locks.acquire(
                    path,
                    Record(self._ground.host, self.generation),
                    cgroup=self._ground.premises.tree.runner(self.name),
                    state=self._states / "lock",
                )
                return
            except (RunLockRefused, RunLockUnavailable) as error:
                final = isinstance(error, RunLockRefused) and error.reason != "busy"
                if final or self._ground.clock() >= until:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _own(self, data: Path) -> None:
        """Give the data folder to the user that all modules run as, if there is one."""
        users = {module.user for module in self.workload.modules}
        if len(users) != 1 or (user := users.pop()) is None:
            return
        who = await account(user)
        process = await asyncio.create_subprocess_exec("chown", "-h", f"{who.user}:{who.group}", str(data))
        try:
            async with asyncio.timeout(OWNED_WITHIN_S):
                code = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if code != 0:
            raise PreparationFailed("data", f"{data} could not be given to {user}")

    async def _take_address(self, address: VirtualAddress) -> None:
        until = self._ground.clock() + PATIENCE_S
        while True:
            try:
                await self._ground.addresses.refuse_duplicate(address)
                break
            except AddressInUse:
                # The host that had it may have been fenced just now, and drops it any moment.
                if self._ground.clock() >= until:
                    raise
        now = self._ground.clock()
        await self._ground.addresses.add(address, self._ground.guard.deadline_at - now, counted_from_s=now)

    async def adopt(self, held: Held, entry: Entry) -> dict[str, ModuleStatus]:
        """Take over what an earlier agent left in force; empty when it is not whole and must be cleared away.

        A standby that was taking over stays one here, under the guard at the next generation: whether it goes on is
        for the node to say again.
        """
        note = await asyncio.to_thread(read_note, self._states)
        same = [(held.generation, held.role)]
        if entry.generation > held.generation:
            same.append((entry.generation, Role.PRIMARY))
        if note is None or (note.generation, note.role) not in same:
            return {}
        self._guarded = entry.generation
        self.pairing = note.pairing
        self._data = {name: Path(path) for name, path in note.data.items()}
        if self._data.keys() != set(datastores_of(self.workload)):
            return {}
        if note.package:
            self._package = Ready(Path(note.package), note.variables)
            if self.workload.package is not None:
                self._ground.packages.uses(self.name, self.workload.package)
        if self._data and self.role is Role.PRIMARY:
            self.lock = await locks.adopt(self._states / "lock", Record(self._ground.host, self.generation))
            if self.lock is None:
                return {}
        elif self._data and entry.generation > held.generation:
            # Taken or not, by the agent that was taking over: what is left of it may not stand in this one's way.
            self.lock = await locks.adopt(self._states / "lock", Record(self._ground.host, entry.generation))
        self._ground.guard.adopt(self.name, entry)
        self.addresses = tuple(complete(parse(text), ()) for text in note.addresses)
        self._stand()
        assert self.runtime is not None
        statuses = await self.runtime.adopt()
        return statuses if any(status is not ModuleStatus.FAILED for status in statuses.values()) else {}

    async def let_go(self) -> None:
        """Stop it, in order, and give everything back. Returns when nothing of it is here any more."""
        self.in_force = False
        if self._lock_watch is not None:
            self._lock_watch.cancel()
        if self.runtime is not None:
            await self.runtime.stop()
        for address in self.addresses:
            await insisting("address.not_removed", self.name, partial(self._ground.addresses.remove, address))
        self.addresses = ()
        await clear(self._ground, self.name, self._guarded)
        if self.lock is not None:
            self.lock.close()
            self.lock = None
        if self.workload.package is not None:
            self._ground.packages.done_with(self.name)

    def leave(self) -> None:
        """Let go of nothing but the watching: the next agent adopts it."""
        self.in_force = False
        if self.runtime is not None:
            self.runtime.leave()
        if self.lock is not None:
            self.lock.close()

    async def _keep_lock(self) -> None:
        """Take the run lock again should its holder be killed; without it the modules must not go on."""
        while self.lock is not None:
            await self.lock.lost()
            log.error("runlock.lost", workload=self.name, generation=self.generation)
            if not self._ground.may_act():
                return  # the guard ended it, and everything else of it
            try:
                await self._take_lock(0.0)
            except OutliveError as error:
                log.error("runlock.not_retaken", workload=self.name, reason=str(error), because="runlock.lost")
                self.in_force = False
                for module in self.workload.modules:
                    cgroup.kill(self._ground.premises.tree.module(self.name, module.name))
                return
            log.warning("runlock.retaken", workload=self.name, generation=self.generation)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Name the step at which making ready failed."""
    try:
        yield
    except (OutliveError, OSError, TimeoutError) as error:
        raise PreparationFailed(name, str(error) or type(error).__name__) from error
