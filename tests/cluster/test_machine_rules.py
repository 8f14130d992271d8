"""A virtual machine that could never run, or that would reach beyond its own files, is told in a sentence."""

from dataclasses import replace
from typing import Any

import pytest

from outlive.cluster import records as rec
from outlive.cluster.host import Capacity
from outlive.cluster.machine import (
    Disk,
    DiskBus,
    Firmware,
    GuestWatch,
    HotPolicy,
    KernelBoot,
    Machine,
    MachineType,
    Nic,
    NicModel,
    WarmPolicy,
)
from outlive.cluster.machine_rules import (
    datastores_of,
    derived_mac,
    is_multicast,
    machine_problem,
    needs,
    shared_mac,
)
from outlive.cluster.workload import Apart, Kind, Module, PlacementRules, Protection, Workload

ROOT = Disk("root", on="shared", size_mib=1024)
LAN = Nic("lan", "52:54:00:12:34:56", bridge="br0")
MACHINE = Machine(disks=(ROOT,), nics=(LAN,))
COLD = Workload("db", (Module("vm", ()),), Kind.VM, machine=MACHINE)
LOCAL_ROOT = replace(ROOT, on="local")
HOT = replace(COLD, protection=Protection.HOT, machine=replace(MACHINE, disks=(LOCAL_ROOT,)))


def with_machine(base: Workload, **parts: Any) -> Workload:
    assert base.machine is not None
    return replace(base, machine=replace(base.machine, **parts))


@pytest.mark.parametrize(
    "workload",
    [
        COLD,
        HOT,
        replace(COLD, protection=Protection.WARM),
        with_machine(COLD, boot=KernelBoot("/vmlinuz", "/initrd"), disks=(), nics=()),
        replace(HOT, protection=Protection.COLD, placement=PlacementRules(hosts=("a",))),
        with_machine(COLD, version="pc-q35-7.2", cpu_model="qemu64,+sse4.2"),
        Workload("web", (Module("main", ("x",)),)),
    ],
)
def test_what_can_run_is_let_through(workload: Workload) -> None:
    assert machine_problem(workload) == ""
    key = rec.WORKLOADS + workload.name
    assert rec.decode(key, rec.encode(rec.WorkloadRecord(workload))) == rec.WorkloadRecord(workload)


