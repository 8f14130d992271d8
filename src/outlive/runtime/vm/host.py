"""What of this host a virtual machine depends on: the emulator, its acceleration, its user and its firmware.

Found once when the agent begins. None of it may be seen by the guest, apart from KVM, under which machines run only
with machines under KVM as peers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from outlive.cluster.machine import MachineType
from outlive.runtime.runner import Account

USER = "outlive-vm"


class Acceleration(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """qemu: the emulator's program.  qemu_version: as in 7.2.22.  newest: the newest board version of each type.

    account: the user that emulators run as; None: ours, root.
    firmware, firmware_variables: UEFI's code and the template of its variables; None where this host has none.
    """

    qemu: Path
    qemu_version: str
    newest: Mapping[MachineType, str] = field(default_factory=dict)
    acceleration: Acceleration = Acceleration.TCG
    account: Account | None = None
    firmware: Path | None = None
    firmware_variables: Path | None = None


async def find() -> HostFacts:
    """Look at this host. Raises Failed (id `vm.no-emulator`) where there is no usable QEMU."""
    raise NotImplementedError
