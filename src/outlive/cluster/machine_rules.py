"""What makes a virtual machine one that can be started, what it needs of a host, and what is derived for it.

The file reader tells a user's mistakes with their lines, in `outlive.config`; here stands, as one sentence, what no
machine may be however it came, since its names become paths, devices and words of a command line. Both hold to the
numbers that are given here.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256

from .host import NAME, Capacity
from .machine import LOCAL, MODULE, Disk, DiskBus, Firmware, Machine, MachineType, Nic, NicModel
from .overlay import LEAST_MTU, MOST_MTU
from .workload import Apart, Kind, Protection, Workload

MOST_VCPUS = 255
LEAST_MEMORY_MIB = 8
MOST_MEMORY_MIB = 1 << 24
MOST_DISKS = 16
MOST_NICS = 8
MOST_DISK_MIB = 1 << 26
LONGEST_DEVICE_NAME = 20
"""In characters: a virtio disk has no room for a longer serial number."""
LONGEST_PATH = 4000
LEAST_SILENCE_MS = 60.0
"""Three keep-alives; a shorter silence is no sign of anything."""
VERSION = {MachineType.PC: "pc-i440fx-", MachineType.Q35: "pc-q35-"}
"""How the exact version of a board of each type begins."""

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
BRIDGE = re.compile(r"(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}")
BOARD_VERSION = re.compile(r"pc-(i440fx|q35)-[0-9]{1,3}\.[0-9]{1,3}")
CPU_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}(,[+-]?[a-z0-9_.-]{1,40}(=[a-z0-9]{1,20})?){0,32}")
SAFE_PATH = re.compile(r"/(?!\.\.(/|$))(?:(?!/\.\.(/|$))[^\x00-\x1f\x7f])*")
"""An absolute path without `..` as a part of it."""

_USUAL_MAC = "52:54:00"
_EMULATOR_MIB = 192
_FOLLOWING_MIB = 128


def machine_problem(workload: Workload) -> str:
    """What keeps a workload from ever being a virtual machine that runs, as a sentence's part; '' for nothing.

    '' also for a service that has nothing of a machine. Raises nothing.
    """
    return next(_problems(workload), "")


def derived_mac(workload: str, nic: str, taken: Collection[str] = ()) -> str:
    """The address of a card that was given none: always the same for the same names, and none of those taken."""
    for attempt in range(256):
        digest = sha256(f"{workload}/{nic}/{attempt}".encode()).hexdigest()
        mac = f"{_USUAL_MAC}:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"
        if mac not in taken:
            return mac
    raise ValueError(f"{len(taken)} addresses are taken")


def needs(machine: Machine, protection: Protection) -> Capacity:
    """What a host must have free for a machine whose file does not say: its memory, and the emulator's own.

    Under hot and warm protection, also what the communication manager holds.
    """
    following = 0 if protection is Protection.COLD else _FOLLOWING_MIB + machine.memory_mib // 16
    return Capacity(float(machine.cpus), machine.memory_mib + _EMULATOR_MIB + machine.memory_mib // 64 + following)


def datastores_of(workload: Workload) -> tuple[str, ...]:
    """The datastores that a host must reach to run it: its data folder's, its disks', its checkpoints'; in order."""
    if workload.machine is None:
        return (workload.data_on,) if workload.data_on else ()
    named = [workload.data_on] if workload.data_on else []
    named += [disk.on for disk in workload.machine.disks if disk.on != LOCAL]
    named += [workload.warm.on] if workload.protection is Protection.WARM and workload.warm.on else []
    return tuple(dict.fromkeys(named))


def shared_mac(workload: Workload, others: Iterable[Workload]) -> tuple[str, str] | None:
    """An address of a card that another workload's card has too, with that workload's name; None if there is none."""
    own = {nic.mac for nic in workload.machine.nics} if workload.machine else set()
    for other in others:
        cards = other.machine.nics if other.machine and other.name != workload.name else ()
        if shared := own & {nic.mac for nic in cards}:
            return min(shared), other.name
    return None


def is_multicast(mac: str) -> bool:
    """Whether a MAC address is one of many, as no card's may be."""
    return bool(int(mac[:2], 16) & 1)


def _problems(workload: Workload) -> Iterator[str]:
    machine = workload.machine
    if workload.kind is not Kind.VM:
        if machine is not None:
            yield "it is a service, and has a machine"
        if workload.protection is not Protection.COLD:
            yield f"it is a service, which cannot have {workload.protection} protection"
        return
    if machine is None:
        yield "it is a virtual machine without a machine"
        return
    if tuple(module.name for module in workload.modules) != (MODULE,):
        yield f"a virtual machine has the module {MODULE!r} alone"
    yield from _of_hardware(machine)
    for disk in machine.disks:
        yield from _of_disk(disk)
    for nic in machine.nics:
        yield from _of_nic(nic)
    for what, names in (
        ("disks", [disk.name for disk in machine.disks]),
        ("network cards", [nic.name for nic in machine.nics]),
        ("network cards", [nic.mac for nic in machine.nics]),
    ):
        if len(set(names)) < len(names):
            yield f"two of its {what} are called the same"
    yield from _of_protection(workload, machine)


