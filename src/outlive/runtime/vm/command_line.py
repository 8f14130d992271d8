"""A machine and its seat as QEMU's command line.

Pure, and so is the promise: whatever the guest can see follows from the `Machine` and the board's exact version;
whatever is in the seat or of the host stays behind it. Two hosts that start the same machine make the same hardware.
What a start needs beside these words (folders, memory, seed) is made by `preparing`.
"""

import json
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from outlive.cluster.machine import (
    Disk,
    DiskBus,
    DiskFormat,
    Firmware,
    Machine,
    MachineType,
    Nic,
    NicModel,
    OnPanic,
)
from outlive.errors import UsageInvalid

from . import addresses
from .addresses import Address, Place
from .host import CPU_MODEL, HostFacts
from .seat import LONGEST_SOCKET_PATH, Held, Seat, SharedMemory, Tap, disk_device, file_node, node
from .seed import seed_path

_IDENTITY = uuid.UUID("8f0f6a1e-7b0e-5a53-9d5b-1c7f6a3f5d21")
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_AHCI = "sata0"
_SCSI = "scsi0"


def board_version(machine: Machine, seat: Seat, host: HostFacts) -> str:
    """The exact version of the board, as in pc-q35-7.2."""
    return machine.version or seat.version or host.newest[machine.type]


