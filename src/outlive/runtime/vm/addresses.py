"""Where each device of a machine is: the map of its bus, which may never change for a machine that exists.

Pure. Every device has a slot of its own on the board's first bus, on Q35 too: root ports would let a guest have devices
plugged in while it runs, which nobody does here, and each would add 20 KB to the state that a hot machine saves at
every epoch. A guest names its cards and finds its disks by these places, and state that was saved is loaded by them.
The invariant: the place of a device depends on the board's type, the device's kind and its number among its kind, and
on nothing else, so that adding a disk or a card never moves another.
"""

from dataclasses import dataclass
from enum import IntEnum

from outlive.cluster.machine import MachineType


class Place(IntEnum):
    """Devices of which there is one at most, by their slot on a PC, whose own devices have the first two."""

    DISPLAY = 2
    SERIAL = 3
    RANDOM = 4
    SCSI = 5
    SATA = 6
    SEED = 7


FIRST_NIC_SLOT = 8
FIRST_DISK_SLOT = 16
"""With 8 cards and 16 disks, which is the most of each (`machine_rules`), the bus is full."""

_BUS = {MachineType.PC: "pci.0", MachineType.Q35: "pcie.0"}
# Q35 itself has the first slot and the last.
_EARLIER = {MachineType.PC: 0, MachineType.Q35: 1}


@dataclass(frozen=True, slots=True)
class Address:
    """bus and addr: as QEMU's devices take them."""

    bus: str
    addr: str


def single(board: MachineType, place: Place) -> Address:
    """Where the one device of that kind is."""
    return _slot(board, place)


def nic(board: MachineType, number: int) -> Address:
    """Where the network card of that number is, from 0."""
    return _slot(board, FIRST_NIC_SLOT + number)


def disk(board: MachineType, number: int) -> Address:
    """Where the virtio disk of that number among the virtio disks is, from 0."""
    return _slot(board, FIRST_DISK_SLOT + number)


def _slot(board: MachineType, number: int) -> Address:
    return Address(_BUS[board], f"{number - _EARLIER[board]:#x}")
