"""A datastore as the agent uses it: every call ends within its time limit, whatever the storage does.

The calls are performed in order by one worker process (`process`, `worker`). A call that waits longer than
`Limits.call_s` raises DatastoreTimeout; a worker that is silent for `Limits.abandon_s` is killed and another one
started, but never while `Limits.most_stuck` of them are still held by the kernel. Signs and tables are packed,
checked and refused here, so that the worker needs no key.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from outlive.cluster.heartbeat import Heartbeat, ModuleTable
from outlive.cluster.host import checked_name
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import Seal

from . import protected as protected_file
from . import tables as table_file
from .errors import DatastoreError, DatastoreTimeout, RecordRefused, error_of
from .process import Reply, WorkerEnded, WorkerProcess
from .protected import ProtectedList, pack_protected, unpack_protected
from .slots import Slot, SlotReader, SlotRefused, pack_slot
from .tables import pack_table, unpack_table

MOST_WAITING = 32
CLOSE_S = 0.5

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """call_s: the longest that a call takes.  abandon_s: how long a worker may be silent before it is replaced.

    most_stuck: how many abandoned workers the kernel may still hold when another one is started.
    """

    call_s: float = 2.0
    abandon_s: float = 4.0
    most_stuck: int = 3


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes in all, and bytes and inodes free."""

    total_bytes: int
    free_bytes: int
    free_files: int


