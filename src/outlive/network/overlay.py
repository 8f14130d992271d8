"""The virtual networks of this host in the kernel: bridges, VXLAN ends, and where frames are forwarded to.

What there must be is worked out in `outlive.cluster.overlay`; here the kernel is brought to it by differences alone.
A network has a bridge `olbrVNI` without learning and two VXLAN ends in it: `olvxVNI` sends a frame to the one host
where its receiver runs (or to every member, for everybody), `olvsVNI` sends it besides to the standby of a hot
machine. A bridge forwards nothing from one of the two to the other. For the agent's event loop, which none of it
blocks. Everything takes effect in the network namespace of the calling process.

Invariant: an entry is replaced only by one of the same or a newer age (see `forwarding`), and devices that carry
another alias than ours are neither changed nor removed.
"""

import time
from dataclasses import dataclass, field

import structlog

from outlive.cluster.overlay import Segment, Wiring, checked_mac
from outlive.network import bridge as bridges
from outlive.network import fdb
from outlive.network.bridge import BRIDGE, LIVE, NETWORK_ALIAS, SHADOW
from outlive.network.forwarding import Age, Ages, Row, steps
from outlive.network.kernel_links import Device, KernelLinks, Vxlan
from outlive.network.tap import tap_name
from outlive.network.workers import KernelUser

VXLAN_PORT = 4789
SHADOW_PORT = 7412
"""UDP ports on which wrapped frames are received: everybody's, and those that come besides for a standby."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update changed: forwarding entries, networks made and removed (by name), and how long it took."""

    entries: int
    made: tuple[str, ...]
    removed: tuple[str, ...]
    took_ms: float


class Overlay(KernelUser):
    """The virtual networks of this host, as `async with Overlay(address) as overlay`. Leaving removes nothing.

    address: this host's own in the cluster, on which other members reach it.
    limit_s: the time that the kernel has for one update.
    """

    def __init__(
        self, address: str, *, port: int = VXLAN_PORT, shadow_port: int = SHADOW_PORT, limit_s: float = 5.0
    ) -> None:
        self._tables = _Tables(address, port, shadow_port)
        super().__init__("overlay", self._tables.close, limit_s)

    async def update(self, wiring: Wiring, *, look_again: bool = False) -> Updated:
        """Bring the kernel to what is wanted. Calls take effect in their order.

        look_again: read back what the kernel has first, as the first call does, and mend what others changed.
        Raises DeviceForeign, KernelRefused, NotPermitted, KernelSlow; the next call then reads everything again.
        """
        updated = await self._in_kernel("set up virtual networks", lambda: self._tables.update(wiring, look_again))
        if updated.entries or updated.made or updated.removed:
            log.info(
                "overlay.updated",
                entries=updated.entries,
                made=updated.made,
                removed=updated.removed,
                took_ms=round(updated.took_ms, 2),
            )
        return updated

    async def take(self, vni: int, mac: str, age: Age) -> bool:
        """A machine's card is on this host from now on: send its frames nowhere else, whatever an older view says.

        To be called as soon as the store was won, before the placement is seen. age: of the placement that was won
        (generation, pairing). False if something newer is known already. Its tap is made live by `Taps.ensure`.
        """
        card = checked_mac(mac)
        taken = await self._in_kernel(f"take {card}", lambda: self._tables.take(vni, card, age))
        log.info("overlay.card_taken", vni=vni, mac=card, generation=age[0], pairing=age[1], taken=taken)
        return taken


@dataclass
class _Made:
    """A network as it is in the kernel. rows: what its two ends forward. live_cards: taps of what runs here, by MAC."""

    name: str
    mtu: int
    live: int
    shadow: int | None
    ages: Ages
    rows: frozenset[Row] = frozenset()
    live_cards: dict[str, str] = field(default_factory=dict)
    shadow_sends: bool = True

    def serves(self, segment: Segment) -> bool:
        """Whether its devices are those that the segment needs."""
        wanted = segment.network
        return (self.name, self.mtu) == (wanted.name, wanted.mtu) and (self.shadow is not None or not segment.shadowed)


