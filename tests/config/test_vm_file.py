"""A virtual machine's file becomes the machine that it says, or one error with every mistake, its line and its fix."""

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from outlive.cluster.host import Capacity
from outlive.cluster.machine import (
    CloudInit,
    Disk,
    DiskBus,
    DiskFormat,
    Firmware,
    GuestWatch,
    HotPolicy,
    KernelBoot,
    Machine,
    MachineType,
    Nic,
    NicModel,
    OnPanic,
    WarmPolicy,
)
from outlive.cluster.machine_rules import derived_mac, machine_problem, needs
from outlive.cluster.workload import Apart, Kind, Module, PlacementRules, Protection, Workload
from outlive.config import guest_shape, machine_shape
from outlive.config.problems import Problem
from outlive.config.tables import Table
from outlive.config.toml_writer import toml_text
from outlive.config.workload_file import (
    WorkloadFileError,
    parse_workload,
    read_workload,
    to_document,
    workload_from_document,
)
from outlive.config.workload_shape import PLACEMENT

EVERYTHING = """
name = "db"
kind = "vm"
protection = "warm"
data_on = "locks"
after = ["dns"]

[resources]
memory_mib = 4096

[placement]
sites = ["north", "south"]
prefer_sites = ["south"]

[vm]
cpus = 2
memory_mib = 1024
type = "pc"
version = "pc-i440fx-7.2"
cpu_model = "Haswell,+aes"
firmware = "uefi"
guest_agent = true
stop_s = 30

[vm.boot]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
append = "console=ttyS0"

[[vm.disk]]
name = "root"
on = "shared"
source = "/srv/a.qcow2"
format = "qcow2"
bus = "scsi"
size_mib = 2048

[[vm.disk]]
name = "tools"
on = "shared"
source = "/srv/tools.raw"
bus = "sata"
read_only = true

[[vm.nic]]
name = "lan"
bridge = "br0"
mac = "52:54:00:AA:BB:CC"
model = "e1000e"

[[vm.nic]]
name = "wan"
network = "office"

[vm.cloud_init]
user_data = "#cloud-config\\n"
meta_data = "instance-id: 1"
network_config = "version: 2"

[vm.watch]
panic = "leave"
enabled = true
silence_s = 10
no_io_s = 20
grace_s = 30
resets = 4
window_s = 50

[warm]
interval_s = 10
keep = 2
on = "deep"
base_every = 5
"""
START = 'name = "db"\nkind = "vm"\n'
DISK = '[[vm.disk]]\nname = "root"\non = "shared"\nsize_mib = 10\n'
LOCAL_DISK = '[[vm.disk]]\nname = "root"\nsize_mib = 10\n'
NIC = '[[vm.nic]]\nname = "lan"\nbridge = "br0"\n'


def problems_of(text: str | bytes, folder: Path | None = None) -> tuple[Problem, ...]:
    with pytest.raises(WorkloadFileError) as caught:
        parse_workload(text, "db.toml", folder)
    return caught.value.problems


def machine_of(text: str) -> Machine:
    machine = parse_workload(text).machine
    assert machine is not None
    return machine


def test_every_key_is_read() -> None:
    machine = Machine(
        cpus=2,
        memory_mib=1024,
        type=MachineType.PC,
        version="pc-i440fx-7.2",
        cpu_model="Haswell,+aes",
        firmware=Firmware.UEFI,
        boot=KernelBoot("/boot/vmlinuz", "/boot/initrd.img", "console=ttyS0"),
        disks=(
            Disk("root", DiskFormat.QCOW2, "shared", 2048, "/srv/a.qcow2", DiskBus.SCSI),
            Disk("tools", DiskFormat.RAW, "shared", None, "/srv/tools.raw", DiskBus.SATA, read_only=True),
        ),
        nics=(
            Nic("lan", "52:54:00:aa:bb:cc", bridge="br0", model=NicModel.E1000E),
            Nic("wan", derived_mac("db", "wan"), network="office"),
        ),
        guest_agent=True,
        cloud_init=CloudInit("#cloud-config\n", "instance-id: 1", "version: 2"),
        watch=GuestWatch(OnPanic.LEAVE, True, 10.0, 20.0, 30.0, 4, 50.0),
        stop_s=30.0,
    )
    read = parse_workload(EVERYTHING)
    assert read == Workload(
        name="db",
        modules=(Module("vm", ()),),
        kind=Kind.VM,
        protection=Protection.WARM,
        after=("dns",),
        resources=Capacity(2.0, 4096),
        placement=PlacementRules(sites=("north", "south"), prefer_sites=("south",)),
        data_on="locks",
        machine=machine,
        warm=WarmPolicy(10.0, 2, "deep", 5),
    )
    assert parse_workload(toml_text(to_document(read))) == read
    assert machine_problem(read) == ""


