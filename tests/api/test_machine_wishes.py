"""What a machine's file leaves open is settled once; what cannot be, or be taken back, is refused with its reason."""

from dataclasses import replace
from typing import Any, cast

import pytest

from outlive.api.machine_wishes import cancelled, check_machine, completed
from outlive.api.problems import Conflict
from outlive.api.view import View
from outlive.cluster import records as rec
from outlive.cluster.machine import KernelBoot, Machine, MachineType, Nic
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.overlay import Network
from outlive.cluster.workload import Kind, Module, Workload
from outlive.errors import UsageInvalid

from ..cluster.small_world import service

MAC = "52:54:00:00:00:01"


class Host:
    """An agent on a host with this emulator, or none."""

    def __init__(self, boards: dict[MachineType, str], picture: Mirror | None = None) -> None:
        self.boards, self.mirror = boards, picture or Mirror()

    @property
    def local(self) -> "Host":
        return self

    def board(self, kind: MachineType) -> str | None:
        return self.boards.get(kind)


NEW = cast(View, Host({MachineType.Q35: "pc-q35-9.0", MachineType.PC: "pc-i440fx-9.0"}))
BARE = cast(View, Host({}))


def vm(name: str = "vm", **changes: Any) -> Workload:
    machine = Machine(boot=KernelBoot("/k"), **changes)
    return Workload(name, (Module("vm", ()),), Kind.VM, machine=machine)


def version(view: View, workload: Workload, stands: Workload | None) -> str | None:
    machine = completed(view, workload, stands).machine
    assert machine is not None
    return machine.version


def test_a_new_machine_has_the_newest_board_that_this_host_makes() -> None:
    assert version(NEW, vm(), None) == "pc-q35-9.0"
    assert version(NEW, vm(type=MachineType.PC), None) == "pc-i440fx-9.0"
    assert version(BARE, vm(), None) is None
    assert version(NEW, vm(), vm(type=MachineType.PC, version="pc-i440fx-7.2")) == "pc-q35-9.0"


def test_a_machine_keeps_the_board_that_it_has() -> None:
    assert version(NEW, vm(cpus=4), vm(version="pc-q35-7.2")) == "pc-q35-7.2"
    assert version(NEW, vm(version="pc-q35-8.0"), vm(version="pc-q35-7.2")) == "pc-q35-8.0"
    assert version(NEW, vm(), vm()) is None, "one that was begun without any is not started anew for it"
    assert completed(NEW, service("web"), None) == service("web")


def test_a_card_is_told_the_largest_packet_of_its_network_once() -> None:
    picture = Mirror(networks=Mirror().networks.set("blue", Entry(Network("blue", 7, mtu=1400), 1, 1)))
    view, wired = cast(View, Host({}, picture)), vm(nics=(Nic("lan", MAC, network="blue"),))
    made = completed(view, wired, None)
    assert made.machine is not None
    assert [nic.mtu for nic in made.machine.nics] == [1400]
    assert completed(cast(View, Host({})), wired, made) == made


def test_networks_must_be_there_and_addresses_of_cards_free() -> None:
    wired = vm(nics=(Nic("lan", MAC, network="blue"),))
    with pytest.raises(UsageInvalid, match="network blue, which does not exist"):
        check_machine(Mirror(), wired)
    picture = Mirror(networks=Mirror().networks.set("blue", Entry(Network("blue", 7), 1, 1)))
    check_machine(picture, wired)
    other = rec.WorkloadRecord(replace(wired, name="other"))
    with pytest.raises(UsageInvalid, match="one of other's"):
        check_machine(replace(picture, workloads=picture.workloads.set("other", Entry(other, 1, 1))), wired)
    check_machine(
        replace(picture, workloads=picture.workloads.set("vm", Entry(rec.WorkloadRecord(wired), 1, 1))), wired
    )
    check_machine(Mirror(), service("web"))


def operation(kind: rec.OperationKind, state: rec.OperationState, generation: int = 3) -> rec.OperationRecord:
    return rec.OperationRecord("op", kind, "vm", state=state, generation=generation)


def placed(**changes: Any) -> Mirror:
    record = rec.PlacementRecord("vm", 3, "a", **{"operation": "op", **changes})
    return Mirror(placements=Mirror().placements.set("vm", Entry(record, 1, 1)))


MIGRATE, CHECKPOINT, RESUME = rec.OperationKind.MIGRATE, rec.OperationKind.CHECKPOINT, rec.OperationKind.RESUME
ASKED, RUNNING = rec.OperationState.ASKED, rec.OperationState.RUNNING


@pytest.mark.parametrize(
    ("asked", "picture"),
    [
        (operation(RESUME, ASKED), placed(operation=None)),
        (operation(MIGRATE, RUNNING), placed(moving_to="b")),
        (operation(CHECKPOINT, RUNNING), placed(order=rec.Order.STOP)),
        (operation(MIGRATE, RUNNING), Mirror()),
    ],
)
def test_what_has_not_gone_too_far_is_cancelled(asked: rec.OperationRecord, picture: Mirror) -> None:
    assert cancelled(picture, asked).state is rec.OperationState.CANCELLED


@pytest.mark.parametrize(
    ("asked", "picture", "says"),
    [
        (operation(MIGRATE, RUNNING), placed(order=rec.Order.STOP), "too far"),
        (operation(RESUME, RUNNING, 2), placed(), "too far"),
        *((operation(MIGRATE, state), placed(), "has ended already") for state in sorted(rec.ENDED)),
    ],
)
def test_what_has_ended_or_gone_too_far_is_not(asked: rec.OperationRecord, picture: Mirror, says: str) -> None:
    with pytest.raises(Conflict, match=says):
        cancelled(picture, asked)