@pytest.mark.parametrize(
    ("workload", "told"),
    [
        (replace(COLD, kind=Kind.SERVICE), "has a machine"),
        (Workload("web", (Module("main", ("x",)),), protection=Protection.HOT), "cannot have hot protection"),
        (replace(COLD, machine=None), "without a machine"),
        (replace(COLD, modules=(Module("main", ()),)), "the module 'vm' alone"),
        (with_machine(COLD, cpus=0), "0 processors"),
        (with_machine(COLD, memory_mib=1), "1 MiB of memory"),
        (with_machine(COLD, version="pc-i440fx-7.2"), "no version of q35"),
        (with_machine(COLD, type=MachineType.PC, version="pc-i440fx-7.2,dump-guest-core=on"), "no version of pc"),
        (with_machine(COLD, cpu_model="x -device y"), "no processor"),
        (with_machine(COLD, disks=()), "neither a disk nor a kernel"),
        (with_machine(COLD, boot=KernelBoot("/../etc/shadow")), "no absolute path"),
        (with_machine(COLD, boot=KernelBoot("/k", "initrd")), "no absolute path"),
        (with_machine(COLD, disks=(ROOT, ROOT)), "disks are called the same"),
        (with_machine(COLD, disks=(replace(ROOT, name="../x"),)), "cannot name a disk"),
        (with_machine(COLD, disks=(replace(ROOT, name="a" * 21),)), "cannot name a disk"),
        (with_machine(COLD, disks=(replace(ROOT, on="../x"),)), "cannot name a datastore"),
        (with_machine(COLD, disks=(replace(ROOT, size_mib=None),)), "neither size nor source"),
        (with_machine(COLD, disks=(replace(ROOT, size_mib=0),)), "cannot have 0 MiB"),
        (with_machine(COLD, disks=(replace(ROOT, source="/a/../b"),)), "no absolute path"),
        (with_machine(COLD, disks=tuple(replace(ROOT, name=f"d{n}") for n in range(17))), "more than 16 disks"),
        (with_machine(COLD, nics=(LAN, replace(LAN, name="b"))), "called the same"),
        (with_machine(COLD, nics=(replace(LAN, mac="53:54:00:12:34:56"),)), "no address of a network card"),
        (with_machine(COLD, nics=(replace(LAN, mac="00:00:00:00:00:00"),)), "no address of a network card"),
        (with_machine(COLD, nics=(replace(LAN, mac="52:54:00:12:34"),)), "no address of a network card"),
        (with_machine(COLD, nics=(replace(LAN, network="n"),)), "and not both"),
        (with_machine(COLD, nics=(replace(LAN, bridge=None),)), "and not both"),
        (with_machine(COLD, nics=(replace(LAN, bridge="../x"),)), "cannot name a bridge"),
        (with_machine(COLD, nics=(replace(LAN, bridge=None, network="A"),)), "cannot name a network"),
        (with_machine(COLD, watch=GuestWatch(enabled=True)), "an agent that it does not have"),
        (with_machine(COLD, watch=GuestWatch(silence_s=0)), "above 0"),
        (with_machine(COLD, disks=(LOCAL_ROOT,)), "is on one host"),
        (with_machine(HOT, disks=(ROOT,)), "every disk is local"),
        (with_machine(HOT, disks=(replace(LOCAL_ROOT, bus=DiskBus.SATA),)), "every disk is on virtio"),
        (with_machine(HOT, nics=(replace(LAN, model=NicModel.E1000E),)), "every network card is virtio"),
        (with_machine(HOT, firmware=Firmware.UEFI), "firmware is bios"),
        (replace(HOT, placement=PlacementRules(hosts=("a",))), "room for a standby"),
        (replace(HOT, placement=PlacementRules(sites=("a",), apart=Apart.SITE)), "room for a standby"),
        (replace(HOT, hot=HotPolicy(floor_ms=100.0)), "cannot be cut so"),
        (replace(HOT, hot=HotPolicy(silence_ms=59.0)), "cannot be cut so"),
        (replace(HOT, hot=HotPolicy(bandwidth_mib_s=0.0)), "no bandwidth"),
        (replace(COLD, warm=WarmPolicy(keep=0)), "at least one must be kept"),
        (replace(COLD, warm=WarmPolicy(on="/")), "cannot name a datastore"),
        (
            replace(HOT, protection=Protection.WARM, placement=PlacementRules(hosts=("a",))),
            "its checkpoints have no datastore",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_told_and_refused_from_the_store(workload: Workload, told: str) -> None:
    assert told in machine_problem(workload)
    with pytest.raises(rec.BadRecord) as caught:
        rec.decode(rec.WORKLOADS + workload.name, rec.encode(rec.WorkloadRecord(workload)))
    assert told in caught.value.cause


def test_a_card_gets_the_same_address_always_and_never_one_that_is_taken() -> None:
    mac = derived_mac("db", "lan")
    assert mac == derived_mac("db", "lan") == "52:54:00:cc:b2:bf"
    assert len({mac, derived_mac("db", "wan"), derived_mac("db2", "lan"), derived_mac("db", "lan", {mac})}) == 4
    assert not is_multicast(mac)


def test_a_machine_needs_its_memory_and_more_where_it_is_followed() -> None:
    machine = Machine(cpus=2, memory_mib=1024)
    assert needs(machine, Protection.COLD) == Capacity(2.0, 1024 + 192 + 16)
    assert needs(machine, Protection.HOT).memory_mib > needs(machine, Protection.COLD).memory_mib


def test_the_datastores_that_a_host_must_reach_are_named_once() -> None:
    warm = replace(COLD, data_on="shared", protection=Protection.WARM, warm=WarmPolicy(on="other"))
    assert datastores_of(warm) == ("shared", "other")
    assert datastores_of(HOT) == ()


def test_an_address_that_two_machines_have_is_told_with_the_other() -> None:
    other = replace(COLD, name="copy")
    service = Workload("web", (Module("main", ("x",)),))
    assert shared_mac(COLD, [service, COLD, other]) == (LAN.mac, "copy")
    assert shared_mac(COLD, [service, COLD, with_machine(other, nics=())]) is None
    assert shared_mac(service, [COLD]) is None