def command_line(name: str, machine: Machine, seat: Seat, host: HostFacts, direct: Collection[str] = ()) -> list[str]:
    """Return program and arguments.

    name:   of the workload; the machine's identity in its firmware's tables follows from it.
    direct: the names of those disks whose files can be read and written past the page cache.
    Raises UsageInvalid (id `vm.not-seated`) where the seat does not fit the machine.
    """
    _check(machine, seat, host)
    words = [str(host.qemu), "-name", f"guest={name},debug-threads=on", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-sandbox", _SANDBOX, "-msg", "timestamp=off"]
    words += [*_board(name, machine, seat, host), *_life(machine, seat), *_monitors(seat)]
    words += [*_single_devices(machine, seat), *_nics(machine, seat), *_disks(machine, seat, direct)]
    return words


def _board(name: str, machine: Machine, seat: Seat, host: HostFacts) -> Iterator[str]:
    """Board, processors, memory, firmware and what is booted."""
    version = board_version(machine, seat, host)
    board = [version, "usb=off", "vmport=off", "dump-guest-core=off", "memory-backend=ram0"]
    if machine.firmware is Firmware.UEFI:
        yield from _blockdev(
            {"driver": "file", "node-name": "firmware", "filename": str(host.firmware), "read-only": True}
        )
        yield from _blockdev(
            {"driver": "file", "node-name": "nvram", "filename": str(nvram_path(seat)), "locking": "on"}
        )
        board += ["pflash0=firmware", "pflash1=nvram"]
    yield from ("-machine", ",".join(board), "-accel", host.acceleration.value)
    yield from ("-cpu", f"{machine.cpu_model or CPU_MODEL},enforce=on")
    yield from ("-smp", f"{machine.cpus},sockets=1,cores={machine.cpus},threads=1")
    yield from ("-m", f"size={machine.memory_mib}M", *_memory(machine, seat))
    yield from ("-uuid", str(uuid.uuid5(_IDENTITY, name)), "-rtc", "base=utc,driftfix=slew")
    sleeps = "PIIX4_PM" if machine.type is MachineType.PC else "ICH9-LPC"
    yield from ("-global", f"{sleeps}.disable_s3=1", "-global", f"{sleeps}.disable_s4=1")
    yield from ("-boot", "menu=off,strict=on")
    if machine.boot is not None:
        yield from ("-kernel", machine.boot.kernel)
        if machine.boot.initrd is not None:
            yield from ("-initrd", machine.boot.initrd)
        if machine.boot.append:
            yield from ("-append", machine.boot.append)


def _memory(machine: Machine, seat: Seat) -> tuple[str, str]:
    """Memory as an object of the same name however it is kept, so that state fits both kinds."""
    size = machine.memory_mib * 1024 * 1024
    if isinstance(seat.memory, SharedMemory):
        shared = {"qom-type": "memory-backend-file", "mem-path": str(seat.memory.file), "share": True}
        return "-object", _json({**shared, "id": "ram0", "size": size})
    return "-object", _json({"qom-type": "memory-backend-ram", "id": "ram0", "size": size})


def _life(machine: Machine, seat: Seat) -> Iterator[str]:
    """What the emulator does by itself: as little as can be, since whatever follows is the agent's to decide."""
    panic = "pause" if machine.watch.panic is OnPanic.RESTART else "none"
    yield from ("-action", f"shutdown=pause,reboot=reset,panic={panic}")
    if seat.incoming:
        # Nothing runs when the state is whole: the one who is entitled to says so then.
        yield from ("-incoming", "defer", "-S")


def _monitors(seat: Seat) -> Iterator[str]:
    for ident, path in (("agent", seat.agents_qmp), ("manager", seat.comm_qmp)):
        if path is not None:
            yield from ("-chardev", f"socket,id=qmp-{ident},path={_escaped(path)},server=on,wait=off")
            yield from ("-mon", f"chardev=qmp-{ident},mode=control")


def _single_devices(machine: Machine, seat: Seat) -> Iterator[str]:
    """Display, console, random numbers, panic device, the guest agent's port and the seed."""
    board = machine.type
    yield from _card("VGA", board, addresses.single(board, Place.DISPLAY), {"id": "display"})
    log = f"logfile={_escaped(seat.console_log)},logappend=on"
    console = f"socket,id=console,path={_escaped(seat.console)},server=on,wait=off,{log}"
    yield from ["-chardev", console, *_device("isa-serial", {"id": "serial0", "chardev": "console", "index": 0})]
    yield from ["-object", _json({"qom-type": "rng-builtin", "id": "random"})]
    yield from _card("virtio-rng-pci", board, addresses.single(board, Place.RANDOM), {"id": "rng0", "rng": "random"})
    yield from _device("pvpanic", {"id": "panic0"})
    if machine.guest_agent:
        yield from _card("virtio-serial-pci", board, addresses.single(board, Place.SERIAL), {"id": "channels"})
        channel = f"socket,id=guest-agent,path={_escaped(seat.guest_agent)},server=on,wait=off"
        port = {
            "id": "channel0",
            "bus": "channels.0",
            "nr": 1,
            "chardev": "guest-agent",
            "name": "org.qemu.guest_agent.0",
        }
        yield from ["-chardev", channel, *_device("virtserialport", port)]
    if machine.cloud_init is not None:
        image = {"node-name": "seed", "filename": str(seed_path(seat.folder)), "read-only": True}
        yield from _blockdev({"driver": "file", **image})
        seed = {"id": "seed0", "drive": "seed", "serial": "cloud-init"}
        yield from _card("virtio-blk-pci", board, addresses.single(board, Place.SEED), seed)


def _nics(machine: Machine, seat: Seat) -> Iterator[str]:
    for number, nic in enumerate(machine.nics):
        yield from ["-netdev", _netdev(nic, seat.nics[nic.name])]
        driver = "virtio-net-pci" if nic.model is NicModel.VIRTIO else "e1000e"
        # Without a boot ROM: machines are booted from disks, and ROMs differ from one QEMU to the next.
        values: dict[str, object] = {
            "id": nic_device(nic.name),
            "netdev": f"net-{nic.name}",
            "mac": nic.mac,
            "romfile": "",
        }
        if nic.mtu is not None and nic.model is NicModel.VIRTIO:
            values["host_mtu"] = nic.mtu
        yield from _card(driver, machine.type, addresses.nic(machine.type, number), values)


def _netdev(nic: Nic, end: Tap | Held) -> str:
    if isinstance(end, Tap):
        return f"tap,id=net-{nic.name},ifname={_escaped(end.name)},script=no,downscript=no,vhost=off"
    local, remote = _escaped(end.local), _escaped(end.remote)
    return (
        f"dgram,id=net-{nic.name},local.type=unix,local.path={local},remote.type=unix,remote.path={remote}"
    )  # fmt: skip


def nic_device(nic: str) -> str:
    """The id of the guest's device of a network card."""
    return f"nic-{nic}"


def _disks(machine: Machine, seat: Seat, direct: Collection[str]) -> Iterator[str]:
    buses = {disk.bus for disk in machine.disks}
    if DiskBus.SCSI in buses:
        yield from _card("virtio-scsi-pci", machine.type, addresses.single(machine.type, Place.SCSI), {"id": _SCSI})
    if DiskBus.SATA in buses:
        yield from _card("ich9-ahci", machine.type, addresses.single(machine.type, Place.SATA), {"id": _AHCI})
    numbers = dict.fromkeys(DiskBus, 0)
    for position, disk in enumerate(machine.disks):
        yield from _disk_nodes(disk, seat.disks[disk.name], disk.name in direct)
        number = numbers[disk.bus]
        numbers[disk.bus] += 1
        values: dict[str, object] = {"id": disk_device(disk.name), "drive": node(disk.name), "serial": disk.name}
        if machine.boot is None:
            values["bootindex"] = position + 1
        if not (disk.bus is DiskBus.SATA and disk.read_only):
            # A disk that fails halts the guest, which is watched, rather than telling it of errors that pass.
            values |= {"werror": "stop", "rerror": "stop"}
        if disk.bus is DiskBus.VIRTIO:
            yield from _card("virtio-blk-pci", machine.type, addresses.disk(machine.type, number), values)
        elif disk.bus is DiskBus.SCSI:
            yield from _device("scsi-hd", {**values, "bus": f"{_SCSI}.0", "scsi-id": 0, "lun": number})
        else:
            driver = "ide-cd" if disk.read_only else "ide-hd"
            yield from _device(driver, {**values, "bus": f"{_AHCI}.{number}", "unit": 0})


def _disk_nodes(disk: Disk, path: Path, direct: bool) -> list[str]:
    cache = {"direct": direct, "no-flush": False}
    file = {"driver": "file", "node-name": file_node(disk.name), "filename": str(path), "aio": "threads"}
    common = {"read-only": disk.read_only, "cache": cache, "discard": "unmap"}
    form = "raw" if disk.format is DiskFormat.RAW else "qcow2"
    top = {"driver": form, "node-name": node(disk.name), "file": file_node(disk.name)}
    return [*_blockdev({**file, "locking": "on", **common}), *_blockdev({**top, **common})]


def nvram_path(seat: Seat) -> Path:
    """Where UEFI keeps its variables."""
    return seat.nvram or seat.folder / "nvram.fd"


def _check(machine: Machine, seat: Seat, host: HostFacts) -> None:
    for disk in machine.disks:
        if disk.name not in seat.disks:
            raise _not_seated(f"its disk {disk.name} has no file on this host")
    for nic in machine.nics:
        if nic.name not in seat.nics:
            raise _not_seated(f"its network card {nic.name} has no end on this host")
    if machine.firmware is Firmware.UEFI and host.firmware is None:
        raise _not_seated("it boots by UEFI, which this host does not have", "install the package ovmf")
    sockets = [seat.agents_qmp, seat.console, seat.guest_agent, *([seat.comm_qmp] if seat.comm_qmp else [])]
    for end in seat.nics.values():
        if isinstance(end, Held):
            sockets += [end.local, end.remote]
    for path in sockets:
        if len(bytes(path)) > LONGEST_SOCKET_PATH:
            raise _not_seated(f"the path of the socket {path} is too long", "choose a shorter run folder")


def _not_seated(cause: str, remedy: str = "") -> UsageInvalid:
    return UsageInvalid(
        "The virtual machine cannot be started on this host.", cause=cause, remedy=remedy, id="vm.not-seated"
    )  # fmt: skip


def _card(driver: str, board: MachineType, address: Address, values: Mapping[str, object]) -> list[str]:
    """A device with a slot of its own. On the old PC, virtio is the old virtio too, of before version 1: each device's
    saved state is then 0.3 KB instead of 45, and with it goes most of a hot machine's pause."""
    old = {"disable-modern": True} if driver.startswith("virtio-") and board is MachineType.PC else {}
    return _device(driver, {**values, **old, "bus": address.bus, "addr": address.addr})


def _device(driver: str, values: Mapping[str, object]) -> list[str]:
    return ["-device", _json({"driver": driver, **values})]


def _blockdev(values: Mapping[str, object]) -> list[str]:
    return ["-blockdev", _json(values)]


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _escaped(path: Path | str) -> str:
    """As a value between commas."""
    return str(path).replace(",", ",,")
