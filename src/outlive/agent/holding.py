"""One workload at one generation on this host: made ready to act, and let go of again.

The order is what safety rests on: the guard protects it before anything runs, the run lock is held before its
data is touched, its addresses come last. Letting go goes the other way and does not end before it is true.
What was taken is noted before it is taken, so that whoever interrupts can let go of it. When to do either is
decided elsewhere.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import structlog

from outlive.cluster.commands import Held
from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.workload import Workload
from outlive.datastore import locks
from outlive.datastore.datastore import Datastore
from outlive.datastore.locks import Record, RunLock, RunLockRefused, RunLockUnavailable
from outlive.errors import OutliveError
from outlive.fence.guard import Entry, GuardRefused
from outlive.network.address import VirtualAddress, complete, parse
from outlive.network.errors import AddressInUse
from outlive.network.virtual_ip import VirtualIps
from outlive.runtime import cgroup
from outlive.runtime.accounts import account
from outlive.runtime.base import Told, Whereabouts
from outlive.runtime.service import Premises, Service

from .guarding import GuardKeeper
from .observe import Clock

PATIENCE_S = 3.0
RETRY_S = 0.2
OWNED_WITHIN_S = 5.0
EMPTIED_WITHIN_S = 5.0
TOLD_EVERY = 10

log = structlog.get_logger()


class PreparationFailed(Exception):
    """A workload could not be made ready. step: guard, lock, data, address…"""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ground:
    """What workloads stand on at this host."""

    host: str
    premises: Premises
    guard: GuardKeeper
    datastores: Mapping[str, Datastore]
    addresses: VirtualIps
    clock: Clock
    tasks: asyncio.TaskGroup

    def may_act(self) -> bool:
        """Whether the claim is in force, by what the guard is known to hold."""
        return self.clock() < self.guard.deadline_at


@dataclass(frozen=True, slots=True)
class _Note:
    """What the next agent must know of a workload that it finds here."""

    generation: int
    data: str | None
    addresses: tuple[str, ...]


class Holding:
    """A workload that this host has begun. in_force: it is made ready, and nothing of it was let go of since."""

    def __init__(self, workload: Workload, generation: int, ground: Ground, told: Told) -> None:
        self.workload = workload
        self.generation = generation
        self.in_force = False
        self.addresses: tuple[VirtualAddress, ...] = ()
        self.service: Service | None = None
        self.lock: RunLock | None = None
        self._ground = ground
        self._told = told
        self._lock_path: Path | None = None
        self._lock_watch: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The workload's name."""
        return self.workload.name

    @property
    def _states(self) -> Path:
        return self._ground.premises.states / self.name

    async def make_ready(self) -> None:
        """Take all that it needs to act. Raises PreparationFailed; then `let_go` is due."""
        tree, name = self._ground.premises.tree, self.name
        with _step("cgroup"):
            tree.make(name, [module.name for module in self.workload.modules])
        with _step("address"):
            wanted = [
                await self._ground.addresses.resolve(each.address, each.interface) for each in self.workload.virtual_ips
            ]
        with _step("guard"):
            texts = tuple(str(address) for address in wanted)
            await self._ground.guard.protect(name, self.generation, tree.workload(name), texts)
        data = await self._take_data()
        note = _Note(self.generation, str(data) if data else None, texts)
        with _step("state"):
            await asyncio.to_thread(_write_note, self._states, note)
        self.addresses = tuple(wanted)
        with _step("address"):
            taken = await asyncio.gather(*map(self._take_address, wanted), return_exceptions=True)
            for outcome in taken:
                if isinstance(outcome, BaseException):
                    raise outcome
        self._stand(data)

    def _stand(self, data: Path | None) -> None:
        """Everything is taken: modules may be started."""
        addresses = tuple(str(address.ip) for address in self.addresses)
        where = Whereabouts(self._ground.host, self.name, self.generation, data, addresses)
        self.service = Service(
            self.workload, where, self._ground.premises, self._told, self._ground.tasks, self._ground.may_act
        )
        self.in_force = True
        if self.lock is not None:
            self._lock_watch = self._ground.tasks.create_task(self._keep_lock())

    async def _take_data(self) -> Path | None:
        if self.workload.data_on is None:
            return None
        datastore = self._ground.datastores.get(self.workload.data_on)
        if datastore is None:
            raise PreparationFailed("data", f"this host has no datastore {self.workload.data_on}")
        with _step("data"):
            data = await datastore.ensure_data_folder(self.name)
        self._lock_path = data.parent / f"{self.name}.lock"
        with _step("lock"):
            await self._take_lock(PATIENCE_S)
        with _step("data"):
            await self._own(data)
        return data

    async def _take_lock(self, patience_s: float) -> None:
        """Take the run lock; one that is held may be let go at any moment by a host that is just being fenced."""
        assert self._lock_path is not None
        self._states.mkdir(mode=0o750, parents=True, exist_ok=True)
        until = self._ground.clock() + patience_s
        while True:
            try:
                self.lock = await locks.acquire(
                    self._lock_path,
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
        """Take over what an earlier agent left in force; empty when it is not whole and must be cleared away."""
        note = await asyncio.to_thread(_read_note, self._states)
        if note is None or note.generation != held.generation:
            return {}
        if self.workload.data_on is not None:
            record = Record(self._ground.host, self.generation)
            self.lock = await locks.adopt(self._states / "lock", record)
            if self.lock is None or note.data is None:
                return {}
            self._lock_path = self.lock.path
        self._ground.guard.adopt(self.name, entry)
        self.addresses = tuple(complete(parse(text), ()) for text in note.addresses)
        self._stand(Path(note.data) if note.data is not None else None)
        assert self.service is not None
        statuses = await self.service.adopt()
        return statuses if any(status is not ModuleStatus.FAILED for status in statuses.values()) else {}

    async def let_go(self) -> None:
        """Stop it, in order, and give everything back. Returns when nothing of it is here any more."""
        self.in_force = False
        if self._lock_watch is not None:
            self._lock_watch.cancel()
        if self.service is not None:
            await self.service.stop()
        for address in self.addresses:
            await insisting("address.not_removed", self.name, partial(self._ground.addresses.remove, address))
        self.addresses = ()
        await clear(self._ground, self.name, self.generation)
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def leave(self) -> None:
        """Let go of nothing but the watching: the next agent adopts it."""
        self.in_force = False
        if self.service is not None:
            self.service.leave()
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


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Name the step at which making ready failed."""
    try:
        yield
    except (OutliveError, OSError, TimeoutError) as error:
        raise PreparationFailed(name, str(error) or type(error).__name__) from error


def _write_note(folder: Path, note: _Note) -> None:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    beside = folder / "note.new"
    beside.write_bytes(msgspec.json.encode(note))
    beside.replace(folder / "note")


def _read_note(folder: Path) -> _Note | None:
    try:
        return msgspec.json.decode((folder / "note").read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return None
