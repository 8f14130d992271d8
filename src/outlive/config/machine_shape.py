"""The keys of a virtual machine in a workload file: its hardware, its disks and its network cards.

Each key is told here once, for the reader, the JSON Schema and the reference in docs/vm-file.md. Defaults are those of
the nouns in `outlive.cluster.machine`, bounds those of `outlive.cluster.machine_rules`. What is told to its guest, and
how its state is kept, is in `guest_shape`; relations between keys are in `vm_rules`.
"""

from outlive.cluster.host import NAME
from outlive.cluster.machine import (
    Disk,
    DiskBus,
    DiskFormat,
    Firmware,
    KernelBoot,
    Machine,
    MachineType,
    Nic,
    NicModel,
)
from outlive.cluster.machine_rules import (
    BOARD_VERSION,
    BRIDGE,
    CPU_MODEL,
    LEAST_MEMORY_MIB,
    LONGEST_DEVICE_NAME,
    LONGEST_PATH,
    MOST_DISK_MIB,
    MOST_DISKS,
    MOST_MEMORY_MIB,
    MOST_NICS,
    MOST_VCPUS,
    SAFE_PATH,
    is_multicast,
)
from outlive.cluster.overlay import LEAST_MTU, MOST_MTU

from .guest_shape import CLOUD_INIT, SECONDS, WATCH
from .shapes import Choice, Flag, Number, Text, Wrong
from .tables import Key, ListOf, Table, key_of
from .texts import name_of

_MAC_FIX = "Write six bytes such as 52:54:00:12:34:56, or leave it out to be given one that stays."


def _mac(text: str) -> str:
    mac = text.lower()
    if is_multicast(mac):
        raise Wrong("is the address of many cards, not of one", "Make its second digit even.")
    if mac == "00:00:00:00:00:00":
        raise Wrong("is nobody's address", _MAC_FIX)
    return mac


def device(what: str) -> Text:
    """The name of a disk or card; it is a disk's serial number in the guest."""
    fix = f"Use 1 to {LONGEST_DEVICE_NAME} of a-z, 0-9 and '-', with neither end a '-'."
    return Text(f"a name for {what} (a-z, 0-9 and '-')", NAME.pattern, fix, least=1, most=LONGEST_DEVICE_NAME)


def path_of(what: str) -> Text:
    """The path of a file that the emulator opens."""
    fix = "Write it from the root on, without '..' in it."
    return Text(f"the absolute path of {what}", SAFE_PATH.pattern, fix, least=1, most=LONGEST_PATH)


MAC = Text("a MAC address", "[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", _MAC_FIX, least=17, most=17, made=_mac)
BRIDGE_NAME = Text(
    "the name of a bridge", BRIDGE.pattern, "Write it as `ip link` shows it, such as br0.", least=1, most=15
)
VERSION = Text(
    "the version of a board",
    BOARD_VERSION.pattern,
    "Write it as in pc-q35-7.2 or pc-i440fx-7.2, or leave it out.",
    least=1,
    most=20,
)
CPU = Text(
    "the name of a processor",
    CPU_MODEL.pattern,
    "Write it as `qemu-system-x86_64 -cpu help` does, such as Haswell or qemu64,+sse4.2.",
    least=1,
    most=500,
)

DISK = Table(
    (
        key_of(
            Disk,
            "name",
            device("a disk"),
            f"What it is called: its serial number in the guest. At most {LONGEST_DEVICE_NAME} characters.",
            required=True,
            also=("id", "serial", "target"),
        ),
        key_of(
            Disk,
            "on",
            name_of("a datastore"),
            'The datastore that it is on; "local" is the host itself.',
            also=("datastore", "pool", "storage"),
        ),
        key_of(
            Disk,
            "size_mib",
            Number(1, MOST_DISK_MIB, whole=True),
            "How large it is made, in MiB, when it is not there yet. Without it, as large as its source.",
            also=("size", "capacity", "size_gib", "size_mb"),
        ),
        key_of(
            Disk,
            "source",
            path_of("an image"),
            "The image that it is copied from when it is not there yet.",
            also=("image", "file", "path", "template"),
        ),
        key_of(
            Disk,
            "format",
            Choice(tuple(DiskFormat), made=DiskFormat),
            "How its file is written; its source is read as the same.",
            also=("type",),
        ),
        key_of(
            Disk,
            "bus",
            Choice(tuple(DiskBus), made=DiskBus),
            "What the guest sees it on.",
            also=("interface", "driver", "controller"),
        ),
        key_of(Disk, "read_only", Flag(), "Whether the guest may only read it.", also=("readonly", "ro")),
    )
)

