"""The addresses of this host in the kernel: list, add, renew, delete.

The one file that speaks to the kernel about addresses, through pyroute2. It blocks, keeps one netlink socket
and belongs to one worker thread. It decides nothing: which addresses are Outlive's is the caller's to know.
Each address that it adds has a lifetime that the kernel itself counts down.
"""

import errno
import socket
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from outlive.errors import OutliveError
from outlive.network.address import HostAddress, VirtualAddress
from outlive.network.errors import (
    InterfaceUnsuitable,
    interface_missing,
    kernel_refused,
    not_permitted,
)

LONGEST_LIFETIME_S = 0xFFFFFFFE
"""One more is what the kernel takes for ever."""

_FOR_EVER_S = 0xFFFFFFFF
_NO_DUPLICATE_DETECTION = 0x02
_THERE = frozenset((errno.EEXIST,))
_GONE = frozenset((errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO))


class KernelAddresses:
    """The kernel's table of addresses in the network namespace of the thread that first uses it."""

    def __init__(self) -> None:
        self._netlink: Any = None

    def close(self) -> None:
        """Let go of the netlink socket; another call would open it again."""
        if self._netlink is not None:
            netlink, self._netlink = self._netlink, None
            netlink.close()

    def present(self) -> tuple[HostAddress, ...]:
        """Every address of every interface."""
        names = dict(socket.if_nameindex())
        try:
            messages = list(self._open().get_addr())
        except (NetlinkError, OSError) as error:
            raise self._explain("list this host's addresses", error) from error
        return tuple(_read(message, names[message["index"]]) for message in messages if message["index"] in names)

    def add(self, address: VirtualAddress, lifetime_s: int, tag: int | None) -> bool:
        """Add an address; False if it is there already, which changes nothing.

        lifetime_s: the kernel drops the address after so many seconds.
        tag:        what the kernel is to remember about who added it; None for nothing.
        """
        return self._new("add", address, lifetime_s, tag)

    def renew(self, address: VirtualAddress, lifetime_s: int, tag: int | None) -> None:
        """Start an address's lifetime anew, as in `add`. The kernel would also add one that is not there."""
        self._new("replace", address, lifetime_s, tag)

    def delete(self, address: HostAddress) -> bool:
        """Take an address away; False if it was not there."""
        try:
            index = socket.if_nametoindex(address.interface)
        except OSError:
            return False
        return self._change(
            f"remove {address.ip} from {address.interface}",
            "del",
            expected=_GONE,
            index=index,
            address=str(address.ip),
            prefixlen=address.prefix_length,
            family=_family(address),
        )

    def _new(self, verb: str, address: VirtualAddress, lifetime_s: int, tag: int | None) -> bool:
        assert 0 < lifetime_s <= LONGEST_LIFETIME_S
        try:
            index = socket.if_nametoindex(address.interface)
        except OSError as error:
            raise interface_missing(address.interface) from error
        fields: dict[str, object] = {"valid": lifetime_s, "preferred": lifetime_s}
        if address.ip.version == 6:
            # Duplicates were looked for before: the kernel's own detection would keep the address useless for
            # a second. Not preferred, so that this host's own traffic never comes from an address that may move.
            fields["preferred"] = 0
            fields["flags"] = _NO_DUPLICATE_DETECTION
        if tag is not None:
            fields["proto"] = tag
        return self._change(
            f"add {address.ip} to {address.interface}",
            verb,
            expected=_THERE,
            index=index,
            address=str(address.ip),
            prefixlen=address.prefix_length,
            family=_family(address),
            **fields,
        )

    def _change(self, doing: str, verb: str, *, expected: frozenset[int], **fields: object) -> bool:
        """Whether the kernel did it; False when it said no for one of the expected reasons."""
        try:
            self._open().addr(verb, **fields)
        except NetlinkError as error:
            if error.code in expected:
                return False
            raise self._explain(doing, error) from error
        except OSError as error:
            raise self._explain(doing, error) from error
        return True

    def _explain(self, doing: str, error: Exception) -> OutliveError:
        if not isinstance(error, NetlinkError):
            self.close()  # whatever state the socket is in, the next call gets a new one
        number = int(getattr(error, "code", None) or getattr(error, "errno", None) or 0)
        if number == errno.EPERM:
            return not_permitted(doing, "CAP_NET_ADMIN")
        if number == errno.EACCES:
            return InterfaceUnsuitable(
                f"This host could not {doing}.",
                cause="IPv6 is disabled on the interface",
                remedy="Enable it: sysctl -w net.ipv6.conf.INTERFACE.disable_ipv6=0",
            )
        return kernel_refused(doing, number)

    def _open(self) -> Any:
        if self._netlink is None:
            self._netlink = IPRoute(groups=0)
        return self._netlink


def _family(address: VirtualAddress | HostAddress) -> int:
    return socket.AF_INET if address.ip.version == 4 else socket.AF_INET6


def _read(message: Any, interface: str) -> HostAddress:
    """One address as the kernel tells it; IFA_LOCAL is the host's own where IFA_ADDRESS is the far end's."""
    lifetime = message.get_attr("IFA_CACHEINFO")
    left_s = lifetime["ifa_valid"] if lifetime else _FOR_EVER_S
    return HostAddress(
        ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
        message["prefixlen"],
        interface,
        tag=message.get_attr("IFA_PROTO"),
        left_s=None if left_s == _FOR_EVER_S else left_s,
    )