@dataclass(slots=True)
class _Call:
    request: dict[str, Any]
    blob: bytes
    answer: asyncio.Future[Reply] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Datastore:
    """One datastore of this host. Made by `open_datastore`.

    Every call raises DatastoreTimeout or another DatastoreError; none blocks the loop.
    """

    def __init__(self, name: str, path: Path, host: str, seal: Seal, limits: Limits) -> None:
        self.name = checked_name(name, "datastore")
        self.path = path
        self._host = checked_name(host, "host")
        self._seal = seal
        self._limits = limits
        self._reader = SlotReader(seal)
        self._calls: asyncio.Queue[_Call] = asyncio.Queue(MOST_WAITING)
        self._worker: WorkerProcess | None = None
        self._stuck: list[WorkerProcess] = []
        self._troubles: dict[str, DatastoreError] = {}
        self._table = b""

    @property
    def trouble(self) -> DatastoreError | None:
        """What is wrong with the datastore as far as the latest calls showed, None when all went well."""
        return next(iter(self._troubles.values()), None)

    @property
    def reachable(self) -> bool:
        """Whether this host's signs of life reach the datastore."""
        return not any(error.of_all or call == "write_slot" for call, error in self._troubles.items())

    @property
    def worker_pid(self) -> int | None:
        """The process that works for this datastore now."""
        return None if self._worker is None else self._worker.pid

    async def write_slot(self, heartbeat: Heartbeat) -> None:
        """Write this host's slot. After DatastoreTimeout it may or may not have been written."""
        if heartbeat.host != self._host:
            raise ValueError(f"{self._host} writes no slot for {heartbeat.host}")
        await self._ask("write_slot", pack_slot(heartbeat, self._seal))

    async def read_slots(self, hosts: Sequence[str] | None = None) -> dict[str, Slot | SlotRefused]:
        """The slots of `hosts`, or of all hosts; those without a slot are left out."""
        reply = await self._ask("read_slots", hosts=None if hosts is None else list(hosts))
        slots: dict[str, Slot | SlotRefused] = {}
        at = 0
        for host, size, problem in reply.slots:
            raw, at = reply.blob[at : at + size], at + size
            unreadable = SlotRefused(Reason.UNREADABLE, problem)
            slots[host] = unreadable if problem else self._reader.read(host, raw)
        return slots

    async def write_table(self, table: ModuleTable) -> None:
        """Keep this host's module table beside its slot; nothing is written when it is the one written last."""
        digest = table.digest()
        if digest != self._table:
            await self._ask("write_table", pack_table(self._host, table, self._seal), digest=digest.hex())
            self._table = digest

    async def read_table(self, host: str, digest: bytes) -> ModuleTable | None:
        """The module table of `host` with this digest; None if it is not there. RecordRefused if it is wrong."""
        checked_name(host, "host")
        most = table_file.MOST_FILE_BYTES
        reply = await self._ask("read_table", host=host, digest=digest.hex(), most_bytes=most)
        if not reply.present:
            return None
        table = unpack_table(host, digest, reply.blob, self._seal)
        if isinstance(table, Refused):
            raise RecordRefused(self.name, self.path, f"the module table of {host}: {table.detail}")
        return table

    async def write_protected(self, protected: ProtectedList) -> None:
        """Replace the list of protected workloads. For the leader."""
        await self._ask("write_protected", pack_protected(protected, self._seal))

    async def read_protected(self) -> ProtectedList | None:
        """The list of protected workloads; None if none was ever written. RecordRefused if it is wrong."""
        reply = await self._ask("read_protected", most_bytes=protected_file.MOST_FILE_BYTES)
        if not reply.present:
            return None
        protected = unpack_protected(reply.blob, self._seal)
        if isinstance(protected, Refused):
            raise RecordRefused(self.name, self.path, f"the protected list: {protected.detail}")
        return protected

    async def space(self) -> Space:
        """How much room there is."""
        reply = await self._ask("space")
        return Space(**reply.space)

    async def ensure_data_folder(self, workload: str) -> Path:
        """Make the data folder of `workload` if it has none (mode 0700, root's), and return its path."""
        checked_name(workload, "workload")
        return Path((await self._ask("ensure_data_folder", workload=workload)).text)

    async def _ask(self, call: str, blob: bytes = b"", **arguments: Any) -> Reply:
        """Have the worker do it, and keep in mind how it went."""
        try:
            reply = await self._answer(_Call({"call": call, **arguments}, blob))
            if reply.trouble:
                raise error_of(reply.trouble, self.name, self.path, reply.cause)
        except DatastoreError as error:
            self._table = b""
            self._remember(call, error)
            raise
        self._remember(call, None)
        return reply

    async def _answer(self, call: _Call) -> Reply:
        try:
            async with asyncio.timeout(self._limits.call_s):
                await self._calls.put(call)
                return await call.answer
        except TimeoutError as error:
            cause = f"no answer to {call.request['call']} within {self._limits.call_s:g} s"
            raise DatastoreTimeout(self.name, self.path, cause) from error
        finally:
            call.answer.cancel()

    def _remember(self, call: str, error: DatastoreError | None) -> None:
        """A success ends the trouble of its own call, and every trouble of the whole datastore."""
        before = self.trouble
        self._troubles = {
            other: trouble
            for other, trouble in self._troubles.items()
            if other != call and (error is not None or not trouble.of_all)
        }
        if error is not None:
            self._troubles[call] = error
            if before is None or before.id != error.id:
                _log.warning("datastore.trouble_met", name=self.name, id=error.id, because=error.cause, call=call)
        elif before is not None and not self._troubles:
            _log.info("datastore.trouble_ended", name=self.name, id=before.id)

    async def _keep(self) -> None:
        """Hand the calls to the worker, one by one, for as long as the datastore is open."""
        while True:
            call = await self._calls.get()
            for again in (True, False):
                if call.answer.done():
                    break
                try:
                    reply = await self._try(call)
                except WorkerEnded as ended:
                    if not again and not call.answer.done():
                        call.answer.set_result(Reply(trouble="failed", cause=f"its worker ended: {ended}"))
                    continue
                if reply is not None and not call.answer.done():
                    call.answer.set_result(reply)
                break

    async def _try(self, call: _Call) -> Reply | None:
        """Ask the worker, started first if there is none. None: it is hung, the call's own limit has passed."""
        try:
            async with asyncio.timeout(self._limits.abandon_s):
                if self._worker is None:
                    self._worker = await self._start()
                return await self._worker.ask(call.request, call.blob)
        except TimeoutError:
            self._abandon("silent")
            return None
        except WorkerEnded:
            self._abandon("ended")
            raise

    async def _start(self) -> WorkerProcess:
        """Start a worker, once few enough of those abandoned are left."""
        while self._still_stuck() >= self._limits.most_stuck:  # noqa: ASYNC110 -- no event tells of it
            await asyncio.sleep(self._limits.call_s / 10)
        try:
            return WorkerProcess(self.path, self._seal.cluster, self._host)
        except OSError as error:
            raise WorkerEnded(f"none can be started: {error.strerror}") from error

    def _abandon(self, because: str) -> None:
        if self._worker is not None:
            _log.warning("datastore.worker_abandoned", name=self.name, pid=self._worker.pid, because=because)
            self._worker.abandon()
            self._stuck.append(self._worker)
            self._worker = None

    async def _close(self) -> None:
        """Let go of the worker; wait a moment for what the kernel holds, then leave it to the kernel."""
        if self._worker is not None:
            self._worker.abandon()
            self._stuck.append(self._worker)
            self._worker = None
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._still_stuck():  # noqa: ASYNC110 -- no event tells of it
                    await asyncio.sleep(0.005)

    def _still_stuck(self) -> int:
        """How many abandoned workers the kernel still holds."""
        self._stuck = [worker for worker in self._stuck if not worker.reaped()]
        return len(self._stuck)


@asynccontextmanager
async def open_datastore(
    name: str, path: Path, host: str, seal: Seal, limits: Limits | None = None
) -> AsyncIterator[Datastore]:
    """Use the datastore `name` at `path` as `host` until the block ends. Nothing is asked of the storage yet.

    path: absolute, as this host mounts it.
    """
    datastore = Datastore(name, path, host, seal, limits or Limits())
    keeper = asyncio.create_task(datastore._keep(), name=f"datastore {name}")
    try:
        yield datastore
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
        await datastore._close()
