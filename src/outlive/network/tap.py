"""Taps: the host's end of a virtual machine's network card.

A tap has its name from workload and card, stays when nobody has it open, and carries in its alias whose it is and at
which generation, so that whatever was left over is recognised. It says nothing by itself: a tap that no program has
open carries no frames, which is all that a fenced host needs. For the agent's event loop, which none of it blocks.

Invariant: only links with our alias are changed or removed.
"""

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from outlive.cluster.host import NAME
from outlive.cluster.overlay import checked_mac
from outlive.errors import OutliveError
from outlive.network import bridge as bridges
from outlive.network import machine_announcements
from outlive.network.address import IPAddress
from outlive.network.errors import kernel_refused
from outlive.network.kernel_links import Device, KernelLinks
from outlive.network.workers import KernelUser, Workers

PREFIX = "ol"
ALIAS = "outlive"

ANNOUNCEMENTS = 5
ANNOUNCEMENT_INTERVAL_S = 0.1

_HASHED = 13
_ANY_OTHER_FIRST_BYTE = "fe"
_KIND = "tun"
_ANNOUNCING_THREADS = 4

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tap as it is to be.

    bridge: an operator's, or a virtual network's (`bridge.virtual_bridge`), which the overlay has made before.
    live:   the machine runs here; else it stands by: see `bridge.plug`.
    mtu:    None: that of the bridge.  owner, group: user and group ids that may open it without being root.
    """

    workload: str
    nic: str
    generation: int
    mac: str
    bridge: str
    live: bool = True
    mtu: int | None = None
    owner: int | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap that is there. bridge: "" for none."""

    name: str
    workload: str
    nic: str
    generation: int
    bridge: str
    mtu: int


def tap_name(workload: str, nic: str) -> str:
    """The tap's name, 15 characters: a hash of 65 bits, the same on every host and at every time."""
    digest = hashlib.blake2b(f"{workload}/{nic}".encode(), digest_size=10, person=b"outlive-tap").digest()
    return PREFIX + base64.b32encode(digest).decode().lower()[:_HASHED]


def alias(workload: str, nic: str, generation: int) -> str:
    """What a tap's alias says: `outlive:WORKLOAD:GENERATION:CARD`."""
    return f"{ALIAS}:{workload}:{generation}:{nic}"


def read_alias(text: str) -> tuple[str, str, int] | None:
    """Workload, card and generation in an alias; None for what is not one of ours."""
    words = text.split(":")
    if len(words) != 4 or words[0] != ALIAS:
        return None
    _, workload, generation, nic = words
    if not (NAME.fullmatch(workload) and NAME.fullmatch(nic)):
        return None
    if not (generation.isascii() and generation.isdigit() and len(generation) <= 18):
        return None
    return workload, nic, int(generation)


