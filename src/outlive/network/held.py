"""Which addresses of this host are Outlive's, and the only ways to change them.

Runs in one worker thread. Ours is what carries our tag in the kernel, or, on kernels before 5.18 that keep no
tags, what a remembered list names and what has a lifetime. Two invariants: an address that is not ours is never
changed or removed, and no address is here past the moment it may be held until: each is given a kernel lifetime
that ends then, and a change that took effect too late (the process was stopped meanwhile) is undone at once.
"""

import math
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from outlive.errors import UsageInvalid
from outlive.network.address import HostAddress, VirtualAddress
from outlive.network.errors import AddressForeign, AddressMissing, LifetimeEnded
from outlive.network.kernel_addresses import KernelAddresses
from outlive.network.remembered import RememberedAddresses

ADDRESS_TAG = 111
"""Our value of IFA_PROTO, among those that the kernel (1 to 3) does not use itself."""

LONGEST_LIFETIME_S = 24 * 3600.0

_PROMOTION = "/proc/sys/net/ipv4/conf/{}/promote_secondaries"

log = structlog.get_logger()


class HeldAddresses:
    """The virtual addresses that this host holds.

    tag:   None to rely on the remembered list alone, as on a kernel that keeps no tags.
    now_s: the boot clock that `until_s` is counted on.
    """

    def __init__(
        self, kernel: KernelAddresses, remembered: RememberedAddresses, tag: int | None, now_s: Callable[[], float]
    ) -> None:
        self._kernel = kernel
        self._remembered = remembered
        self._tag = tag
        self._kernel_keeps_tags = False if tag is None else None
        self._now_s = now_s

    def foreign(self) -> tuple[HostAddress, ...]:
        """The addresses that others gave this host."""
        return tuple(found for found in self._kernel.present() if not self._is_ours(found))

    def ours(self) -> tuple[VirtualAddress, ...]:
        """The virtual addresses that are here now, whichever process added them."""
        return tuple(_virtual(found) for found in self._kernel.present() if self._is_ours(found))

    def hold(self, address: VirtualAddress, until_s: float, abandoned: threading.Event) -> bool:
        """Have the address until then, at the longest; True if it was not here before.

        abandoned: set by a caller who no longer waits; an address that was added for nobody is removed again.
        Raises AddressForeign, LifetimeEnded, and what the kernel refuses with.
        """
        present = self._kernel.present()
        for found in self._same_ip(address, present):
            if not self._is_ours(found):
                raise _foreign(found)
            if _virtual(found) != address:
                self._delete(found)
        here = any(_virtual(found) == address for found in present)
        lifetime_s = self._lifetime_s(address, until_s)
        if here:
            self._kernel.renew(address, lifetime_s, self._tag)
        elif not self._kernel.add(address, lifetime_s, self._tag):
            raise AddressForeign(f"{address.ip} was given to this host by another program just now.")
        if address.ip.version == 4:
            _let_others_outlive(address)
        self._remember(address)
        if not here and abandoned.is_set():
            self.drop(address)
        self._undo_if_late(address, until_s)
        return not here

    def renew(self, address: VirtualAddress, until_s: float) -> None:
        """Let the address stay until then. Raises as `hold`, and AddressMissing instead of adding it."""
        found = next((found for found in self._kernel.present() if _virtual(found) == address), None)
        if found is None:
            raise AddressMissing(
                f"{address.ip} is no longer on {address.interface}.",
                cause="its lifetime ended, its interface went down, or somebody removed it",
                remedy="Add it again if the claim still holds.",
            )
        if not self._is_ours(found):
            raise _foreign(found)
        self._kernel.renew(address, self._lifetime_s(address, until_s), self._tag)
        self._undo_if_late(address, until_s)

    def drop(self, address: VirtualAddress) -> bool:
        """Have the address no more, whatever its prefix; False if it was not here, or not ours."""
        ours = [found for found in self._same_ip(address, self._kernel.present()) if self._is_ours(found)]
        removed = [self._delete(found) for found in ours]
        self._remembered.forget(address)
        return any(removed)

    def holds(self, address: VirtualAddress) -> bool:
        """Whether the address is here and ours."""
        return address in self.ours()

    def keep_only(self, expected: Collection[VirtualAddress]) -> tuple[VirtualAddress, ...]:
        """Remove every address of ours that is not expected, and return these."""
        leftovers = [
            found for found in self._kernel.present() if self._is_ours(found) and _virtual(found) not in expected
        ]
        return tuple(_virtual(found) for found in leftovers if self._delete(found))

    def close(self) -> None:
        """Let go of the kernel; the addresses stay."""
        self._kernel.close()

    def _is_ours(self, found: HostAddress) -> bool:
        if self._tag is not None and found.tag == self._tag:
            return True
        return found.left_s is not None and _virtual(found) in self._remembered

    def _same_ip(self, address: VirtualAddress, present: Collection[HostAddress]) -> list[HostAddress]:
        """Every holding of the same IP on this host; link-local ones are one for each interface."""
        return [
            found
            for found in present
            if found.ip == address.ip and (found.interface == address.interface or not address.ip.is_link_local)
        ]

    def _lifetime_s(self, address: VirtualAddress, until_s: float) -> int:
        """Whole seconds from now, rounded up, for the kernel; an address whose time is over is dropped."""
        left_s = until_s - self._now_s()
        if left_s <= 0:
            self._too_late(address)
        return math.ceil(left_s)

    def _undo_if_late(self, address: VirtualAddress, until_s: float) -> None:
        if self._now_s() >= until_s:
            self._too_late(address)

    def _too_late(self, address: VirtualAddress) -> None:
        self.drop(address)
        raise LifetimeEnded(
            f"{address.ip} is not held any longer on {address.interface}.",
            cause="the time for which it was to be held ended before the kernel had been told",
            remedy="Claim the workload again.",
        )

    def _delete(self, found: HostAddress) -> bool:
        removed = self._kernel.delete(found)
        self._remembered.forget(_virtual(found))
        return removed

    def _remember(self, address: VirtualAddress) -> None:
        """Put the address on the list if the kernel does not keep our tag; it is asked once."""
        if self._kernel_keeps_tags is None:
            tags = [found.tag for found in self._kernel.present() if _virtual(found) == address]
            self._kernel_keeps_tags = self._tag in tags
        if not self._kernel_keeps_tags:
            self._remembered.add(address)


