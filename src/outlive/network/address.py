"""Virtual addresses as values: how they are written, what makes one valid, and which interface it belongs to.

Pure: nothing here asks the kernel; the addresses that a host has are arguments. The invariant: a
`VirtualAddress` names one address that can be moved between hosts, its prefix, and one interface, and its text
form reads back as the same value.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from outlive.network.errors import AddressInvalid, InterfaceAmbiguous, InterfaceMissing

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_LONGEST_TEXT = 128
_INTERFACE_NAME = re.compile(r"[!-~]{1,15}")
_NOT_IN_INTERFACE_NAME = frozenset("/:%")
_FORM = "Write it as ADDRESS/PREFIX or ADDRESS/PREFIX%INTERFACE, for example 10.0.0.9/24%eth0."


@dataclass(frozen=True, slots=True)
class WrittenAddress:
    """A virtual address as a person wrote it: what is None is found on the host that gets it."""

    ip: IPAddress
    prefix_length: int | None
    interface: str | None


@dataclass(frozen=True, slots=True)
class VirtualAddress:
    """An address that moves with its workload, and where it belongs on this host."""

    ip: IPAddress
    prefix_length: int
    interface: str

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefix_length}%{self.interface}"

    @property
    def network(self) -> IPNetwork:
        """The subnet that the address is in."""
        return ip_network((self.ip, self.prefix_length), strict=False)


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address that this host has at present.

    tag:    who added it, as the kernel remembers (IFA_PROTO); None where it remembers nothing.
    left_s: whole seconds until the kernel drops it by itself; None is never.
    """

    ip: IPAddress
    prefix_length: int
    interface: str
    tag: int | None = None
    left_s: int | None = None

    @property
    def network(self) -> IPNetwork:
        """The subnet that the address is in."""
        return ip_network((self.ip, self.prefix_length), strict=False)


def parse(text: str, interface: str | None = None) -> WrittenAddress:
    """Read `10.0.0.9/24%eth0`, where prefix and interface may be left out, or given as the argument.

    Raises AddressInvalid, with a sentence that names the part that is wrong.
    """
    shown = repr(text[:_LONGEST_TEXT])
    if len(text) > _LONGEST_TEXT:
        raise AddressInvalid(f"{shown}… is too long for an address.", remedy=_FORM)
    address, percent, named = text.partition("%")
    bare, slash, prefix = address.partition("/")
    try:
        ip = ip_address(bare)
    except ValueError:
        raise AddressInvalid(f"{shown} does not start with an IP address.", remedy=_FORM) from None
    if percent and interface is not None and named != interface:
        raise AddressInvalid(f"{shown} names another interface than {interface!r}.", remedy="Name it once.")
    wanted = named if percent else interface
    if wanted is not None and not is_interface_name(wanted):
        raise AddressInvalid(f"{wanted[:_LONGEST_TEXT]!r} cannot be the name of an interface.", remedy=_FORM)
    length = _prefix_length(prefix, ip, shown) if slash else None
    why = _why_not(ip, length)
    if why:
        raise AddressInvalid(f"{shown} cannot be a virtual IP.", cause=why, remedy="Choose a free address.")
    return WrittenAddress(ip, length, wanted)


def is_interface_name(text: str) -> bool:
    """Whether Linux would take this as the name of an interface and it can be told apart in our texts."""
    return (
        _INTERFACE_NAME.fullmatch(text) is not None
        and text not in (".", "..")
        and _NOT_IN_INTERFACE_NAME.isdisjoint(text)
    )


def complete(written: WrittenAddress, present: Iterable[HostAddress]) -> VirtualAddress:
    """Fill in what was not written from the subnets that this host is in.

    present: the addresses that the host has of its own, without virtual ones.
    Raises InterfaceMissing or InterfaceAmbiguous if no, or more than one, interface fits.
    """
    if written.interface is not None and written.prefix_length is not None:
        return VirtualAddress(written.ip, written.prefix_length, written.interface)
    fitting = [
        own
        for own in present
        if written.ip in own.network
        and own.network.num_addresses > 1
        and written.interface in (None, own.interface)
        and written.prefix_length in (None, own.prefix_length)
    ]
    if not fitting:
        where = f"Interface {written.interface}" if written.interface else "No interface of this host"
        verb = "has no address" if written.interface else "has an address"
        slash = "" if written.prefix_length is None else f"/{written.prefix_length}"
        raise InterfaceMissing(
            f"{where} {verb} in the subnet of {written.ip}{slash}.",
            remedy="Write the prefix length and the interface: ADDRESS/PREFIX%INTERFACE.",
        )
    longest = max(own.prefix_length for own in fitting)
    interfaces = sorted({own.interface for own in fitting if own.prefix_length == longest})
    if len(interfaces) > 1:
        raise InterfaceAmbiguous(
            f"{written.ip} could belong to {' or '.join(interfaces)}.",
            cause="they are in the same subnet",
            remedy=f"Say which: {written.ip}/{longest}%{interfaces[0]}.",
        )
    return VirtualAddress(written.ip, longest, interfaces[0])


def _prefix_length(text: str, ip: IPAddress, shown: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= ip.max_prefixlen):
        raise AddressInvalid(
            f"{shown} has no valid prefix length.", cause=f"it must be 1 to {ip.max_prefixlen}", remedy=_FORM
        )
    return int(text)


def _why_not(ip: IPAddress, prefix_length: int | None) -> str:
    """Why no host could hold this address for its clients; empty when one can."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return "it is an IPv4 address in IPv6 notation"
    for kind in ("unspecified", "multicast", "loopback"):
        if getattr(ip, f"is_{kind}"):
            return f"it is {'the' if kind == 'unspecified' else 'a'} {kind} address"
    if ip == IPv4Address("255.255.255.255"):
        return "it is the broadcast address"
    if prefix_length is None or prefix_length >= ip.max_prefixlen - 1:
        return ""
    network = ip_network((ip, prefix_length), strict=False)
    if ip == network.network_address:
        return f"it is the address of the subnet {network} itself"
    if ip.version == 4 and ip == network.broadcast_address:
        return f"it is the broadcast address of {network}"
    return ""
