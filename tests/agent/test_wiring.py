"""Wires follow the store; a network that is missing or a kernel that refuses stops nothing else."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from outlive.agent import wiring
from outlive.agent.wiring import Wiring
from outlive.cluster.machine import Machine, Nic
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.overlay import Network
from outlive.errors import Failed
from outlive.network.tap import Wanted

BLUE = Network("blue", 4211)
ON_BRIDGE = Nic("lan", "52:54:00:00:00:01", bridge="br0")
ON_BLUE = Nic("blue", "52:54:00:00:00:02", network="blue")
WITHIN_S = 60.0


@dataclass
class Kernel:
    """Taps and virtual networks that only remember. refuses: how many more updates fail."""

    wanted: list[Wanted] = field(default_factory=list)
    updates: list[tuple[int, bool]] = field(default_factory=list)
    taken: list[tuple[int, str, tuple[int, int]]] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)
    refuses: int = 0
    updated: asyncio.Event = field(default_factory=asyncio.Event)

    async def ensure(self, wanted: Wanted) -> Any:
        self.wanted.append(wanted)
        return _Tap(wanted.workload, wanted.nic)

    async def ours(self) -> list[Any]:
        return [_Tap(each.workload, each.nic) for each in self.wanted]

    async def remove(self, workload: str, nic: str) -> bool:
        self.removed.append((workload, nic))
        return True

    async def update(self, wanted: Any, *, look_again: bool = False) -> None:
        self.updates.append((len(wanted.segments), look_again))
        self.updated.set()
        if self.refuses:
            self.refuses -= 1
            raise Failed("The kernel refuses.")

    async def take(self, vni: int, mac: str, age: tuple[int, int]) -> bool:
        self.taken.append((vni, mac, age))
        return True


@dataclass(frozen=True)
class _Tap:
    workload: str
    nic: str

    @property
    def name(self) -> str:
        return f"ol-{self.workload}-{self.nic}"


class Place:
    def __init__(self) -> None:
        self.kernel = Kernel()
        self.mirror = Mirror()
        self.wiring = Wiring("a", "10.0.0.1", lambda: self.mirror)
        self.wiring._taps = self.wiring._overlay = self.kernel  # type: ignore[assignment]

    def networks(self, *networks: Network) -> None:
        entries: Any = {each.name: Entry(each, 1, 1) for each in networks}
        self.mirror = replace(self.mirror, networks=entries)

    async def until_updated(self, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.kernel.updates) < count:
                self.kernel.updated.clear()
                await self.kernel.updated.wait()


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_card_on_a_bridge_is_plugged_in_without_any_network(place: Place) -> None:
    assert await place.wiring.plug("web", 7, ON_BRIDGE, live=True) == "ol-web-lan"
    assert place.kernel.wanted == [Wanted("web", "lan", 7, ON_BRIDGE.mac, "br0", True)]
    assert place.kernel.updates == []


async def test_a_card_on_a_network_finds_its_bridge_made(place: Place) -> None:
    place.networks(BLUE)
    await place.wiring.plug("web", 7, ON_BLUE, live=False)
    assert len(place.kernel.updates) == 1
    assert place.kernel.wanted == [Wanted("web", "blue", 7, ON_BLUE.mac, "olbr4211", False)]


async def test_a_network_that_is_missing_is_told_with_what_to_do_and_nothing_is_plugged_in(place: Place) -> None:
    with pytest.raises(Failed) as caught:
        await place.wiring.plug("web", 7, ON_BLUE, live=True)
    assert (caught.value.id, "network create blue" in caught.value.remedy) == ("network.missing", True)
    with pytest.raises(Failed):
        await place.wiring.take("web", (8, 3), Machine(nics=(ON_BRIDGE, ON_BLUE)))
    assert (place.kernel.wanted, place.kernel.taken) == ([], [])


async def test_a_kernel_that_refuses_keeps_the_machine_from_starting(place: Place) -> None:
    place.networks(BLUE)
    place.kernel.refuses = 1
    with pytest.raises(Failed):
        await place.wiring.plug("web", 7, ON_BLUE, live=True)
    assert place.kernel.wanted == []


async def test_frames_are_sent_nowhere_else_before_the_taps_go_live(place: Place) -> None:
    place.networks(BLUE)
    await place.wiring.take("web", (8, 3), Machine(nics=(ON_BRIDGE, ON_BLUE)))
    assert place.kernel.taken == [(4211, ON_BLUE.mac, (8, 3))]
    assert [(each.nic, each.generation, each.live) for each in place.kernel.wanted] == [
        ("lan", 8, True), ("blue", 8, True),
    ]  # fmt: skip


async def test_only_its_own_taps_go_with_a_machine(place: Place) -> None:
    for name in ("web", "web-1"):
        await place.wiring.plug(name, 7, ON_BRIDGE, live=True)
    await place.wiring.unplug("web")
    assert place.kernel.removed == [("web", "lan")]


async def test_an_update_that_failed_is_done_with_the_next_change(place: Place) -> None:
    place.networks(BLUE)
    place.kernel.refuses = 2
    running = asyncio.create_task(place.wiring.run())
    try:
        for count in (1, 2, 3):
            place.wiring.store_moved(frozenset({"networks/blue"}))
            await place.until_updated(count)
        assert not running.done()
        # What does not concern networks wakes nobody.
        place.wiring.store_moved(frozenset({"claims/a", "events/1"}))
        await asyncio.sleep(0.05)
        assert len(place.kernel.updates) == 3
        place.wiring.store_moved(None)
        await place.until_updated(4)
    finally:
        running.cancel()


async def test_what_others_changed_in_the_kernel_is_looked_for_now_and_then(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LOOK_AGAIN_S", 0.05)
    place.networks(BLUE)
    running = asyncio.create_task(place.wiring.run())
    try:
        await place.until_updated(2)
        assert place.kernel.updates[:2] == [(place.kernel.updates[0][0], True)] * 2
    finally:
        running.cancel()


async def test_a_host_without_networks_is_left_alone_until_there_is_one_and_cleared_after_the_last(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LOOK_AGAIN_S", 0.02)
    running = asyncio.create_task(place.wiring.run())
    try:
        await asyncio.sleep(0.1)
        assert place.kernel.updates == []
        place.networks(BLUE)
        await place.until_updated(1)
        place.networks()
        place.wiring.store_moved(None)
        count = len(place.kernel.updates)
        await place.until_updated(count + 1)
        assert place.kernel.updates[-1][0] == 0
    finally:
        running.cancel()
