"""What is ours and how it changes, on a kernel that a test can make slow, old, or hasty."""

import asyncio
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from outlive.network.address import HostAddress, VirtualAddress
from outlive.network.errors import AddressForeign, KernelSlow, LifetimeEnded
from outlive.network.held import ADDRESS_TAG, HeldAddresses
from outlive.network.kernel_addresses import KernelAddresses
from outlive.network.remembered import RememberedAddresses
from outlive.network.workers import Workers

VIP = VirtualAddress(ip_address("192.0.2.9"), 24, "nosuch0")
OWN = HostAddress(ip_address("192.0.2.1"), 24, "nosuch0")


class PretendedKernel(KernelAddresses):
    """A table of addresses in memory. during: what happens while a change is made."""

    def __init__(self, *present: HostAddress, keeps_tags: bool = True) -> None:
        super().__init__()
        self.table = list(present)
        self.keeps_tags = keeps_tags
        self.during: Callable[[], None] = lambda: None

    def present(self) -> tuple[HostAddress, ...]:
        return tuple(self.table)

    def add(self, address: VirtualAddress, lifetime_s: int, tag: int | None) -> bool:
        self.during()
        if any(found.ip == address.ip for found in self.table):
            return False
        kept = tag if self.keeps_tags else None
        self.table.append(HostAddress(address.ip, address.prefix_length, address.interface, kept, lifetime_s))
        return True

    def renew(self, address: VirtualAddress, lifetime_s: int, tag: int | None) -> None:
        self.during()
        self.table = [found for found in self.table if found.ip != address.ip]
        kept = tag if self.keeps_tags else None
        self.table.append(HostAddress(address.ip, address.prefix_length, address.interface, kept, lifetime_s))

    def delete(self, address: HostAddress) -> bool:
        there = address in self.table
        self.table = [found for found in self.table if found != address]
        return there


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def stop_for(self, duration_s: float) -> None:
        """The process is stopped, and the clock goes on."""
        self.now_s += duration_s


def held(
    kernel: PretendedKernel, clock: Clock, path: Path | None = None, tag: int | None = ADDRESS_TAG
) -> HeldAddresses:
    return HeldAddresses(kernel, RememberedAddresses(path), tag, clock)


def test_address_that_was_added_too_late_by_a_stopped_process_is_removed_at_once() -> None:
    kernel, clock = PretendedKernel(OWN), Clock()
    kernel.during = lambda: clock.stop_for(5.0)
    with pytest.raises(LifetimeEnded):
        held(kernel, clock).hold(VIP, clock.now_s + 4.0, threading.Event())
    assert kernel.table == [OWN]


def test_address_that_the_guard_removed_during_a_renewal_does_not_stay() -> None:
    kernel, clock = PretendedKernel(OWN), Clock()
    addresses = held(kernel, clock)
    addresses.hold(VIP, clock.now_s + 4.0, threading.Event())

    def guard_acts_while_the_process_is_stopped() -> None:
        clock.stop_for(5.0)
        kernel.table = [OWN]

    kernel.during = guard_acts_while_the_process_is_stopped
    with pytest.raises(LifetimeEnded):
        addresses.renew(VIP, clock.now_s + 4.0)
    assert kernel.table == [OWN]


def test_address_that_was_added_for_nobody_is_removed_but_one_that_was_here_stays() -> None:
    kernel, clock = PretendedKernel(OWN), Clock()
    addresses, abandoned = held(kernel, clock), threading.Event()
    abandoned.set()
    addresses.hold(VIP, clock.now_s + 4.0, abandoned)
    assert kernel.table == [OWN]

    addresses.hold(VIP, clock.now_s + 4.0, threading.Event())
    addresses.hold(VIP, clock.now_s + 4.0, abandoned)
    assert addresses.ours() == (VIP,)


def test_address_that_another_program_adds_at_the_same_moment_is_not_taken_over() -> None:
    kernel, clock = PretendedKernel(), Clock()
    theirs = HostAddress(VIP.ip, 24, "nosuch0")
    kernel.during = lambda: kernel.table.append(theirs)
    with pytest.raises(AddressForeign):
        held(kernel, clock).hold(VIP, clock.now_s + 4.0, threading.Event())
    assert kernel.table == [theirs]


@pytest.mark.parametrize(("left_s", "lifetime_s"), [(0.01, 1), (1.0, 1), (3.2, 4), (4.0, 4)])
def test_lifetime_is_rounded_up_to_whole_seconds(left_s: float, lifetime_s: int) -> None:
    kernel, clock = PretendedKernel(), Clock()
    held(kernel, clock).hold(VIP, clock.now_s + left_s, threading.Event())
    assert [found.left_s for found in kernel.table] == [lifetime_s]


def test_kernel_that_keeps_no_tags_is_noticed_and_the_list_takes_their_place(tmp_path: Path) -> None:
    kernel, clock, path = PretendedKernel(OWN, keeps_tags=False), Clock(), tmp_path / "run" / "addresses"
    held(kernel, clock, path).hold(VIP, clock.now_s + 4.0, threading.Event())
    assert path.read_text() == "192.0.2.9/24%nosuch0\n"

    another_process = held(kernel, clock, path)
    assert another_process.ours() == (VIP,)
    assert another_process.keep_only([]) == (VIP,)
    assert (path.read_text(), kernel.table) == ("", [OWN])


def test_kernel_that_keeps_tags_needs_no_list(tmp_path: Path) -> None:
    kernel, clock, path = PretendedKernel(), Clock(), tmp_path / "addresses"
    held(kernel, clock, path).hold(VIP, clock.now_s + 4.0, threading.Event())
    assert not path.exists()


def test_listed_address_without_a_lifetime_is_anothers(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    path.write_text("192.0.2.1/24%nosuch0\n")
    kernel, clock = PretendedKernel(OWN, keeps_tags=False), Clock()
    assert held(kernel, clock, path).keep_only([]) == ()
    assert kernel.table == [OWN]


def test_list_that_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    path.write_bytes(b"\xff\x00garbage\n192.0.2.9/24\n\n192.0.2.9/24%nosuch0\n")
    assert VIP in RememberedAddresses(path)
    path.unlink()
    path.mkdir()
    remembered = RememberedAddresses(path)
    assert VIP not in remembered
    remembered.add(VIP)
    assert VIP in remembered


async def test_kernel_that_does_not_answer_costs_its_time_limit_and_never_the_loop() -> None:
    workers, release = Workers("test", 1), threading.Event()
    try:
        with pytest.raises(KernelSlow, match=r"The kernel did not wait within 0\.05 s"):
            await workers.run("wait", release.wait, 0.05)
        late = asyncio.create_task(workers.run("follow", lambda: "done in order", 20))
        await asyncio.sleep(0.05)
        assert not late.done()
        release.set()
        assert await late == "done in order"
    finally:
        release.set()
        workers.close()


async def test_call_that_timed_out_before_it_began_is_never_done() -> None:
    workers, release, done = Workers("test", 1), threading.Event(), threading.Event()
    try:
        hanging = asyncio.create_task(workers.run("wait", release.wait, 20))
        await asyncio.sleep(0)
        with pytest.raises(KernelSlow):
            await workers.run("act", done.set, 0.05)
        release.set()
        await hanging
        await workers.run("follow", lambda: None, 20)
        assert not done.is_set()
    finally:
        release.set()
        workers.close()