def test_the_smallest_machine_has_all_that_it_needs() -> None:
    read = parse_workload(START + "[vm]\n" + DISK + NIC)
    assert read.machine == Machine(
        disks=(Disk("root", on="shared", size_mib=10),), nics=(Nic("lan", derived_mac("db", "lan"), bridge="br0"),)
    )
    assert read.resources == needs(read.machine, Protection.COLD)
    assert read.data_on == "shared"
    assert (read.warm, read.hot, read.protection) == (WarmPolicy(), HotPolicy(), Protection.COLD)


def test_a_hot_machine_is_read_with_how_closely_it_is_followed() -> None:
    read = parse_workload(
        START + 'protection = "hot"\n[placement]\napart = "site"\n[vm]\n' + LOCAL_DISK + NIC
        + "[hot]\nfloor_ms = 2\nidle_ms = 50\nsilence_ms = 300\noverhead = 0.25\nbandwidth_mib_s = 100\n"
    )  # fmt: skip
    assert read.hot == HotPolicy(2.0, 50.0, 300.0, 0.25, 100.0)
    assert read.placement.apart is Apart.SITE
    assert read.data_on is None


def test_a_machine_on_one_host_alone_may_have_a_disk_there() -> None:
    read = parse_workload(START + '[placement]\nhosts = ["a"]\n[vm]\n' + LOCAL_DISK)
    assert machine_problem(read) == ""


def test_each_card_without_an_address_gets_one_that_no_other_has() -> None:
    taken = derived_mac("db", "b")
    nics = machine_of(
        START + "[vm]\n" + DISK + f'[[vm.nic]]\nname = "a"\nbridge = "br0"\nmac = "{taken}"\n'
        '[[vm.nic]]\nname = "b"\nbridge = "br0"\n[[vm.nic]]\nname = "c"\nbridge = "br0"\n'
    ).nics
    assert len({nic.mac for nic in nics}) == 3
    assert nics[0].mac == taken
    assert nics[1].mac == derived_mac("db", "b", {taken})


