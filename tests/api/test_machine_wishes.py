"""What a machine's file leaves open is settled once; what cannot be, or be taken back, is refused with its reason."""

from dataclasses import replace
from typing import Any, cast

import pytest

from outlive.api import wishes
from outlive.api.boards import oldest
from outlive.api.machine_wishes import cancelled, check_machine, completed
from outlive.api.problems import Conflict, NotFound
from outlive.api.view import View
from outlive.cluster import records as rec
from outlive.cluster.machine import KernelBoot, Machine, MachineType, Nic
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.overlay import Network
from outlive.cluster.transaction import Transaction, TransactionResult, unchanged
from outlive.cluster.workload import Kind, Module, Workload
from outlive.errors import UsageInvalid

from ..cluster.small_world import service

MAC = "52:54:00:00:00:01"


NEW = "pc-q35-9.0"


def vm(name: str = "vm", **changes: Any) -> Workload:
    machine = Machine(boot=KernelBoot("/k"), **changes)
    return Workload(name, (Module("vm", ()),), Kind.VM, machine=machine)


def version(workload: Workload, stands: Workload | None, board: str | None = NEW) -> str | None:
    machine = completed(Mirror(), workload, stands, board).machine
    assert machine is not None
    return machine.version


def test_a_new_machine_has_the_newest_board_that_all_hosts_make() -> None:
    assert version(vm(), None) == NEW
    assert version(vm(), None, None) is None
    assert version(vm(), vm(type=MachineType.PC, version="pc-i440fx-7.2")) == NEW
    assert oldest(["pc-q35-10.0", "pc-q35-9.2", "pc-q35-9.10", "nothing"]) == "pc-q35-9.2"
    assert oldest([]) is None


def test_a_machine_keeps_the_board_that_it_has() -> None:
    assert version(vm(cpus=4), vm(version="pc-q35-7.2")) == "pc-q35-7.2"
    assert version(vm(version="pc-q35-8.0"), vm(version="pc-q35-7.2")) == "pc-q35-8.0"
    assert version(vm(), vm()) is None, "one that was begun without any is not started anew for it"
    assert completed(Mirror(), service("web"), None, NEW) == service("web")


def test_a_card_is_told_the_largest_packet_of_its_network_once() -> None:
    picture = Mirror(networks=Mirror().networks.set("blue", Entry(Network("blue", 7, mtu=1400), 1, 1)))
    wired = vm(nics=(Nic("lan", MAC, network="blue"),))
    made = completed(picture, wired, None, None)
    assert made.machine is not None
    assert [nic.mtu for nic in made.machine.nics] == [1400]
    assert completed(Mirror(), wired, made, None) == made


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


class Asked:
    """An agent whose store takes a cancellation only after somebody else was faster so many times."""

    def __init__(self, asked: rec.OperationRecord, lost: int) -> None:
        self.mirror = replace(Mirror(), operations=Mirror().operations.set("op", Entry(asked, 5, 5)), revision=9)
        self.lost = lost
        self.written: list[Any] = []

    def now(self) -> float:
        return 0.0

    def record(self, kind: str, **about: str) -> rec.EventRecord:
        return rec.EventRecord("e", kind, "a", 0.0)

    async def transact(self, transaction: Transaction) -> TransactionResult:
        self.lost -= 1
        if self.lost >= 0:
            return TransactionResult(False, 9)
        self.written.append(transaction)
        return TransactionResult(True, 9)


async def test_cancelling_is_one_comparison_that_is_tried_again() -> None:
    view = Asked(operation(MIGRATE, RUNNING), 2)
    answer = await wishes.cancel(cast(View, view), "op", dry_run=False)
    assert (answer["operation"].state, answer["event"]) == (rec.OperationState.CANCELLED, "e")
    [transaction] = view.written
    assert transaction.compares == (unchanged("operations/op", 5),)
    with pytest.raises(NotFound):
        await wishes.cancel(cast(View, view), "other", dry_run=False)
    with pytest.raises(Conflict, match="each time"):
        await wishes.cancel(cast(View, Asked(operation(RESUME, ASKED), 99)), "op", dry_run=False)
