"""Who is fenced, and what a try proves: only what it was begun for, and only as long as its leader sees the store."""

from dataclasses import replace

from msgspec.structs import replace as replaced

from outlive.cluster import leader
from outlive.cluster import records as rec
from outlive.cluster.boot import boot_id
from outlive.cluster.commands import CallOffFence, Command, Fence
from outlive.cluster.events import Fenced, Tick
from outlive.cluster.fence import EndProof, FenceMethod
from outlive.cluster.policies import Policies

from .small_world import SmallWorld, host, service


class Fencers(SmallWorld):
    """Three hosts with one method each, which answers nothing but what the test says; `tries` were asked for."""

    def __init__(self) -> None:
        super().__init__("a", "b", "c")
        self.tries: list[Fence] = []
        self.swallow = self._keep
        for each in self.hosts.values():
            each.leader = replaced(each.leader, methods=(FenceMethod("power"),))
        self.store.put(rec.POLICIES, rec.encode(Policies(proof_of_end=EndProof.FENCE)))
        self.run(2)

    def _keep(self, _: str, command: Command) -> bool:
        if isinstance(command, Fence):
            self.tries.append(command)
        return False

    def answers(self, *, proven: bool = False, freed: tuple[str, ...] = ()) -> None:
        """The last try ends so."""
        asked = self.tries[-1]
        self.tell(str(self.leads()), Fenced(self.now, asked.host, asked.number, proven, freed, "as told"))


def accusing() -> Fencers:
    """A host that had web has died, and the leader has begun to have it fenced."""
    world = Fencers()
    world.apply(service("web"))
    world.run(3)
    if world.placement("web").host == world.leads():
        world.ask(rec.OperationRecord("away", rec.OperationKind.MIGRATE, "web", world.other_than(world.leads())))
        world.run(3)
    world.off.add(str(world.placement("web").host))
    world.run(8)
    assert world.tries
    return world


def test_a_run_lock_that_was_taken_is_proof_for_the_generation_that_it_was_taken_from_and_for_no_later_one() -> None:
    world = accusing()
    placed = world.placement("web")
    later = replace(placed, generation=placed.generation + 3)
    world.store.put(rec.PLACEMENTS + "web", rec.encode(later))
    world.settle(str(world.leads()))
    world.answers(freed=("web",))
    world.run(3)
    assert world.placement("web").generation == later.generation


def test_a_run_lock_that_was_taken_lets_its_workload_begin_elsewhere() -> None:
    world = accusing()
    before = world.placement("web")
    world.answers(freed=("web",))
    world.run(3)
    assert world.placement("web").generation == before.generation + 1
    assert world.placement("web").host != before.host


def test_a_leader_that_sees_the_store_no_more_calls_its_tries_off() -> None:
    world = accusing()
    asked, state = world.tries[-1], world.hosts[str(world.leads())].leader
    _, commands = leader.step(state, Tick(world.now + 5.0))
    assert CallOffFence(asked.host, asked.number) in commands


def test_for_a_lost_placement_also_a_host_is_fenced_whose_claims_nobody_has_seen() -> None:
    world = Fencers()
    world.store.put(rec.HOSTS + "z", rec.encode(host("z")))
    report = rec.ReportRecord("web", 3, "z", 2, rec.Stage.RUNNING)
    world.store.put(rec.REPORTS + "web", rec.encode(report))
    world.apply(service("web"))
    world.run(12)
    assert [each.host for each in world.tries] == ["z"]
    assert "web" not in [each.workload for each in world.happened if each.kind == "workload.placed"]
    world.answers(proven=True)
    world.run(3)
    assert world.runs_on("web")


def test_the_record_says_which_machine_it_is_of_though_its_leader_never_saw_that_claim() -> None:
    world = Fencers()
    crate = boot_id("crate", "tuesday")
    world.store.put(rec.HOSTS + "z", rec.encode(host("z")))
    world.store.put(rec.PLACEMENTS + "web", rec.encode(rec.PlacementRecord("web", 3, "z", 2, boot_id=crate)))
    world.apply(service("web"))
    world.run(12)
    assert [each.host for each in world.tries] == ["z"]
    fence = rec.decode(rec.FENCES + "z", world.store.keys[rec.FENCES + "z"].value)
    assert isinstance(fence, rec.FenceRecord)
    assert fence.boot_id == crate