MISTAKES: dict[str, tuple[str, int, str, str, str]] = {
    "no machine": (START, 1, "vm", "is missing", "Write [vm] with its keys."),
    "modules": (
        START + '[module.m]\ncommand = ["x"]\n[vm]\n' + DISK,
        3,
        "module",
        "is for kind service, and this is vm",
        'Remove it, or write kind = "service".',
    ),
    "machine of a service": (
        'name = "a"\n[module.m]\ncommand = ["x"]\n[vm]\n' + DISK,
        4,
        "vm",
        "is for kind vm, and this is service",
        'Remove it, or write kind = "vm".',
    ),
    "checkpoints of a service": (
        'name = "a"\n[module.m]\ncommand = ["x"]\n[warm]\nkeep = 1\n',
        4,
        "warm",
        "is for kind vm",
        "Remove it",
    ),
    "virtual IP": (
        START + '[[virtual_ip]]\naddress = "10.0.0.9/24"\n[vm]\n' + DISK,
        3,
        "virtual_ip",
        "is for kind service",
        "Remove it",
    ),
    "checkpoints of a cold machine": (
        START + "[vm]\n" + DISK + "[warm]\nkeep = 1\n",
        8,
        "warm",
        "is for protection warm, and this is cold",
        'Remove it, or write protection = "warm".',
    ),
    "epochs of a warm machine": (
        START + 'protection = "warm"\n[vm]\n' + DISK + "[hot]\n",
        9,
        "hot",
        "is for protection hot, and this is warm",
        'write protection = "hot"',
    ),
    "nothing to boot": (START + "[vm]\ncpus = 1\n", 3, "vm", "has neither a disk nor a kernel", "Write [[vm.disk]]"),
    "no processors": (START + "[vm]\ncpus = 0\n" + DISK, 4, "vm.cpus", "a whole number from 1 to 255, not 0", "Choose"),
    "memory by another name": (
        START + "[vm]\nmemory = 512\n" + DISK,
        4,
        "vm.memory",
        "is no key of this table",
        "Write memory_mib.",
    ),
    "memory with a unit": (
        START + '[vm]\nmemory_mib = "1G"\n' + DISK,
        4,
        "vm.memory_mib",
        "must be a whole number",
        "Write a number.",
    ),
    "board of another type": (
        START + '[vm]\nversion = "pc-i440fx-7.2"\n' + DISK,
        4,
        "vm.version",
        "is none of type q35",
        'Write a version that begins with pc-q35-, or type = "pc".',
    ),
    "board that is none": (
        START + '[vm]\nversion = "q35"\n' + DISK,
        4,
        "vm.version",
        "the version of a board",
        "pc-q35-7",
    ),
    "processor of many words": (
        START + '[vm]\ncpu_model = "a b"\n' + DISK,
        4,
        "vm.cpu_model",
        "name of a processor",
        "-cpu",
    ),
    "kernel by a relative path": (
        START + '[vm.boot]\nkernel = "vmlinuz"\n',
        4,
        "vm.boot.kernel",
        "must be the absolute path of a kernel",
        "from the root on",
    ),
    "kernel above the root": (
        START + '[vm.boot]\nkernel = "/a/../b"\n',
        4,
        "vm.boot.kernel",
        "absolute path",
        "without '..'",
    ),
    "kernel without kernel": (START + "[vm.boot]\nappend = 'x'\n", 3, "vm.boot.kernel", "is missing", "Write kernel"),
    "disk in single brackets": (
        START + '[vm.disk]\nname = "a"\n',
        3,
        "vm.disk",
        "must be a list of disks, not a table",
        "Write [[vm.disk]], with double brackets.",
    ),
    "disk without a name": (
        START + '[[vm.disk]]\non = "shared"\nsize_mib = 1\n',
        3,
        "vm.disk[0].name",
        "is missing",
        "Write name",
    ),
    "disk with a long name": (
        START + f'[[vm.disk]]\nname = "{"a" * 21}"\non = "s"\nsize_mib = 1\n',
        4,
        "vm.disk[0].name",
        "a name for a disk",
        "Use 1 to 20",
    ),
    "disk of no size": (
        START + '[[vm.disk]]\nname = "a"\non = "s"\n',
        3,
        "vm.disk[0]",
        "has neither a size nor a source",
        "Write size_mib, or source",
    ),
    "disk by its old size": (
        START + '[[vm.disk]]\nname = "a"\non = "s"\nsize_gib = 1\nsource = "/x"\n',
        6,
        "vm.disk[0].size_gib",
        "is no key",
        "Write size_mib.",
    ),
    "disk twice": (START + DISK + DISK, 8, "vm.disk[1].name", 'is "root" for the second time', "Choose another"),
    "disk source above the root": (
        START + '[[vm.disk]]\nname = "a"\non = "s"\nsource = "/.."\n',
        6,
        "vm.disk[0].source",
        "absolute path",
        "'..'",
    ),
    "empty disk to read": (
        START + '[[vm.disk]]\nname = "a"\non = "s"\nsize_mib = 1\nread_only = true\n',
        7,
        "vm.disk[0].read_only",
        "leaves it empty for ever",
        "Write its source.",
    ),
    "flag in quotes": (
        START + '[[vm.disk]]\nname = "a"\non = "s"\nsource = "/x"\nread_only = "yes"\n',
        7,
        "vm.disk[0].read_only",
        'must be true or false, not "yes"',
        "Write true, without quotes.",
    ),
    "disk on one host": (
        START + LOCAL_DISK,
        3,
        "vm.disk[0]",
        "is kept on one host, and under cold protection it may go to another",
        'Write on = "DATASTORE", or protection = "hot"',
    ),
    "disk said to be on one host": (
        START + '[placement]\nhosts = ["a", "b"]\n' + LOCAL_DISK + 'on = "local"\n',
        8,
        "vm.disk[0].on",
        "is kept on one host",
        "one host alone in placement.hosts",
    ),
    "no datastore for checkpoints": (
        START + 'protection = "warm"\n[placement]\nhosts = ["a"]\n' + LOCAL_DISK,
        3,
        "protection",
        "has no datastore for its checkpoints",
        'Write on = "DATASTORE" in [warm].',
    ),
    "card on nothing": (
        START + DISK + '[[vm.nic]]\nname = "lan"\n',
        7,
        "vm.nic[0]",
        "is connected to nothing",
        'Write bridge = "BRIDGE"',
    ),
    "card on both": (
        START + DISK + NIC + 'network = "n"\n',
        10,
        "vm.nic[0].network",
        "stands beside a bridge",
        "Remove one",
    ),
    "card twice": (START + DISK + NIC + NIC, 11, "vm.nic[1].name", 'is "lan" for the second time', "Choose another"),
    "address twice": (
        START
        + DISK
        + NIC
        + 'mac = "52:54:00:00:00:01"\n[[vm.nic]]\nname = "b"\nbridge = "x"\nmac = "52:54:00:00:00:01"\n',
        14,
        "vm.nic[1].mac",
        "for the second time",
        "Choose another",
    ),
    "address of many": (
        START + DISK + NIC + 'mac = "53:54:00:00:00:01"\n',
        10,
        "vm.nic[0].mac",
        "is the address of many cards",
        "Make its second digit even.",
    ),
    "address of nobody": (
        START + DISK + NIC + 'mac = "00:00:00:00:00:00"\n',
        10,
        "vm.nic[0].mac",
        "nobody's",
        "six bytes",
    ),
    "address with dashes": (
        START + DISK + NIC + 'mac = "52-54-00-00-00-01"\n',
        10,
        "vm.nic[0].mac",
        "must be a MAC address",
        "six bytes",
    ),
    "bridge of a path": (
        START + DISK + '[[vm.nic]]\nname = "a"\nbridge = "../x"\n',
        9,
        "vm.nic[0].bridge",
        "bridge",
        "ip link",
    ),
    "watch without an agent": (
        START + DISK + "[vm.watch]\nenabled = true\n",
        8,
        "vm.watch.enabled",
        "needs the guest's agent",
        "Write guest_agent = true in [vm]",
    ),
    "watch of an agent that is not there": (
        START + "[vm]\nguest_agent = false\n" + DISK + "[vm.watch]\nenabled = true\n",
        4,
        "vm.guest_agent",
        "must be true where the guest is watched",
        "Write guest_agent = true",
    ),
    "preferred site where it may not be": (
        START + '[placement]\nsites = ["a"]\nprefer_sites = ["b"]\n' + DISK,
        5,
        "placement.prefer_sites[0]",
        'names "b", which is not among the sites',
        'Add "b" to placement.sites',
    ),
    "apart from no standby": (
        START + '[placement]\napart = "site"\n' + DISK,
        4,
        "placement.apart",
        "is for protection hot",
        "Remove it",
    ),
    "after itself": (START + 'after = ["db"]\n' + DISK, 3, "after[0]", "names the workload itself", "Remove it."),
    "seed in a file that nobody reads": (
        START + DISK + '[vm.cloud_init]\nuser_data_file = "x"\n',
        8,
        "vm.cloud_init.user_data_file",
        "names a file, which cannot be read from here",
        "Write its text as user_data",
    ),
}
HOT_MISTAKES: dict[str, tuple[str, int, str, str, str]] = {
    "disk on a datastore": (DISK, 6, "vm.disk[0].on", 'must be "local" under hot protection', 'Write on = "local"'),
    "disk on another bus": (
        LOCAL_DISK + 'bus = "scsi"\n',
        7,
        "vm.disk[0].bus",
        'must be "virtio"',
        'Write bus = "virtio".',
    ),
    "card of another model": (
        LOCAL_DISK + NIC + 'model = "e1000e"\n',
        10,
        "vm.nic[0].model",
        'must be "virtio"',
        'Write model = "virtio".',
    ),
    "variables of firmware": (
        '[vm]\nfirmware = "uefi"\n' + LOCAL_DISK,
        5,
        "vm.firmware",
        "keeps variables",
        'Write firmware = "bios"',
    ),
    "one host": (
        '[placement]\nhosts = ["a"]\n' + LOCAL_DISK,
        5,
        "placement.hosts",
        "leaves no host for the standby",
        "Name another",
    ),
    "one site": (
        '[placement]\nsites = ["a"]\napart = "site"\n' + LOCAL_DISK,
        5,
        "placement.sites",
        "leaves no site",
        "Name another",
    ),
    "floor above idle": (
        LOCAL_DISK + "[hot]\nfloor_ms = 200\n",
        8,
        "hot.floor_ms",
        "below idle_ms, which is 100",
        "Write both",
    ),
    "idle below floor": (
        LOCAL_DISK + "[hot]\nidle_ms = 1\n",
        8,
        "hot.idle_ms",
        "above floor_ms, which is 1",
        "Write both",
    ),
    "silence that is none": (
        LOCAL_DISK + "[hot]\nsilence_ms = 50\n",
        8,
        "hot.silence_ms",
        "a number from 60 to 60000",
        "Choose",
    ),
}


