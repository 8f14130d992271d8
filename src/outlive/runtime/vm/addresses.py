"""Where each device of a machine is: the map of its buses, which may never change for a machine that exists.

Pure. On the old PC everything is on one PCI bus of 32 slots; on Q35 every card has a root port of its own. A guest
names its cards and finds its disks by these places, and state that was saved is loaded by them, so that adding a disk
or a card never moves another. (On Q35 a guest numbers buses in the order of their ports; cards come first there, since
it is cards that are named by that number.) The invariant: the place of a device depends on the board's type, the
device's kind and its number among its kind, and on nothing else.
"""

from dataclasses import dataclass
from enum import IntEnum

from outlive.cluster.machine import MachineType


class Place(IntEnum):
    """Devices of which there is one at most, by their number on a PC's bus."""

    DISPLAY = 2
    SERIAL = 3
    RANDOM = 4
    SCSI = 5
    SATA = 6
    SEED = 7


FIRST_NIC_SLOT = 8
FIRST_DISK_SLOT = 16
"""With 8 cards and 16 disks, which is the most of each (`machine_rules`), the bus of a PC is full."""

_Q35_DISPLAY_SLOT = 1
_Q35_NICS_SLOT = 2
_Q35_SINGLE_SLOT = 3
_Q35_DISKS_SLOT = 4
_FUNCTIONS = 8
# The random number generator is in every machine, and function 0 must be there for the others to be found.
_Q35_SINGLE = (Place.RANDOM, Place.SERIAL, Place.SCSI, Place.SATA, Place.SEED)


@dataclass(frozen=True, slots=True)
class Address:
    """bus and addr: as QEMU's devices take them.  port: the root port to make first, None where there is none."""

    bus: str
    addr: str
    port: "Port | None" = None


@dataclass(frozen=True, slots=True)
class Port:
    """A PCI Express root port. chassis: its number, unique."""

    name: str
    chassis: int
    addr: str


def single(board: MachineType, place: Place) -> Address:
    """Where the one device of that kind is."""
    if board is MachineType.PC:
        return Address("pci.0", f"{place:#x}")
    if place is Place.DISPLAY:
        return Address("pcie.0", f"{_Q35_DISPLAY_SLOT:#x}")
    return _behind_port(_Q35_SINGLE_SLOT, _Q35_SINGLE.index(place))


def nic(board: MachineType, number: int) -> Address:
    """Where the network card of that number is, from 0."""
    if board is MachineType.PC:
        return Address("pci.0", f"{FIRST_NIC_SLOT + number:#x}")
    return _behind_port(_Q35_NICS_SLOT, number)


def disk(board: MachineType, number: int) -> Address:
    """Where the virtio disk of that number among the virtio disks is, from 0."""
    if board is MachineType.PC:
        return Address("pci.0", f"{FIRST_DISK_SLOT + number:#x}")
    return _behind_port(_Q35_DISKS_SLOT + number // _FUNCTIONS, number % _FUNCTIONS)


def _behind_port(slot: int, function: int) -> Address:
    name = f"port-{slot}-{function}"
    return Address(name, "0x0", Port(name, slot * _FUNCTIONS + function, f"{slot:#x}.{function:#x}"))