class Taps(KernelUser):
    """The taps of this host, as `async with Taps() as taps`. Leaving removes none of them.

    limit_s: the time that the kernel has for one tap.
    """

    def __init__(self, *, limit_s: float = 2.0) -> None:
        self._links = KernelLinks()
        self._packets = Workers("machine-announcements", _ANNOUNCING_THREADS)
        super().__init__("taps", self._links.close, limit_s, self._packets)

    async def ensure(self, wanted: Wanted) -> Tap:
        """Make the tap, or bring the one that is there to what is wanted: bridge, MTU, alias, live or standing by.

        Raises MacInvalid, BridgeMissing, BridgeUnsuitable, DeviceForeign, NotPermitted, KernelSlow.
        """
        mac = checked_mac(wanted.mac)
        tap, made = await self._in_kernel(
            f"make the tap of {wanted.workload}/{wanted.nic}", lambda: _ensure(self._links, wanted, mac)
        )
        if made:
            log.info("tap.made", tap=tap.name, workload=tap.workload, nic=tap.nic, bridge=tap.bridge)
        return tap

    async def remove(self, workload: str, nic: str) -> bool:
        """Remove a tap; False if it was not there. Raises DeviceForeign if it is another's."""
        removed = await self._in_kernel(
            f"remove the tap of {workload}/{nic}", lambda: _remove(self._links, workload, nic)
        )
        if removed:
            log.info("tap.removed", tap=tap_name(workload, nic), workload=workload, nic=nic)
        return removed

    async def ours(self) -> tuple[Tap, ...]:
        """The taps of ours on this host, whichever process made them."""
        return await self._in_kernel("list its links", lambda: _ours(self._links))

    async def reconcile(self, expected: Iterable[tuple[str, str]]) -> tuple[Tap, ...]:
        """Remove the taps of ours that are not expected (workload, card), and return them."""
        wanted = frozenset(expected)
        removed = await self._in_kernel("remove leftovers", lambda: _keep_only(self._links, wanted))
        for tap in removed:
            log.warning("tap.leftover_removed", tap=tap.name, workload=tap.workload, generation=tap.generation)
        return removed

    async def announce_machine(
        self,
        bridge: str,
        mac: str,
        ips: Iterable[IPAddress] = (),
        *,
        repeats: int = ANNOUNCEMENTS,
        interval_s: float = ANNOUNCEMENT_INTERVAL_S,
    ) -> int:
        """Tell the bridge's neighbours that a card is here: at once, then every `interval_s`, `repeats` times in all.

        Only for a machine that this host runs. ips: its addresses where they are known; without, its MAC alone is told.
        Returns how often they were told. Raises MacInvalid, and InterfaceDown or another error if never.
        """
        said = machine_announcements.frames(mac, ips)
        told, trouble = 0, None
        for turn in range(repeats):
            if turn:
                await asyncio.sleep(interval_s)
            try:
                await self._packets.run(
                    "send an announcement", lambda: machine_announcements.tell(bridge, said), self._limit_s
                )
            except OutliveError as error:
                log.warning("machine.announcement_failed", bridge=bridge, mac=mac, because=str(error))
                trouble = error
            else:
                told += 1
        if trouble is not None and not told:
            raise trouble
        log.info("machine.announced", bridge=bridge, mac=mac, times=told)
        return told


def _ensure(links: KernelLinks, wanted: Wanted, mac: str) -> tuple[Tap, bool]:
    bridge = bridges.require(links, wanted.bridge)
    name = tap_name(wanted.workload, wanted.nic)
    text = alias(wanted.workload, wanted.nic, wanted.generation)
    device = _own(links, wanted.workload, wanted.nic)
    made = device is None
    if device is None:
        links.make_tap(name, text, wanted.owner, wanted.group)
        device = links.device(name)
        if device is None:
            raise kernel_refused(f"keep {name}, which was just made", 19)
        # A bridge without a MAC of its own takes its ports' lowest, so the host's end of a tap gets a high one.
        links.change(device.index, address=f"{_ANY_OTHER_FIRST_BYTE}{mac[2:]}")
        links.silence(device.index)
    mtu = wanted.mtu or bridge.mtu
    if device.mtu != mtu:
        links.change(device.index, mtu=mtu)
    bridges.plug(links, bridge, device, mac, live=wanted.live)
    if device.alias != text or not device.up:
        links.change(device.index, ifalias=text, state="up")
    return Tap(name, wanted.workload, wanted.nic, wanted.generation, bridge.name, mtu), made


def _own(links: KernelLinks, workload: str, nic: str) -> Device | None:
    """The tap's device, if it is there. Raises DeviceForeign when something else has its name."""
    device = links.device(tap_name(workload, nic))
    if device is None:
        return None
    said = read_alias(device.alias)
    if device.kind != _KIND or said is None or said[:2] != (workload, nic):
        raise bridges.foreign(device.name)
    return device


def _remove(links: KernelLinks, workload: str, nic: str) -> bool:
    device = _own(links, workload, nic)
    return device is not None and links.delete(device.name)


def _ours(links: KernelLinks) -> tuple[Tap, ...]:
    devices = links.devices()
    names = {device.index: device.name for device in devices.values()}
    found = []
    for device in devices.values():
        said = read_alias(device.alias)
        if device.kind == _KIND and said is not None and device.name == tap_name(*said[:2]):
            workload, nic, generation = said
            found.append(Tap(device.name, workload, nic, generation, names.get(device.master, ""), device.mtu))
    return tuple(found)


def _keep_only(links: KernelLinks, expected: frozenset[tuple[str, str]]) -> tuple[Tap, ...]:
    leftovers = [tap for tap in _ours(links) if (tap.workload, tap.nic) not in expected]
    return tuple(tap for tap in leftovers if links.delete(tap.name))