@pytest.mark.parametrize(("text", "line", "path", "sentence", "fix"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_has_its_line_path_sentence_and_fix(
    text: str, line: int, path: str, sentence: str, fix: str
) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path) == (line, path)
    assert sentence in problem.sentence
    assert fix in problem.fix


@pytest.mark.parametrize(("text", "line", "path", "sentence", "fix"), HOT_MISTAKES.values(), ids=HOT_MISTAKES.keys())
def test_each_mistake_of_a_hot_machine_has_its_line_path_sentence_and_fix(
    text: str, line: int, path: str, sentence: str, fix: str
) -> None:
    (problem,) = problems_of(START + 'protection = "hot"\n' + text)
    assert (problem.line, problem.path) == (line, path)
    assert sentence in problem.sentence
    assert fix in problem.fix


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    text = (
        START + 'protection = "hot"\n[vm]\ncpus = "2"\nfirmware = "uefi"\n' + DISK + NIC + 'network = "n"\nmac = "x"\n'
    )
    assert [(problem.line, problem.path) for problem in problems_of(text)] == [
        (5, "vm.cpus"),
        (6, "vm.firmware"),
        (9, "vm.disk[0].on"),
        (14, "vm.nic[0].network"),
        (15, "vm.nic[0].mac"),
    ]  # fmt: skip


def test_nothing_is_called_missing_that_may_stand_in_what_could_not_be_read() -> None:
    text = START + 'protection = "warm"\n[[vm.disk]]\nname = \n[[vm.nic]]\nname = "a"\nbridge = \n'
    assert [problem.line for problem in problems_of(text)] == [5, 8]


def test_texts_of_cloud_init_are_read_from_files_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "user.yaml").write_text("#cloud-config\nö: 1\n")
    file = tmp_path / "db.toml"
    file.write_text(START + DISK + '[vm.cloud_init]\nuser_data_file = "user.yaml"\nmeta_data = "m"\n')
    machine = read_workload(file).machine
    assert machine is not None
    assert machine.cloud_init == CloudInit("#cloud-config\nö: 1\n", "m")
    document = to_document(read_workload(file))
    assert workload_from_document(document) == read_workload(file), "what is sent on is whole in itself"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('user_data_file = "none"\n', "which cannot be read: No such file"),
        ('user_data_file = "."\n', "cannot be read: Is a directory"),
        ('user_data_file = "bytes"\n', "it is not UTF-8"),
        ('user_data_file = "long"\n', "more than 65536 characters"),
        ('user_data_file = "fifo"\n', "names something that is no file"),
        ('user_data = "x"\nuser_data_file = "long"\n', "stands beside user_data"),
    ],
)
def test_a_file_of_cloud_init_that_cannot_be_taken_is_told_with_its_line(tmp_path: Path, more: str, told: str) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "long").write_text("x" * 65_537)
    os.mkfifo(tmp_path / "fifo")
    (problem,) = problems_of(START + DISK + "[vm.cloud_init]\n" + more, tmp_path)
    assert told in problem.sentence
    assert problem.line >= 8


