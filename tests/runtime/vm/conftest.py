"""The ground that tests of real virtual machines stand on: a small guest, a host's place, and machines on it.

The guest is the lab's tiny one, with the power button handled and a shell on its serial console.
"""

import asyncio
import gzip
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from outlive.cluster.heartbeat import ModuleStatus
from outlive.cluster.machine import MODULE, Disk, KernelBoot, Machine, MachineType
from outlive.cluster.workload import Kind, Module, Workload
from outlive.lab.guests.archive import archive, file, folder
from outlive.lab.guests.tiny import tiny
from outlive.runtime import cgroup
from outlive.runtime.base import Whereabouts
from outlive.runtime.runner import Account
from outlive.runtime.service import Premises
from outlive.runtime.vm import host
from outlive.runtime.vm.console import last_output
from outlive.runtime.vm.seat import Seat
from outlive.runtime.vm.vm import Noted, Vm

WITHIN_S = 100.0
SHELL = b"the guest is up"
NOBODY = Account(65534, 65534)

_INITTAB = f"""::respawn:/bin/busybox acpid -f -l /dev/null
::sysinit:/bin/busybox echo {SHELL.decode()}
::respawn:/bin/busybox cttyhack /bin/sh -l
"""
_POWER = "#!/bin/busybox sh\nexec /bin/busybox poweroff -f\n"


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> KernelBoot:
    """The tiny guest, booted directly."""
    guest = tiny()
    more = archive(
        (
            *(folder(name) for name in ("etc", "var", "var/log", "var/run")),
            folder("etc/acpi"),
            folder("etc/acpi/PWRF"),
            file("etc/acpi/PWRF/00000080", _POWER.encode(), 0o755),
            file("etc/inittab", _INITTAB.encode()),
        )
    )
    initrd = tmp_path_factory.mktemp("guest") / "initrd.gz"
    initrd.write_bytes(guest.initrd.read_bytes() + gzip.compress(more))
    image = str(shutil.copy(guest.kernel, initrd.parent))  # what is kept may be made anew by others at any time
    return KernelBoot(image, str(initrd), guest.append)


@pytest.fixture
async def facts() -> host.HostFacts:
    """This host, with the emulator under our own user, and translated, since that runs everywhere."""
    return replace(await host.find(), account=None, acceleration=host.Acceleration.TCG)


@dataclass
class Place:
    """A host's ground for machines, and what was told of them."""

    folder: Path
    tree: cgroup.Tree
    facts: host.HostFacts
    kernel: KernelBoot
    told: list[tuple[str, ModuleStatus, str]] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, module: str, status: ModuleStatus, reason: str) -> None:
        self.told.append((module, status, reason))
        self.news.set()

    def note(self, noted: Noted) -> None:
        self.noted.append(noted)
        self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():
                await self.news.wait()
                self.news.clear()

    async def until_told(self, count: int) -> tuple[str, ModuleStatus, str]:
        await self.until(lambda: len(self.told) >= count)
        return self.told[-1]

    def machine(self, **changes: object) -> Machine:
        """A small machine that boots the tiny guest."""
        common = {"memory_mib": 128, "type": MachineType.PC, "boot": self.kernel, "stop_s": 60.0}
        return Machine(**{**common, **changes})  # type: ignore[arg-type]

    def seat(self, machine: Machine, name: str = "vm", **changes: object) -> Seat:
        """A seat on this host, whose disks are still to be made."""
        disks = {disk.name: self.folder / "disks" / f"{disk.name}.{disk.format}" for disk in machine.disks}
        seat = Seat(self.folder / name, self.folder / f"{name}.run", disks, may_make_disks=True)
        return replace(seat, **changes)  # type: ignore[arg-type]

    def vm(self, machine: Machine, seat: Seat, tasks: asyncio.TaskGroup, name: str = "vm") -> Vm:
        workload = Workload(name, (Module(MODULE, ()),), Kind.VM, machine=machine)
        self.tree.make(name, [MODULE])
        premises = Premises(self.tree, self.folder / "states", self.folder / "logs")
        return Vm(workload, Whereabouts("a", name, 7), premises, seat, self.facts, self.tell, tasks, noted=self.note)

    async def said(self, seat: Seat, text: bytes) -> bytes:
        """Wait until the console wrote that, and return all that it wrote."""
        async with asyncio.timeout(WITHIN_S):
            while text not in (output := await asyncio.to_thread(last_output, seat.console_log)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return output


@pytest.fixture
async def place(tmp_path: Path, facts: host.HostFacts, kernel: KernelBoot) -> AsyncIterator[Place]:
    mounts = cgroup.find_or_mount()
    assert mounts.unified is not None
    tree = cgroup.Tree(mounts.unified / f"outlive-test-{os.getpid()}-vm", mounts)
    try:
        yield Place(tmp_path, tree, facts, kernel)
    finally:
        for workload in ("vm", "other"):
            cgroup.kill(tree.workload(workload))
            await cgroup.wait_empty(tree.workload(workload), WITHIN_S)
            await tree.remove(workload, WITHIN_S)
        if tree.root.is_dir():
            tree.root.rmdir()


@asynccontextmanager
async def machines(place: Place, *pairs: tuple[Machine, Seat]) -> AsyncIterator[list[Vm]]:
    """Machines that are stopped at the end, the second one under the name `other`."""
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        several = []
        for (machine, seat), name in zip(pairs, ("vm", "other"), strict=False):
            one = place.vm(machine, seat, tasks, name)
            stack.push_async_callback(one.stop)
            several.append(one)
        yield several


def let_through(*folders: Path) -> None:
    """Let other users pass through these folders and all above them."""
    for each in {above for one in folders for above in (one, *one.parents[:-1])}:
        each.chmod(each.stat().st_mode | 0o011)


def disk(name: str = "root", **changes: object) -> Disk:
    return replace(Disk(name, size_mib=16), **changes)  # type: ignore[arg-type]