NIC = Table(
    (
        key_of(
            Nic,
            "name",
            device("a network card"),
            "What it is called; the guest does not see it.",
            required=True,
            also=("id",),
        ),
        key_of(
            Nic,
            "bridge",
            BRIDGE_NAME,
            "The bridge that it is on, which every host has. Either this or a network.",
            also=("br", "host_bridge"),
        ),
        key_of(
            Nic,
            "network",
            name_of("a network"),
            "The virtual network that it is on, which spans hosts and sites. Either this or a bridge.",
            also=("net", "vnet", "overlay"),
        ),
        Key(
            "mac",
            MAC,
            "Its address. Without it, one that is made from the names of machine and card, and so stays.",
            also=("mac_address", "hwaddr", "address"),
        ),
        key_of(
            Nic, "model", Choice(tuple(NicModel), made=NicModel), "What the guest sees it as.", also=("type", "driver")
        ),
        key_of(
            Nic,
            "mtu",
            Number(LEAST_MTU, MOST_MTU, whole=True),
            "The largest packet that the guest is told to send. Without it, that of the virtual network, or 1500.",
        ),
    )
)

BOOT = Table(
    (
        key_of(
            KernelBoot,
            "kernel",
            path_of("a kernel"),
            "The kernel, at the same path on every host.",
            required=True,
            also=("image", "vmlinuz"),
        ),
        key_of(
            KernelBoot,
            "initrd",
            path_of("an initial RAM disk"),
            "Its initial RAM disk, at the same path on every host.",
            also=("initramfs", "ramdisk"),
        ),
        key_of(
            KernelBoot,
            "append",
            Text("text in quotes", r"[^\x00\n]*", "Write it on one line.", most=2000),
            "The kernel's command line.",
            also=("cmdline", "command_line", "args", "options"),
        ),
    )
)


MACHINE = Table(
    (
        key_of(
            Machine,
            "cpus",
            Number(1, MOST_VCPUS, whole=True),
            "How many processors it has.",
            also=("cpu", "vcpus", "vcpu", "smp", "cores"),
        ),
        key_of(
            Machine,
            "memory_mib",
            Number(LEAST_MEMORY_MIB, MOST_MEMORY_MIB, whole=True),
            "Its memory in MiB.",
            also=("memory", "ram", "memory_mb"),
        ),
        key_of(
            Machine,
            "type",
            Choice(tuple(MachineType), made=MachineType),
            "The board: the old PC with PCI, or Q35 with PCI Express. Hot machines pause for less on the old one.",
            also=("machine", "machine_type", "board"),
        ),
        key_of(
            Machine,
            "version",
            VERSION,
            "The board's exact version. Without it, one that the hosts agree on when it first starts, and that stays.",
            also=("machine_version",),
        ),
        key_of(
            Machine,
            "cpu_model",
            CPU,
            "The processor that the guest sees. Without it, one that every host can give.",
            also=("cpu_type", "processor"),
        ),
        key_of(
            Machine,
            "firmware",
            Choice(tuple(Firmware), made=Firmware),
            "What starts it.",
            also=("bios", "uefi", "loader"),
        ),
        key_of(
            Machine,
            "guest_agent",
            Flag(),
            "Whether the QEMU guest agent runs in it, by which it is watched, stopped and held still in order.",
            also=("agent", "qemu_guest_agent"),
        ),
        key_of(
            Machine,
            "stop_s",
            SECONDS,
            "Seconds that it has to shut down in order before it is switched off.",
            also=("stop_timeout", "shutdown_timeout", "stop_grace_s"),
        ),
        Key("boot", BOOT, "Boots a kernel directly, without a boot loader.", also=("direct_boot",)),
        Key("disk", ListOf(DISK, "disks", most=MOST_DISKS), "Its disks, in order.", also=("disks", "drive", "volume")),
        Key(
            "nic",
            ListOf(NIC, "network cards", most=MOST_NICS),
            "Its network cards, in order.",
            also=("nics", "interface", "interfaces", "network", "net"),
        ),
        Key(
            "cloud_init",
            CLOUD_INIT,
            "What cloud-init finds in the guest at its first start (NoCloud). Each text is given here, or in a file "
            "that is read when the workload is applied.",
            also=("cloudinit", "seed"),
        ),
        Key("watch", WATCH, "How a guest that stopped working is noticed, and what follows.", also=("watchdog",)),
    )
)