def test_what_a_machine_needs_follows_its_protection_unless_it_is_said() -> None:
    read = parse_workload(START + 'protection = "hot"\n' + LOCAL_DISK)
    assert read.machine is not None
    assert read.resources == needs(read.machine, Protection.HOT)
    assert "resources" not in to_document(read)
    said = replace(read, resources=Capacity(0.5, 600))
    assert to_document(said)["resources"] == {"cpus": 0.5, "memory_mib": 600}
    assert workload_from_document(to_document(said)) == said


@pytest.mark.parametrize(
    ("noun", "table", "named_otherwise"),
    [
        (Machine, machine_shape.MACHINE, {"disks": "disk", "nics": "nic"}),
        (Disk, machine_shape.DISK, {}),
        (Nic, machine_shape.NIC, {}),
        (KernelBoot, machine_shape.BOOT, {}),
        (GuestWatch, guest_shape.WATCH, {}),
        (WarmPolicy, guest_shape.WARM, {}),
        (HotPolicy, guest_shape.HOT, {}),
        (PlacementRules, PLACEMENT, {}),
    ],
)
def test_every_field_can_be_written(noun: type, table: Table, named_otherwise: dict[str, str]) -> None:
    names = {named_otherwise.get(field.name, field.name) for field in fields(noun)}
    assert {key.name for key in table.keys} == names
