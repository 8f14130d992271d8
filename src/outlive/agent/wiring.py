"""Network cards of this host's machines: their taps, and the virtual networks that these are plugged into.

Virtual networks follow the picture of the store as it moves; taps follow what machines here ask for. What a network
must have is worked out in `outlive.cluster.overlay`, how the kernel gets it is in `outlive.network`. A trouble with a
network is told and tried again with the next change; it stops nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from outlive.cluster import records as rec
from outlive.cluster.machine import Machine, Nic
from outlive.cluster.mirror import Mirror
from outlive.cluster.overlay import Network
from outlive.cluster.whereabouts import wiring_of
from outlive.errors import Failed, OutliveError
from outlive.network.bridge import virtual_bridge
from outlive.network.overlay import Overlay
from outlive.network.tap import Taps, Wanted

CONCERNED = (rec.PLACEMENTS, rec.WORKLOADS, rec.NETWORKS, rec.HOSTS)
LOOK_AGAIN_S = 15.0

log = structlog.get_logger()


class Wiring:
    """All wires of one host, as `async with`; leaving removes none. picture: the newest of the store."""

    def __init__(self, host: str, address: str, picture: Callable[[], Mirror]) -> None:
        self._host = host
        self._picture = picture
        self._taps = Taps()
        self._overlay = Overlay(address)
        self._stack = AsyncExitStack()
        self._moved = asyncio.Event()
        self._networked = False
        self._problems: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._taps)
        await self._stack.enter_async_context(self._overlay)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # For machines.

    async def plug(self, workload: str, generation: int, nic: Nic, *, live: bool) -> str:
        """Make a card's tap, in its bridge and up; return its name. Raises OutliveError."""
        bridge = nic.bridge
        if bridge is None:
            network = self._network(nic)
            # The picture that placed the machine here may not have been dealt with yet.
            await self._update()
            bridge = virtual_bridge(network.vni)
        tap = await self._taps.ensure(Wanted(workload, nic.name, generation, nic.mac, bridge, live))
        return tap.name

    async def take(self, workload: str, age: tuple[int, int], machine: Machine) -> None:
        """A machine that stood by here runs here now: frames for it go to its taps, and nowhere else."""
        for nic in machine.nics:
            if nic.network is not None:
                await self._overlay.take(self._network(nic).vni, nic.mac, age)
        for nic in machine.nics:
            bridge = nic.bridge or virtual_bridge(self._network(nic).vni)
            await self._taps.ensure(Wanted(workload, nic.name, age[0], nic.mac, bridge, live=True))

    async def unplug(self, workload: str) -> None:
        """Remove all taps of a machine. Raises OutliveError."""
        for tap in await self._taps.ours():
            if tap.workload == workload:
                await self._taps.remove(workload, tap.nic)

    async def keep_only(self, workloads: set[str]) -> None:
        """Remove the taps of all other machines: nothing of them runs here."""
        taps = await self._taps.ours()
        await self._taps.reconcile((tap.workload, tap.nic) for tap in taps if tap.workload in workloads)

    def _network(self, nic: Nic) -> Network:
        entry = self._picture().networks.get(nic.network or "")
        if entry is None:
            raise Failed(
                f"Card {nic.name} cannot be connected.",
                cause=f"there is no network {nic.network}",
                remedy=f"make it: outlive network create {nic.network} --vni NUMBER",
                id="network.missing",
            )
        return entry.record

    # Following the store.

    def store_moved(self, changed: frozenset[str] | None) -> None:
        """The picture is newer. changed: the keys that moved; None: any may have."""
        if changed is None or any(key.startswith(CONCERNED) for key in changed):
            self._moved.set()

    async def run(self) -> None:
        """Keep the virtual networks as the store has them, until cancelled."""
        while True:
            look_again = False
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._moved.wait()
            except TimeoutError:
                look_again = True
            self._moved.clear()
            try:
                await self._update(look_again=look_again)
            except OutliveError as error:
                log.error("overlay.not_updated", reason=str(error), remedy=error.remedy)

    async def _update(self, *, look_again: bool = False) -> None:
        picture = self._picture()
        if not picture.networks and not self._networked:
            return
        self._networked = True
        wiring = wiring_of(picture, self._host)
        if wiring.problems != self._problems:
            self._problems = wiring.problems
            for problem in wiring.problems:
                log.warning("overlay.cannot_be", reason=problem)
        await self._overlay.update(wiring, look_again=look_again)
