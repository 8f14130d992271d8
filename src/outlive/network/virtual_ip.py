"""Virtual IPs: the addresses by which clients reach a workload, and which move with it.

Add, renew, remove, look for duplicates, announce, reconcile: for the agent's event loop, which none of it
blocks. Which addresses may be changed is decided in `held`, what goes over the wire in `asking`. Everything
takes effect in the network namespace of the calling process.

Invariant: an address stays here only as long as somebody renews it. Should agent and guard both stop, the kernel
itself drops it within its lifetime, rounded up to whole seconds, and about a second more.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import structlog

from outlive.errors import OutliveError, UsageInvalid
from outlive.network import asking, ethernet
from outlive.network.address import VirtualAddress, complete, parse
from outlive.network.errors import AddressInUse
from outlive.network.held import ADDRESS_TAG, HeldAddresses, until
from outlive.network.kernel_addresses import KernelAddresses
from outlive.network.remembered import RememberedAddresses
from outlive.network.workers import KernelUser, Workers

DETECTION_S = 0.3
"""How long a takeover waits for another holder to answer; a neighbour on the same network needs milliseconds."""

PROBES = 3
LONGEST_DETECTION_S = 10.0
ANNOUNCEMENTS = 5
ANNOUNCEMENT_INTERVAL_S = 0.5

_PACKET_THREADS = 16
_FORWARDING = "/proc/sys/net/ipv6/conf/{}/forwarding"

T = TypeVar("T")

log = structlog.get_logger()


def boot_time_s() -> float:
    """Seconds on the clock by which this host counts its claims."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class VirtualIps(KernelUser):
    """The virtual IPs of this host, as `async with VirtualIps() as addresses`. Leaving removes none of them.

    tag:           what marks our addresses in the kernel; None uses the remembered list instead.
    remembered_in: a file in /run for that list, needed only where the kernel keeps no tags (before 5.18).
    limit_s:       the time that the kernel has for one change.
    """

    def __init__(
        self,
        *,
        tag: int | None = ADDRESS_TAG,
        remembered_in: Path | None = None,
        limit_s: float = 1.0,
        now_s: Callable[[], float] = boot_time_s,
    ) -> None:
        self._held = HeldAddresses(KernelAddresses(), RememberedAddresses(remembered_in), tag, now_s)
        self._now_s = now_s
        self._packets = Workers("virtual-ip-packets", _PACKET_THREADS)
        super().__init__("virtual-ip-kernel", self._held.close, limit_s, self._packets)

    async def resolve(self, text: str, interface: str | None = None) -> VirtualAddress:
        """Read `10.0.0.9/24%eth0`; a missing interface or prefix is taken from the subnet that this host is in.

        Raises AddressInvalid, InterfaceMissing, InterfaceAmbiguous.
        """
        written = parse(text, interface)
        if written.interface is not None:
            await self._with_packets("look at an interface", lambda: ethernet.interface(str(written.interface)))
        return complete(written, await self._in_kernel("list its addresses", self._held.foreign))

    async def add(self, address: VirtualAddress, lifetime_s: float, *, counted_from_s: float | None = None) -> bool:
        """Hold the address here for `lifetime_s`; True if it was not here before.

        Does not look for duplicates: `detect_duplicate` first.
        counted_from_s: the boot time at which `lifetime_s` was right; now when not given.
        Raises AddressForeign, LifetimeEnded, InterfaceMissing, NotPermitted, KernelSlow.
        """
        until_s = until(self._now_s() if counted_from_s is None else counted_from_s, lifetime_s)
        abandoned = threading.Event()
        try:
            added = await self._in_kernel(f"add {address.ip}", lambda: self._held.hold(address, until_s, abandoned))
        except BaseException:
            abandoned.set()
            raise
        if added:
            log.info("virtual_ip.added", address=str(address), lifetime_s=lifetime_s)
        return added

    async def renew(self, address: VirtualAddress, lifetime_s: float, *, counted_from_s: float | None = None) -> None:
        """Let the address stay for `lifetime_s`, counted as in `add`. Raises AddressMissing if it is not here."""
        until_s = until(self._now_s() if counted_from_s is None else counted_from_s, lifetime_s)
        await self._in_kernel(f"renew {address.ip}", lambda: self._held.renew(address, until_s))

    async def remove(self, address: VirtualAddress) -> bool:
        """Hold the address no more; False if it was not here, or is not ours, which changes nothing."""
        removed = await self._in_kernel(f"remove {address.ip}", lambda: self._held.drop(address))
        if removed:
            log.info("virtual_ip.removed", address=str(address))
        return removed

    async def ours(self) -> tuple[VirtualAddress, ...]:
        """The virtual IPs that this host holds now, whichever process added them."""
        return await self._in_kernel("list its addresses", self._held.ours)

    async def reconcile(self, expected: Iterable[VirtualAddress]) -> tuple[VirtualAddress, ...]:
        """Remove the virtual IPs that are not expected, and return them. Others' addresses are left alone."""
        wanted = frozenset(expected)
        removed = await self._in_kernel("remove leftovers", lambda: self._held.keep_only(wanted))
        for address in removed:
            log.warning("virtual_ip.leftover_removed", address=str(address))
        return removed

    async def detect_duplicate(self, address: VirtualAddress, timeout_s: float = DETECTION_S) -> str | None:
        """Ask the neighbours for the address; the MAC of another machine that has or wants it, or None.

        Waits for all of `timeout_s` unless somebody answers. Where there are no neighbours, nobody is asked.
        Raises InterfaceMissing, InterfaceDown, InterfaceUnsuitable, NotPermitted, KernelSlow.
        """
        if not 0 < timeout_s <= LONGEST_DETECTION_S:
            raise UsageInvalid(
                f"Neighbours cannot be asked for {timeout_s} s.",
                cause=f"the time must be more than 0 and at most {LONGEST_DETECTION_S:g} s",
                id="virtual_ip.detection_invalid",
            )
        mac = await self._with_packets("ask the neighbours", lambda: _ask(address, timeout_s), timeout_s)
        if mac is None:
            return None
        log.warning("virtual_ip.duplicate_found", address=str(address), mac=mac.hex(":"))
        return mac.hex(":")

    async def refuse_duplicate(self, address: VirtualAddress, timeout_s: float = DETECTION_S) -> None:
        """As `detect_duplicate`, but raises AddressInUse if another machine answers."""
        mac = await self.detect_duplicate(address, timeout_s)
        if mac is not None:
            raise AddressInUse(
                f"{address.ip} is already used by the machine with MAC {mac}.",
                cause=f"it answered on {address.interface}",
                remedy="Find that machine and take the address from it, or choose another virtual IP.",
            )

    async def announce(
        self,
        address: VirtualAddress,
        repeats: int = ANNOUNCEMENTS,
        interval_s: float = ANNOUNCEMENT_INTERVAL_S,
    ) -> int:
        """Tell the neighbours that the address is here: at once, then every `interval_s`, `repeats` times in all.

        Returns how often they were told. Stops when the address is no longer held here, so that a host that was
        stopped in between does not draw traffic from the new holder. A link that is down for a moment costs
        that announcement only; raises InterfaceDown or another error if none could be sent.
        """
        told = 0
        trouble: OutliveError | None = None
        for turn in range(repeats):
            if turn:
                await asyncio.sleep(interval_s)
            try:
                if not await self._in_kernel("list its addresses", lambda: self._held.holds(address)):
                    log.info("virtual_ip.announcing_stopped", address=str(address), because="no longer held")
                    return told
                await self._with_packets("send an announcement", lambda: _tell(address))
            except OutliveError as error:
                log.warning("virtual_ip.announcement_failed", address=str(address), because=str(error))
                trouble = error
            else:
                told += 1
        if trouble is not None and not told:
            raise trouble
        log.info("virtual_ip.announced", address=str(address), times=told)
        return told

    async def _with_packets(self, doing: str, work: Callable[[], T], asking_s: float = 0.0) -> T:
        return await self._packets.run(doing, work, self._limit_s + asking_s)


def _ask(address: VirtualAddress, timeout_s: float) -> bytes | None:
    link = ethernet.interface(address.interface)
    if not link.asks:
        return None
    ethernet.require_usable(link)
    return ethernet.ask(link, asking.who_has(address.ip, link.mac, ethernet.own_macs()), timeout_s, PROBES)


def _tell(address: VirtualAddress) -> None:
    link = ethernet.interface(address.interface)
    if link.asks:
        ethernet.require_usable(link)
        ethernet.send(link, asking.announcements(address.ip, link.mac, router=_forwards(address.interface)))


def _forwards(interface: str) -> bool:
    """Whether this host is an IPv6 router on the interface."""
    try:
        return Path(_FORWARDING.format(interface)).read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False
