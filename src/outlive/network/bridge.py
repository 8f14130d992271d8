"""Bridges that machines' taps are plugged into: an operator's, which is only checked, or a virtual network's.

Blocks; runs in the worker thread of `tap` or `overlay`. The invariant: an operator's bridge is never changed but for
the ports that are ours, and never made or removed.
"""

from dataclasses import dataclass

from outlive.network.errors import BridgeMissing, BridgeUnsuitable, DeviceForeign
from outlive.network.kernel_links import Device, KernelLinks

NETWORK_ALIAS = "outlive:network:"
BRIDGE, LIVE, SHADOW = "olbr", "olvx", "olvs"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that taps may be plugged into. virtual: it is one of ours, for a virtual network."""

    name: str
    index: int
    mtu: int
    virtual: bool


def virtual_bridge(vni: int) -> str:
    """The name of a virtual network's bridge on every host."""
    return f"{BRIDGE}{vni}"


def require(links: KernelLinks, name: str) -> Bridge:
    """Look a bridge up. Raises BridgeMissing, BridgeUnsuitable."""
    device = links.device(name)
    if device is None:
        present = sorted(each.name for each in links.devices().values() if each.kind == "bridge")
        raise BridgeMissing(
            f"This host has no bridge {name}.",
            cause="it has " + (", ".join(present) or "none"),
            remedy=f"make it (ip link add {name} type bridge), or name another in the machine's file",
        )
    if device.kind != "bridge":
        raise BridgeUnsuitable(f"Interface {name} is no bridge.", remedy="name a bridge in the machine's file")
    if not device.up:
        raise BridgeUnsuitable(f"Bridge {name} is switched off.", remedy=f"ip link set {name} up")
    return Bridge(name, device.index, device.mtu, is_network(device, BRIDGE))


def make(links: KernelLinks, vni: int, network: str) -> Bridge:
    """The bridge of a virtual network; one that is there is used. Raises DeviceForeign."""
    name = virtual_bridge(vni)
    device = links.device(name)
    if device is not None and not is_network(device, BRIDGE):
        raise foreign(name)
    index = links.make_bridge(name, bridge_mac(vni)) if device is None else device.index
    links.change(index, ifalias=NETWORK_ALIAS + network)
    links.silence(index)
    links.change(index, state="up")
    return Bridge(name, index, device.mtu if device is not None else 0, virtual=True)


def plug(links: KernelLinks, bridge: Bridge, port: Device, mac: str, *, live: bool) -> None:
    """Plug a machine's tap in. live: it runs here, so its frames go there alone; else the tap gets what comes for it.

    A standby's card is not pinned, since its frames belong to where it runs; its tap gets frames whose receiver the
    bridge does not know, its own among them.
    """
    if port.master != bridge.index:
        links.change(port.index, master=bridge.index)
    links.port(port.index, learning=not bridge.virtual, flood=not (bridge.virtual and live))
    if live:
        links.pin(port.index, mac)
    else:
        links.unpin(port.index, mac)


def is_network(device: Device, prefix: str) -> bool:
    """Whether a device is a virtual network's; one without an alias was left by an agent that ended just then."""
    number = device.name.removeprefix(prefix)
    ours = device.alias == "" or device.alias.startswith(NETWORK_ALIAS)
    return ours and device.name.startswith(prefix) and number.isascii() and number.isdigit()


def foreign(name: str) -> DeviceForeign:
    """The error for a device that has one of our names and is another's."""
    return DeviceForeign(
        f"The device {name} on this host was not made by Outlive.", remedy=f"rename or remove it: ip link del {name}"
    )


def bridge_mac(vni: int) -> str:
    """A MAC for the bridge itself, which sends nothing; given, so that it does not follow that of a port."""
    return "02:6f:6c:" + ":".join(f"{byte:02x}" for byte in vni.to_bytes(3, "big"))