def _of_hardware(machine: Machine) -> Iterator[str]:
    if not 1 <= machine.cpus <= MOST_VCPUS:
        yield f"{machine.cpus} processors cannot be"
    if not LEAST_MEMORY_MIB <= machine.memory_mib <= MOST_MEMORY_MIB:
        yield f"{machine.memory_mib} MiB of memory cannot be"
    if machine.version is not None and not (
        BOARD_VERSION.fullmatch(machine.version) and machine.version.startswith(VERSION[machine.type])
    ):
        yield f"{machine.version!r} is no version of {machine.type}"
    if machine.cpu_model is not None and not CPU_MODEL.fullmatch(machine.cpu_model):
        yield f"{machine.cpu_model!r} is no processor"
    if machine.boot is None and not machine.disks:
        yield "it has neither a disk nor a kernel to boot from"
    if machine.boot is not None:
        for path in filter(None, (machine.boot.kernel, machine.boot.initrd)):
            if not _is_safe(path):
                yield f"{path!r} is no absolute path without '..'"
    if len(machine.disks) > MOST_DISKS or len(machine.nics) > MOST_NICS:
        yield f"more than {MOST_DISKS} disks or {MOST_NICS} network cards cannot be"
    if machine.watch.enabled and not machine.guest_agent:
        yield "its guest is watched by an agent that it does not have"
    watch = machine.watch
    if min(watch.silence_s, watch.no_io_s, watch.window_s) <= 0 or min(watch.grace_s, watch.resets, machine.stop_s) < 0:
        yield "its times must be above 0"


def _of_disk(disk: Disk) -> Iterator[str]:
    if not _is_device(disk.name):
        yield f"{disk.name!r} cannot name a disk"
    if not NAME.fullmatch(disk.on):
        yield f"{disk.on!r} cannot name a datastore"
    if disk.size_mib is None and disk.source is None:
        yield f"its disk {disk.name} has neither size nor source"
    if disk.size_mib is not None and not 1 <= disk.size_mib <= MOST_DISK_MIB:
        yield f"its disk {disk.name} cannot have {disk.size_mib} MiB"
    if disk.source is not None and not _is_safe(disk.source):
        yield f"{disk.source!r} is no absolute path without '..'"


def _of_nic(nic: Nic) -> Iterator[str]:
    if not _is_device(nic.name):
        yield f"{nic.name!r} cannot name a network card"
    if not MAC.fullmatch(nic.mac) or is_multicast(nic.mac) or nic.mac == "00:00:00:00:00:00":
        yield f"{nic.mac!r} is no address of a network card"
    if (nic.bridge is None) == (nic.network is None):
        yield f"its network card {nic.name} must have a bridge or a network, and not both"
    if nic.bridge is not None and not BRIDGE.fullmatch(nic.bridge):
        yield f"{nic.bridge!r} cannot name a bridge"
    if nic.network is not None and not NAME.fullmatch(nic.network):
        yield f"{nic.network!r} cannot name a network"
    if nic.mtu is not None and not LEAST_MTU <= nic.mtu <= MOST_MTU:
        yield f"packets of {nic.mtu} bytes cannot be"


def _of_protection(workload: Workload, machine: Machine) -> Iterator[str]:
    local = [disk.name for disk in machine.disks if disk.on == LOCAL]
    warm, hot, rules = workload.warm, workload.hot, workload.placement
    if workload.protection is Protection.HOT:
        if len(local) < len(machine.disks):
            yield "under hot protection every disk is local"
        if any(disk.bus is not DiskBus.VIRTIO for disk in machine.disks):
            yield "under hot protection every disk is on virtio"
        if any(nic.model is not NicModel.VIRTIO for nic in machine.nics):
            yield "under hot protection every network card is virtio"
        if machine.firmware is not Firmware.BIOS:
            yield "under hot protection its firmware is bios"
        if len(rules.hosts) == 1 or (rules.apart is Apart.SITE and len(rules.sites) == 1):
            yield "under hot protection there must be room for a standby elsewhere"
    elif local and len(rules.hosts) != 1:
        yield f"its disk {local[0]} is on one host, and its rules let it run on others"
    if workload.protection is Protection.WARM and warm.on is None and not datastores_of(workload):
        yield "its checkpoints have no datastore"
    if warm.on is not None and not NAME.fullmatch(warm.on):
        yield f"{warm.on!r} cannot name a datastore"
    if not (warm.interval_s > 0 and warm.keep >= 1 and warm.base_every >= 1):
        yield "its checkpoints need an interval, and at least one must be kept"
    if not (0 < hot.floor_ms < hot.idle_ms and hot.silence_ms >= LEAST_SILENCE_MS and 0 < hot.overhead < 1):
        yield "its epochs cannot be cut so"
    if hot.bandwidth_mib_s is not None and hot.bandwidth_mib_s <= 0:
        yield "its epochs have no bandwidth"


def _is_device(name: str) -> bool:
    return len(name) <= LONGEST_DEVICE_NAME and NAME.fullmatch(name) is not None


def _is_safe(path: str) -> bool:
    return len(path) <= LONGEST_PATH and SAFE_PATH.fullmatch(path) is not None
