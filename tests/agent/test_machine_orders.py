"""Orders about machines: one for another generation or pairing is answered and never carried out."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent.holding import Holding, PreparationFailed
from outlive.agent.machine_orders import MachineOrders
from outlive.cluster import commands as do
from outlive.cluster import events as ev
from outlive.cluster.commands import Role
from outlive.cluster.machine import MODULE, Machine
from outlive.cluster.workload import Kind, Module, Protection, Workload
from outlive.errors import Failed

AT = 3.5
WEB = Workload("web", (Module(MODULE, ()),), Kind.VM, Protection.HOT, machine=Machine())
PREPARE = do.PrepareStandby(WEB, 7, 3, Role.STANDBY, "x")
TAKE_OVER = do.TakeOver("web", 7, 3, 8, "x")


@dataclass
class Kept:
    """A holding that writes down what it is asked, and fails where it is told to."""

    generation: int
    role: Role = Role.PRIMARY
    pairing: int = 0
    fails: dict[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    in_force: bool = False
    is_machine: bool = True

    def _asked(self, what: str) -> None:
        self.asked.append(what)
        if what in self.fails:
            raise self.fails[what]

    async def make_ready(self) -> None:
        self._asked("make ready")

    async def take_over(self, to_generation: int) -> None:
        self._asked("take over")
        self.generation, self.role, self.in_force = to_generation, Role.PRIMARY, True

    @property
    def machine(self) -> Any:
        return self if self.is_machine else None

    async def stand_by(self) -> None:
        self._asked("stand by")

    async def pair(self, command: do.Pair) -> None:
        self._asked("pair")

    async def go_alone(self, command: do.GoAlone) -> None:
        self._asked("go alone")

    async def hand_over(self) -> None:
        self._asked("hand over")

    async def migrate(self, command: do.MigrateTo) -> None:
        self._asked("migrate")

    async def checkpoint(self, command: do.TakeCheckpoint) -> None:
        self._asked("checkpoint")


@dataclass
class Desk:
    held: dict[str, Any] = field(default_factory=dict)
    told: list[ev.Event] = field(default_factory=list)
    let_go: list[str] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)

    def _make(self, workload: Workload, generation: int, role: Role = Role.PRIMARY, pairing: int = 0) -> Holding:
        return Kept(generation, role, pairing, self.fails)  # type: ignore[return-value]

    async def _let_go(self, name: str) -> None:
        self.let_go.append(name)
        self.held.pop(name, None)

    async def carry_out(self, command: do.Command, problem: str = "") -> None:
        ground: Any = SimpleNamespace(clock=lambda: AT)
        orders = MachineOrders(ground, self.held, self._make, self._let_go, self.told.append)
        await orders.carry_out(command, problem)


async def test_a_standby_is_made_ready_then_stands_by_and_the_manager_tells_the_rest() -> None:
    desk = Desk()
    await desk.carry_out(PREPARE)
    held = desk.held["web"]
    assert (held.asked, held.role, held.generation, held.pairing) == (["make ready", "stand by"], Role.STANDBY, 7, 3)
    assert desk.told == []
    # Whatever was here before is gone first.
    await desk.carry_out(do.PrepareStandby(WEB, 7, 4, Role.STANDBY, "x"))
    assert desk.let_go == ["web", "web"]
    assert desk.held["web"].pairing == 4


@pytest.mark.parametrize(
    ("step", "error", "reason"),
    [
        ("make ready", PreparationFailed("guard", "it refuses"), "guard: it refuses"),
        ("stand by", Failed("No disk."), "No disk."),
        ("stand by", OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        ("stand by", TimeoutError(), "TimeoutError"),
    ],
)
async def test_a_standby_that_cannot_be_is_told_and_let_go_of(step: str, error: Exception, reason: str) -> None:
    desk = Desk(fails={step: error})
    await desk.carry_out(PREPARE)
    assert desk.told == [ev.StandbyFailed(AT, "web", 7, 3, reason)]
    assert desk.held == {}


async def test_nothing_stands_by_or_takes_over_before_the_journal_is_durable() -> None:
    desk = Desk()
    await desk.carry_out(PREPARE, "the disk is full")
    assert desk.told == [ev.StandbyFailed(AT, "web", 7, 3, "journal: the disk is full")]
    await desk.carry_out(PREPARE)
    kept = desk.held["web"]
    await desk.carry_out(TAKE_OVER, "the disk is full")
    assert desk.told[1:] == [ev.TakeOverFailed(AT, "web", 8, "journal: the disk is full")]
    assert "take over" not in kept.asked


async def test_a_take_over_is_carried_out_once_and_answered_as_often_as_it_is_asked() -> None:
    desk = Desk()
    await desk.carry_out(PREPARE)
    kept = desk.held["web"]
    for _ in range(3):
        await desk.carry_out(TAKE_OVER)
    assert kept.asked.count("take over") == 1
    assert desk.told == [ev.TookOver(AT, "web", 8)] * 3
    assert desk.held["web"] is kept


@pytest.mark.parametrize("held", [None, (6, 3), (7, 2), (7, 4), (9, 3)])
async def test_a_take_over_for_another_pairing_is_refused_and_what_stands_by_is_let_go_of(
    held: tuple[int, int] | None,
) -> None:
    desk = Desk()
    kept = Kept(held[0], Role.STANDBY, held[1]) if held else None
    if kept:
        desk.held["web"] = kept
    await desk.carry_out(TAKE_OVER)
    assert desk.told == [ev.TakeOverFailed(AT, "web", 8, "adopt: nothing stands by here for that pairing")]
    assert kept is None or kept.asked == []
    assert desk.held == {}


async def test_a_take_over_that_fails_leaves_nothing_of_the_machine() -> None:
    desk = Desk(fails={"take over": PreparationFailed("adopt", "the manager ended")})
    await desk.carry_out(PREPARE)
    await desk.carry_out(TAKE_OVER)
    assert desk.told == [ev.TakeOverFailed(AT, "web", 8, "adopt: the manager ended")]
    assert desk.held == {}
    # Asked again, it says again that there is nothing.
    await desk.carry_out(TAKE_OVER)
    assert isinstance(desk.told[-1], ev.TakeOverFailed)


@pytest.mark.parametrize("role", [Role.STANDBY, Role.INCOMING])
async def test_what_stands_by_is_discarded(role: Role) -> None:
    desk = Desk({"web": Kept(7, role, 3)})
    await desk.carry_out(do.DiscardStandby("web", 7, 3, "x"))
    assert (desk.held, desk.told) == ({}, [ev.StandbyDiscarded(AT, "web", 7, 3)])


async def test_a_primary_is_never_discarded_and_the_order_is_answered() -> None:
    kept = Kept(8, Role.PRIMARY, 3, in_force=True)
    desk = Desk({"web": kept})
    await desk.carry_out(do.DiscardStandby("web", 7, 3, "x"))
    assert desk.held == {"web": kept}
    assert desk.told == [ev.StandbyDiscarded(AT, "web", 7, 3)]


ORDERS: list[tuple[do.Command, str]] = [
    (do.Pair("web", 7, 4, "b", "10.0.0.2", 4000, "x"), "pair"),
    (do.GoAlone("web", 7, 4, "x"), "go alone"),
    (do.HandOver("web", 7, 3, "x"), "hand over"),
    (do.MigrateTo("web", 7, 4, "b", "10.0.0.2", 4000, "x"), "migrate"),
    (do.TakeCheckpoint("web", 7, "op", "nightly", "x"), "checkpoint"),
]


@pytest.mark.parametrize(("order", "told"), [(ORDERS[0][0], ev.PeerLost), (ORDERS[3][0], ev.MigrationFailed)])
async def test_a_primary_begins_no_pairing_that_the_next_agent_would_not_know_of(
    order: do.Command, told: type[ev.Event]
) -> None:
    kept = Kept(7)
    desk = Desk({"web": kept})
    await desk.carry_out(order, "the disk is full")
    assert kept.asked == []
    (event,) = desk.told
    assert isinstance(event, told)
    assert isinstance(event, ev.PeerLost | ev.MigrationFailed)
    assert (event.pairing, event.reason) == (4, "journal: the disk is full")


@pytest.mark.parametrize(("order", "asked"), ORDERS)
async def test_a_primary_is_given_its_orders(order: do.Command, asked: str) -> None:
    kept = Kept(7)
    await Desk({"web": kept}).carry_out(order)
    assert kept.asked == [asked]


@pytest.mark.parametrize(("order", "asked"), ORDERS)
@pytest.mark.parametrize("kept", [None, Kept(6), Kept(8), Kept(7, is_machine=False)])
async def test_orders_for_what_is_not_held_are_dropped(order: do.Command, asked: str, kept: Kept | None) -> None:
    desk = Desk({"web": kept} if kept else {})
    await desk.carry_out(order)
    assert kept is None or kept.asked == []
    assert desk.let_go == []


async def test_what_is_no_order_about_machines_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        await Desk().carry_out(do.StartModule("web", 7, "vm", "x"))
