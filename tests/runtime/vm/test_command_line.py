"""The words that QEMU is started with: what the guest sees follows from the machine, and nothing else does."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from outlive.cluster.machine import (
    CloudInit,
    Disk,
    DiskBus,
    DiskFormat,
    Firmware,
    GuestWatch,
    KernelBoot,
    Machine,
    MachineType,
    Nic,
    NicModel,
    OnPanic,
)
from outlive.cluster.machine_rules import MOST_DISKS, MOST_NICS
from outlive.errors import UsageInvalid
from outlive.runtime.runner import Account
from outlive.runtime.vm import addresses
from outlive.runtime.vm.addresses import Place
from outlive.runtime.vm.command_line import command_line
from outlive.runtime.vm.host import Acceleration, HostFacts, newest_boards
from outlive.runtime.vm.seat import Held, Seat, SharedMemory, Tap, Watched

HOST = HostFacts(
    Path("/usr/bin/qemu-system-x86_64"),
    "7.2.22",
    {MachineType.PC: "pc-i440fx-7.2", MachineType.Q35: "pc-q35-7.2"},
    firmware=Path("/f/code.fd"),
    firmware_variables=Path("/f/vars.fd"),
)
MACHINE = Machine(
    cpus=2,
    memory_mib=256,
    disks=(
        Disk("root", size_mib=1),
        Disk("data", DiskFormat.QCOW2, size_mib=1, bus=DiskBus.SCSI),
        Disk("cd", size_mib=1, bus=DiskBus.SATA, read_only=True),
    ),
    nics=(Nic("lan", "52:54:00:00:00:01", "br0"), Nic("e", "52:54:00:00:00:02", "br0", model=NicModel.E1000E)),
    guest_agent=True,
    cloud_init=CloudInit(),
)


def seat(machine: Machine = MACHINE, at: str = "/vms/one") -> Seat:
    return Seat(
        Path(at),
        Path(at) / "run",
        {disk.name: Path(at) / disk.name for disk in machine.disks},
        {nic.name: Tap(f"tap-{nic.name}") for nic in machine.nics},
    )


def words(machine: Machine = MACHINE, at: Seat | None = None, host: HostFacts = HOST) -> list[str]:
    return command_line("one", machine, at or seat(machine), host)


def after(line: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(line) if word == option]


def devices(line: list[str]) -> list[dict[str, Any]]:
    return [json.loads(value) for value in after(line, "-device")]


SEEN_BY_THE_GUEST = (
    "-device",
    "-machine",
    "-cpu",
    "-smp",
    "-m",
    "-uuid",
    "-rtc",
    "-global",
    "-boot",
    "-kernel",
    "-append",
)


def test_two_seats_of_a_machine_make_the_same_hardware() -> None:
    other = Seat(
        Path("/elsewhere"),
        Path("/run/x"),
        {disk.name: Path("/elsewhere") / disk.name for disk in MACHINE.disks},
        {"lan": Held(Path("/run/x/a"), Path("/run/x/b")), "e": Tap("tap9")},
        SharedMemory(Path("/dev/shm/ram"), Watched(Path("/l.so"), Path("/run/x/out"))),
        incoming=True,
        comm_qmp=Path("/run/x/comm"),
    )
    host = replace(HOST, qemu=Path("/opt/qemu"), account=Account(5, 5))
    one, another = words(), words(at=other, host=host)
    for option in SEEN_BY_THE_GUEST:
        assert after(one, option) == after(another, option)


def test_the_boards_version_is_pinned_in_order_of_who_says_it() -> None:
    def board(machine: Machine, at: Seat) -> str:
        return after(words(machine, at), "-machine")[0].split(",")[0]

    assert board(MACHINE, seat()) == "pc-q35-7.2"
    assert board(MACHINE, replace(seat(), version="pc-q35-7.1")) == "pc-q35-7.1"
    pinned = replace(MACHINE, version="pc-q35-6.2")
    assert board(pinned, replace(seat(), version="pc-q35-7.1")) == "pc-q35-6.2"


@pytest.mark.parametrize("board", list(MachineType))
def test_no_two_devices_of_the_largest_machine_are_in_one_place(board: MachineType) -> None:
    places = [addresses.single(board, place) for place in Place]
    places += [addresses.nic(board, number) for number in range(MOST_NICS)]
    places += [addresses.disk(board, number) for number in range(MOST_DISKS)]
    assert len({(place.bus, place.addr) for place in places}) == len(places)
    own = {0, 1} if board is MachineType.PC else {0, 31}
    slots = {int(place.addr, 16) for place in places}
    assert slots == set(range(32)) - own


def test_only_the_old_pc_has_the_old_virtio() -> None:
    for board, old in ((MachineType.PC, True), (MachineType.Q35, False)):
        cards = [one for one in devices(words(replace(MACHINE, type=board))) if one["driver"].startswith("virtio-")]
        assert len(cards) == 6
        assert {"disable-modern" in card for card in cards} == {old}


def test_another_disk_or_card_moves_no_device() -> None:
    more = replace(
        MACHINE,
        disks=(*MACHINE.disks, Disk("more", size_mib=1)),
        nics=(*MACHINE.nics, Nic("dmz", "52:54:00:00:00:03", "br1")),
    )
    before = {device["id"]: device for device in devices(words())}
    afterwards = {device["id"]: device for device in devices(words(more))}
    assert before.items() <= afterwards.items()
    assert {"device-more", "nic-dmz"} <= afterwards.keys() - before.keys()


def test_the_guest_cannot_do_what_only_a_shell_or_root_may() -> None:
    line = words()
    assert after(line, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    assert {"-nodefaults", "-no-user-config"} <= set(line)
    assert all("script=no,downscript=no" in netdev for netdev in after(line, "-netdev"))


def test_disks_are_nodes_by_their_names_and_locked() -> None:
    nodes = {node["node-name"]: node for value in after(words(), "-blockdev") if (node := json.loads(value))}
    assert nodes["disk-data"]["driver"] == "qcow2"
    assert nodes["disk-data"]["file"] == "file-data"
    assert {node["locking"] for name, node in nodes.items() if name.startswith("file-")} == {"on"}
    assert nodes["disk-cd"]["read-only"] is True
    drives = {device["drive"]: device["driver"] for device in devices(words()) if "drive" in device}
    assert drives == {
        "disk-root": "virtio-blk-pci",
        "disk-data": "scsi-hd",
        "disk-cd": "ide-cd",
        "seed": "virtio-blk-pci",
    }


def test_disks_are_booted_in_their_order_and_a_kernel_before_them() -> None:
    assert [device["bootindex"] for device in devices(words()) if "bootindex" in device] == [1, 2, 3]
    direct = replace(MACHINE, boot=KernelBoot("/boot/k", "/boot/i", "quiet, please"))
    line = words(direct)
    assert not [device for device in devices(line) if "bootindex" in device]
    assert (after(line, "-kernel"), after(line, "-initrd"), after(line, "-append")) == (
        ["/boot/k"],
        ["/boot/i"],
        ["quiet, please"],
    )


def test_a_comma_in_a_path_ends_nothing() -> None:
    line = words(at=seat(at="/vms/a,server=off"))
    chardevs = after(line, "-chardev")
    assert "path=/vms/a,,server=off/run/qmp.sock" in chardevs[0]


def test_a_standby_waits_and_a_panicked_guest_stays_as_its_file_says() -> None:
    assert "-incoming" not in words()
    assert after(words(at=replace(seat(), incoming=True)), "-incoming") == ["defer"]
    assert "panic=pause" in after(words(), "-action")[0]
    left = replace(MACHINE, watch=GuestWatch(panic=OnPanic.LEAVE))
    assert "panic=none" in after(words(left), "-action")[0]


def test_memory_is_one_object_of_one_name() -> None:
    private = json.loads(after(words(), "-object")[0])
    shared = json.loads(after(words(at=replace(seat(), memory=SharedMemory(Path("/m")))), "-object")[0])
    assert (private["id"], private["size"]) == (shared["id"], shared["size"]) == ("ram0", 256 << 20)
    assert (shared["mem-path"], shared["share"]) == ("/m", True)


def test_what_a_machine_lacks_here_is_said() -> None:
    with pytest.raises(UsageInvalid, match=r"cannot be started") as failed:
        words(at=replace(seat(), disks={}))
    assert "its disk root has no file" in failed.value.cause
    with pytest.raises(UsageInvalid) as failed:
        words(replace(MACHINE, firmware=Firmware.UEFI), host=replace(HOST, firmware=None))
    assert "UEFI" in failed.value.cause
    with pytest.raises(UsageInvalid) as failed:
        words(at=seat(at="/" + "x" * 120))
    assert "too long" in failed.value.cause


def test_acceleration_and_processor() -> None:
    assert after(words(), "-accel") == ["tcg"]
    line = words(replace(MACHINE, cpu_model="Haswell,-avx2"), host=replace(HOST, acceleration=Acceleration.KVM))
    assert (after(line, "-accel"), after(line, "-cpu")) == (["kvm"], ["Haswell,-avx2,enforce=on"])


def test_the_newest_boards_are_found_by_their_numbers() -> None:
    said = "pc   Standard (alias)\npc-i440fx-9.2  x\npc-i440fx-10.0  x\npc-q35-7.2  x\npc-q35-rhel9.2.0 x\nmicrovm\n"
    assert newest_boards(said.splitlines()) == {MachineType.PC: "pc-i440fx-10.0", MachineType.Q35: "pc-q35-7.2"}
