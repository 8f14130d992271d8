"""How the network can refuse: the errors of this room, each a sentence with its cause and remedy.

They are kept together since packets, kernel and decisions raise the same ones. Nothing here changes anything.
"""

import os
import socket

from outlive.errors import Failed, RefusedForSafety, UsageInvalid


class AddressInvalid(UsageInvalid):
    """The text is no address that could be moved between hosts."""

    id = "virtual_ip.invalid"


class InterfaceMissing(Failed):
    """No interface of that name, or none in the address's subnet, is on this host."""

    id = "interface.missing"


class InterfaceAmbiguous(UsageInvalid):
    """More than one interface is in the address's subnet."""

    id = "interface.ambiguous"


class InterfaceDown(Failed):
    """The interface cannot carry a packet now, so neighbours can neither be asked nor told."""

    id = "interface.down"


class InterfaceUnsuitable(Failed):
    """The interface's kind of network is not one in which neighbours are asked by ARP or NDP over Ethernet."""

    id = "interface.unsuitable"


class AddressInUse(RefusedForSafety):
    """Another machine answers for the address."""

    id = "virtual_ip.in_use"


class AddressForeign(RefusedForSafety):
    """This host has the address, but it was not Outlive that added it."""

    id = "virtual_ip.foreign"


class AddressMissing(Failed):
    """An address that was to be renewed is not on this host (any more)."""

    id = "virtual_ip.missing"


class LifetimeEnded(RefusedForSafety):
    """The time for which the address was to be held was over before the kernel could be told."""

    id = "virtual_ip.lifetime_ended"


class NotPermitted(Failed):
    """This process may not change or use the network."""

    id = "network.not_permitted"


class KernelRefused(Failed):
    """The kernel said no, for a reason that is none of the others here."""

    id = "network.kernel_refused"


class KernelSlow(Failed):
    """The kernel did not answer within the time limit; it may yet do what was asked, or not."""

    id = "network.kernel_slow"


class PacketRefused(Failed):
    """A packet or message that is cut short, altered, or not what its type says."""

    id = "network.packet_refused"


def not_permitted(what: str, capability: str) -> NotPermitted:
    """The error for a missing capability; `what` completes "This process may not ..."."""
    return NotPermitted(
        f"This process may not {what}.",
        cause=f"it lacks {capability}",
        remedy=f"Run the agent as root, or give it {capability}.",
    )


def interface_missing(name: str) -> InterfaceMissing:
    """The error for a name that no interface here has; it lists the names that would do."""
    return InterfaceMissing(
        f"This host has no interface {name}.",
        cause="it has " + (", ".join(sorted(present for _, present in socket.if_nameindex())) or "none"),
        remedy="Name one of these in the workload, or leave the interface out to have it found by subnet.",
    )


def interface_down(name: str, cause: str) -> InterfaceDown:
    """The error for an interface without link."""
    return InterfaceDown(
        f"Interface {name} is down.", cause=cause, remedy="Bring the link up, or run the workload elsewhere."
    )


def kernel_refused(what: str, number: int) -> KernelRefused:
    """The error for any other errno; `what` completes "The kernel refused to ..."."""
    return KernelRefused(f"The kernel refused to {what}.", cause=os.strerror(number))


class BridgeMissing(Failed):
    """There is no bridge of that name on this host."""

    id = "bridge.missing"


class BridgeUnsuitable(Failed):
    """The interface of that name is no bridge, or one that carries nothing now."""

    id = "bridge.unsuitable"


class DeviceForeign(RefusedForSafety):
    """A device has the name that one of ours would have, and it was not Outlive that made it."""

    id = "network.device_foreign"
