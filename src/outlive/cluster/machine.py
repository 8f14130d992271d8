"""A virtual machine, as values: its hardware, its disks and networks, and how its state is kept.

What a `Workload` of kind vm adds to the rest. The workload has exactly one module, `vm`: the emulator that runs the
guest. Reading these from a file is in `outlive.config`; turning them into a running program in `outlive.runtime.vm`.
The invariant: everything that a guest can see of its hardware follows from these values alone, so that two hosts
that start the same `Machine` make the same hardware, down to device addresses.
"""

from dataclasses import dataclass
from enum import StrEnum

MODULE = "vm"
"""The name of the one module that a workload of kind vm has."""

LOCAL = "local"
"""What `Disk.on` says of a disk that is kept on the host itself and not on a datastore."""


class MachineType(StrEnum):
    """The board: the old PC with PCI, or Q35 with PCI Express. The exact version is pinned when it first starts."""

    PC = "pc"
    Q35 = "q35"


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class DiskFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class NicModel(StrEnum):
    VIRTIO = "virtio"
    E1000E = "e1000e"


class OnPanic(StrEnum):
    """What follows when the guest says that its kernel panicked."""

    RESTART = "restart"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of a machine.

    name:     its serial number in the guest, and its file's name.
    on:       LOCAL, or the name of the datastore that holds it.
    size_mib: how large to make it when it is not there yet; None: as large as its source.
    source:   an absolute path on the host, or on the datastore, that it is copied from when it is not there yet.
    """

    name: str
    format: DiskFormat = DiskFormat.RAW
    on: str = LOCAL
    size_mib: int | None = None
    source: str | None = None
    bus: DiskBus = DiskBus.VIRTIO
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card: on a `bridge` of the host, or on a virtual `network` that spans hosts; one of the two.

    mac: six bytes as in 52:54:00:12:34:56, always given once a workload is applied, since a guest knows its card by it.
    mtu: the largest packet in bytes that the guest is told to send; None: what it takes by itself, 1500.
    """

    name: str
    mac: str
    bridge: str | None = None
    network: str | None = None
    model: NicModel = NicModel.VIRTIO
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class KernelBoot:
    """Boot this kernel directly, without a boot loader. Paths are absolute, the same on every host."""

    kernel: str
    initrd: str | None = None
    append: str = ""


@dataclass(frozen=True, slots=True)
class CloudInit:
    """What a guest's cloud-init finds at its first start (NoCloud): texts, not paths."""

    user_data: str = ""
    meta_data: str = ""
    network_config: str = ""


@dataclass(frozen=True, slots=True)
class GuestWatch:
    """How a guest that stopped working is told from one that is merely busy.

    It is reset only after its agent was silent for `silence_s` *and* it did no disk or network input or output for
    `no_io_s`; never within `grace_s` of its start, and at most `resets` times within `window_s`.
    """

    panic: OnPanic = OnPanic.RESTART
    enabled: bool = False
    silence_s: float = 30.0
    no_io_s: float = 120.0
    grace_s: float = 120.0
    resets: int = 3
    window_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class WarmPolicy:
    """Checkpoints of a running machine. on: the datastore; None: that of its disks. keep: whole checkpoints kept.

    base_every: a new base is written after so many increments, unless merging keeps the chain short before.
    """

    interval_s: float = 60.0
    keep: int = 4
    on: str | None = None
    base_every: int = 32


@dataclass(frozen=True, slots=True)
class HotPolicy:
    """How closely a standby follows.

    floor_ms:   the shortest time between two epochs.  idle_ms: the longest, while nobody waits.
    silence_ms: how long the peer's link may be silent before the standby asks to take over.
    overhead:   the share of a busy guest's time that it may be paused for epochs; the interval grows to keep it, and
                less so for a guest that has time to spare.
    bandwidth_mib_s: the most that may be sent to the standby; None: as fast as it goes.
    """

    floor_ms: float = 1.0
    idle_ms: float = 100.0
    silence_ms: float = 150.0
    overhead: float = 0.2
    bandwidth_mib_s: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware of a virtual machine and what is watched of its guest.

    cpu_model: as the emulator names it; None: one that every host can give.
    version:   the exact board version as in pc-q35-7.2; None: the one that the hosts agree on when it first starts.
    """

    cpus: int = 1
    memory_mib: int = 512
    type: MachineType = MachineType.Q35
    version: str | None = None
    cpu_model: str | None = None
    firmware: Firmware = Firmware.BIOS
    boot: KernelBoot | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    guest_agent: bool = False
    cloud_init: CloudInit | None = None
    watch: GuestWatch = GuestWatch()
    stop_s: float = 60.0