class _Tables:
    """What the kernel has, in the overlay's one worker thread."""

    def __init__(self, address: str, port: int, shadow_port: int) -> None:
        self._links = KernelLinks()
        self._address = address
        self._ports = {LIVE: port, SHADOW: shadow_port}
        self._made: dict[int, _Made] = {}
        self._known = False
        self._some_stayed = False

    def close(self) -> None:
        self._links.close()

    def update(self, wiring: Wiring, look_again: bool) -> Updated:
        begun_s = time.monotonic()
        wanted = {segment.network.vni: segment for segment in wiring.segments}
        made: list[str] = []
        removed: list[str] = []
        try:
            if look_again or not self._known or self._some_stayed or not self._has_devices_for(wanted):
                made, removed = self._make_devices(wanted)
            changes = sum(self._forward(self._made[vni], segment) for vni, segment in wanted.items())
        except BaseException:
            self._known = False
            raise
        self._known = True
        return Updated(changes, tuple(made), tuple(removed), (time.monotonic() - begun_s) * 1000)

    def take(self, vni: int, mac: str, age: Age) -> bool:
        made = self._made.get(vni)
        if made is None or not made.ages.take(mac, age):
            return False
        try:
            self._bring(made, frozenset(row for row in made.rows if row.mac != mac))
        except BaseException:
            self._known = False
            raise
        return True

    def _has_devices_for(self, wanted: dict[int, Segment]) -> bool:
        return self._made.keys() == wanted.keys() and all(
            self._made[vni].serves(segment) for vni, segment in wanted.items()
        )

    def _make_devices(self, wanted: dict[int, Segment]) -> tuple[list[str], list[str]]:
        """Have the devices of all that is wanted, and no others of ours; the names of networks made and removed."""
        devices = self._links.devices()
        made = [segment.network.name for vni, segment in wanted.items() if f"{LIVE}{vni}" not in devices]
        for vni, segment in wanted.items():
            self._made[vni] = self._make(segment, devices)
        unwanted = {vni: name for device in devices.values() for vni, name in _network(device) if vni not in wanted}
        removed = [name for vni, name in unwanted.items() if self._remove(vni, devices)]
        self._some_stayed = len(removed) < len(unwanted)
        for gone in self._made.keys() - wanted.keys():
            del self._made[gone]
        return made, removed

    def _make(self, segment: Segment, devices: dict[str, Device]) -> _Made:
        network = segment.network
        bridge = bridges.make(self._links, network.vni, network.name)
        live = self._end(segment, LIVE, bridge.index, devices)
        had_shadow = f"{SHADOW}{network.vni}" in devices
        shadow = self._end(segment, SHADOW, bridge.index, devices) if segment.shadowed or had_shadow else None
        rows = {Row(False, mac, address) for mac, address in fdb.rows(live)}
        if shadow is not None:
            rows |= {Row(True, mac, address) for mac, address in fdb.rows(shadow)}
        known = self._made.get(network.vni)
        if known is None:
            return _Made(network.name, network.mtu, live, shadow, Ages(), frozenset(rows))
        return _Made(network.name, network.mtu, live, shadow, known.ages, frozenset(rows), known.live_cards)

    def _end(self, segment: Segment, prefix: str, bridge: int, devices: dict[str, Device]) -> int:
        """One of the network's VXLAN ends, in its bridge; one that is there is used if it is the same."""
        network, name = segment.network, f"{prefix}{segment.network.vni}"
        end = Vxlan(network.vni, self._address, self._ports[prefix])
        device = devices.get(name)
        if device is not None and not bridges.is_network(device, prefix):
            raise bridges.foreign(name)
        if device is not None and device.vxlan != end:
            self._links.delete(name)
            device = None
        index = self._links.make_vxlan(name, end, network.mtu) if device is None else device.index
        self._links.change(index, ifalias=NETWORK_ALIAS + network.name, master=bridge, mtu=network.mtu)
        self._links.silence(index)
        self._links.port(index, learning=False, flood=True, everybody=prefix == LIVE, apart=True)
        self._links.change(index, state="up")
        return index

    def _remove(self, vni: int, devices: dict[str, Device]) -> bool:
        """Remove a network's devices, unless a machine's tap is still in its bridge; whether they are gone."""
        bridge = devices.get(f"{BRIDGE}{vni}")
        ends = {f"{LIVE}{vni}", f"{SHADOW}{vni}"}
        if bridge is not None:
            if any(each.master == bridge.index and each.name not in ends for each in devices.values()):
                return False
            self._links.delete(bridge.name)
        for name in ends:
            device = devices.get(name)
            if device is not None and bridges.is_network(device, name.rstrip("0123456789")):
                self._links.delete(name)
        return True

    def _forward(self, made: _Made, segment: Segment) -> int:
        changes = self._bring(made, made.ages.settle(segment))
        live = {here.mac: tap_name(here.workload, here.nic) for here in segment.here if here.live}
        for mac, tap in made.live_cards.items() - live.items():
            # Until its tap is removed or told to stand by, the bridge would go on giving it what is for elsewhere.
            device = self._links.device(tap)
            if device is not None:
                self._links.unpin(device.index, mac)
        made.live_cards = live
        return changes

    def _bring(self, made: _Made, rows: frozenset[Row]) -> int:
        """Bring both ends' tables to these rows; how many changes that took."""
        if made.shadow is None:
            rows = frozenset(row for row in rows if not row.shadow)
        changes = steps(made.rows, rows)
        shadows = any(row.shadow for row in rows)
        if shadows:
            self._shadow_sends(made, True)
        if changes:
            removed = [fdb.Change(False, self._index(made, row), row.mac, row.address) for row in changes.remove]
            put = [fdb.Change(True, self._index(made, row), row.mac, row.address) for row in changes.put]
            fdb.change([*removed, *put])
        if not shadows:
            self._shadow_sends(made, False)
        made.rows = rows
        return len(changes)

    def _shadow_sends(self, made: _Made, sends: bool) -> None:
        """Let the bridge give frames to the shadow only while there are some that it would send."""
        if made.shadow is not None and made.shadow_sends is not sends:
            self._links.port(made.shadow, learning=False, flood=sends, everybody=False, apart=True)
            made.shadow_sends = sends

    def _index(self, made: _Made, row: Row) -> int:
        index = made.shadow if row.shadow else made.live
        assert index is not None, "shadow rows are only where there is a shadow"
        return index


def _network(device: Device) -> list[tuple[int, str]]:
    """Number and name of the network whose bridge this is, or whose VXLAN end was left without one."""
    return [
        (int(device.name.removeprefix(prefix)), device.alias.removeprefix(NETWORK_ALIAS))
        for prefix, kind in ((BRIDGE, "bridge"), (LIVE, "vxlan"))
        if device.kind == kind and bridges.is_network(device, prefix)
    ]
