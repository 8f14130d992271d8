"""Having other hosts fenced, as this host's leader machine asks: one task for each try, its outcome an event.

The picture of the store is looked at once more before anything is switched: a host that holds a newer claim than the
accused came back, and is left alone. A try that is called off ends its program and says nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.fence import FenceMethod, Unfinished
from outlive.cluster.mirror import Mirror
from outlive.config.fencing import Method
from outlive.datastore import locks
from outlive.datastore.datastore import Datastore
from outlive.errors import OutliveError
from outlive.fence import stonith

from .observe import Clock
from .seating import lock_file

TAKER = "fence"

log = structlog.get_logger()


class Fencers:
    """This agent's ways to fence others.

    mirror: gives the newest picture of the store.  enclose: makes room for one run of a program.
    """

    def __init__(
        self,
        host: str,
        methods: tuple[Method, ...],
        datastores: Mapping[str, Datastore],
        clock: Clock,
        tasks: asyncio.TaskGroup,
        mirror: Callable[[], Mirror],
        enclose: stonith.Enclose = lambda: None,
    ) -> None:
        self._host = host
        self._methods = {method.name: method for method in methods}
        self._datastores = datastores
        self._clock = clock
        self._tasks = tasks
        self._mirror = mirror
        self._enclose = enclose
        self._tries: dict[int, asyncio.Task[None]] = {}

    def told(self) -> tuple[FenceMethod, ...]:
        """The methods, in their order, as decisions see them."""
        return tuple(method.told() for method in self._methods.values())

    def begin(self, command: do.Fence, answer: Callable[[ev.Event], None]) -> None:
        """Begin a try; its outcome goes to `answer`."""
        task = self._tasks.create_task(self._try(command, answer))
        self._tries[command.number] = task
        task.add_done_callback(lambda _: self._tries.pop(command.number, None))

    def call_off(self, number: int) -> None:
        """End a try, if it has not ended."""
        task = self._tries.get(number)
        if task is not None:
            task.cancel()

    async def _try(self, command: do.Fence, answer: Callable[[ev.Event], None]) -> None:
        method, mirror = self._methods.get(command.method), self._mirror()
        fenced = partial(ev.Fenced, host=command.host, number=command.number)
        claim = mirror.claimed(command.host)
        if method is None:
            answer(fenced(at=self._clock(), proven=False, said="this agent has no such method"))
        elif claim is not None and claim.incarnation > command.claim:
            answer(fenced(at=self._clock(), proven=False, said="it came back"))
        elif method.run_locks:
            freed, why = await self._take_locks(command)
            answer(fenced(at=self._clock(), proven=False, freed=freed, said=why))
        else:
            host = mirror.hosts.get(command.host)
            address = host.record.address if host is not None else ""
            said = await stonith.fence(method, command.host, address, self._enclose)
            proven = said.power is stonith.Power.OFF
            log.info("fence.tried", host=command.host, method=method.name, proven=proven, said=said.text)
            answer(fenced(at=self._clock(), proven=proven, said=said.text))

    async def _take_locks(self, command: do.Fence) -> tuple[tuple[str, ...], str]:
        """The workloads whose run locks the accused does not hold and never gets back, and why not the others'."""
        freed, kept = [], []
        for each in command.workloads:
            try:
                await self._take_lock(each, command.host)
            except OutliveError as error:
                kept.append(f"{each.workload}: {error.cause or error}")
            else:
                freed.append(each.workload)
        return tuple(freed), "; ".join(kept) or ("all run locks were taken" if freed else "no workload waits for it")

    async def _take_lock(self, unfinished: Unfinished, host: str) -> None:
        name = unfinished.datastore
        if name is None:
            raise stonith.MethodUnusable("it has no run lock")
        datastore = self._datastores.get(name)
        if datastore is None:
            raise stonith.MethodUnusable(f"this host has no datastore {name}")
        data = await datastore.ensure_data_folder(unfinished.workload)
        held_by = locks.Record(host, unfinished.generation)
        await locks.take_away(lock_file(data, unfinished.workload), held_by, f"{TAKER}:{self._host}")
