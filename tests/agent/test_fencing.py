"""The leader's agent tries a method once for each time that it is told to, and leaves alone who came back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from immutables import Map

from outlive.agent.fencing import Fencers
from outlive.cluster import records as rec
from outlive.cluster.commands import Fence
from outlive.cluster.events import Event, Fenced
from outlive.cluster.fence import Unfinished
from outlive.cluster.host import Capacity, Host
from outlive.cluster.mirror import ClaimSeen, Entry, Mirror
from outlive.config.fencing import Method
from outlive.datastore import locks
from outlive.datastore.datastore import Datastore, open_datastore
from outlive.datastore.formatting import format_datastore
from outlive.runtime import cgroup
from outlive.wire.seal import Seal

WITHIN_S = 60.0
CLAIM = 7
SWITCH = 'test "$1" = 10.0.0.2 && echo off > '


@dataclass
class Desk:
    """A host's fencers, and what they answered."""

    folder: Path
    mirror: Mirror
    datastores: dict[str, Datastore] = field(default_factory=dict)
    told: list[Fenced] = field(default_factory=list)

    def answer(self, event: Event) -> None:
        assert isinstance(event, Fenced)
        self.told.append(event)

    @asynccontextmanager
    async def fencers(self, *methods: Method) -> AsyncIterator[Fencers]:
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            yield Fencers("a", methods, self.datastores, lambda: 5.0, tasks, lambda: self.mirror)

    @property
    def power(self) -> Method:
        """A switch that is told the host's address."""
        off = ("/bin/sh", "-c", f"{SWITCH}{self.folder / 'power'}", "sh", "{address}")
        return Method("power", command=off, status=("/bin/sh", "-c", f"cat {self.folder / 'power'} && exit 2"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    member = Host("b", "north", "10.0.0.2", 1, 2, Capacity(1, 1), {}, ())
    return Desk(tmp_path, Mirror(hosts=Map({"b": Entry(member, 1, 1)})))


def fence(method: str = "power", *workloads: Unfinished) -> Fence:
    return Fence("b", CLAIM, method, 3, workloads, "because")


async def test_a_host_is_fenced_by_its_address_and_the_proof_is_told(desk: Desk) -> None:
    async with desk.fencers(desk.power) as fencers:
        assert [method.name for method in fencers.told()] == ["power"]
        fencers.begin(fence(), desk.answer)
    [told] = desk.told
    assert (told.host, told.number, told.proven) == ("b", 3, True)


async def test_a_host_that_holds_a_newer_claim_is_left_alone(desk: Desk) -> None:
    claim = ClaimSeen(CLAIM + 1, True, 4.0, 9, rec.ClaimRecord("b", "", "r", 1, 1), 0.0)
    desk.mirror = Mirror(hosts=desk.mirror.hosts, claims=Map({"b": claim}))
    async with desk.fencers(desk.power) as fencers:
        fencers.begin(fence(), desk.answer)
    assert [(told.proven, told.said) for told in desk.told] == [(False, "it came back")]
    assert not (desk.folder / "power").exists()


async def test_a_try_that_is_called_off_says_nothing(desk: Desk) -> None:
    slow = Method("power", command=("/bin/sleep", "600"), status=("/bin/true",))
    async with desk.fencers(slow) as fencers:
        fencers.begin(fence(), desk.answer)
        await asyncio.sleep(0.1)
        fencers.call_off(3)
        fencers.call_off(3)
    assert desk.told == []


async def test_a_method_that_this_agent_has_not_is_told(desk: Desk) -> None:
    async with desk.fencers() as fencers:
        fencers.begin(fence(), desk.answer)
    assert [told.proven for told in desk.told] == [False]


async def test_the_run_locks_that_the_silent_host_let_go_of_free_their_workloads_and_no_others(desk: Desk) -> None:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    folder = desk.folder / "shared"
    folder.mkdir()
    format_datastore("shared", folder, "0" * 16)
    async with open_datastore("shared", folder, "a", Seal("0" * 16, b"k" * 32)) as shared:
        desk.datastores["shared"] = shared
        for name in ("let-go", "held"):
            data = await shared.ensure_data_folder(name)
            lock = await locks.acquire(
                data.parent / f"{name}.lock", locks.Record("b", 4), cgroup=mounts.unified, state=desk.folder / name
            )
            if name == "let-go":
                await lock.release()
        waiting = [Unfinished(name, 4, "shared") for name in ("let-go", "held", "never-began")]
        waiting.append(Unfinished("without", 4, None))
        async with desk.fencers(Method("locks", run_locks=True)) as fencers:
            fencers.begin(fence("locks", *waiting), desk.answer)
        await lock.release()
    [told] = desk.told
    assert not told.proven
    assert told.freed == ("let-go",)
    assert "held by b at generation 4" in told.said