def until(now_s: float, lifetime_s: float) -> float:
    """The end of a lifetime on the clock that `now_s` was read from. Raises UsageInvalid."""
    if not 0 < lifetime_s <= LONGEST_LIFETIME_S:
        raise UsageInvalid(
            f"An address cannot be held for {lifetime_s} s.",
            cause=f"a lifetime is more than 0 and at most {LONGEST_LIFETIME_S:g} s",
            id="virtual_ip.lifetime_invalid",
        )
    return now_s + lifetime_s


def _virtual(found: HostAddress) -> VirtualAddress:
    return VirtualAddress(found.ip, found.prefix_length, found.interface)


def _foreign(found: HostAddress) -> AddressForeign:
    return AddressForeign(
        f"{found.ip} is already on {found.interface} of this host.",
        cause="it was not added by Outlive",
        remedy=f"Choose another virtual IP, or remove it: ip address del {found.ip}/{found.prefix_length}"
        f" dev {found.interface}",
    )


def _let_others_outlive(address: VirtualAddress) -> None:
    """Keep other IPv4 addresses of the subnet when ours goes.

    The first address of a subnet is its primary, and a kernel left to its default removes the others with it.
    """
    setting = Path(_PROMOTION.format(address.interface))
    try:
        if setting.read_text(encoding="ascii").strip() == "0":
            setting.write_text("1", encoding="ascii")
    except OSError as error:
        if address.prefix_length < 32:
            log.warning("virtual_ip.promotion_not_set", interface=address.interface, because=str(error))
