"""Who waits for a place is woken by what it waits for, and costs the leader next to nothing until then."""

from outlive.bench.pretended_cluster import SITES, PretendedCluster
from outlive.cluster import records as rec
from outlive.cluster.courses import LOOKED_AT_ONCE
from outlive.cluster.policies import Freeze, Policies
from outlive.cluster.transaction import Put


def policies(world: PretendedCluster, wanted: Policies) -> None:
    world.store.write([Put(rec.POLICIES, rec.encode(wanted))], world.at)
    world.pass_tick()


def test_all_that_a_frozen_cluster_left_undone_is_done_at_once_when_it_is_unfrozen_however_much_there_is() -> None:
    world = PretendedCluster(6, LOOKED_AT_ONCE + 500, cpus=1000)
    policies(world, Policies(frozen=Freeze("root")))
    world.lose(SITES[0])
    world.end_claims()
    world.run(12)
    assert world.at_rest() == (0, 500)
    # Longer than it takes until each workload had its turn, so that only the change itself can be what wakes them.
    policies(world, Policies(restarts_per_host=1000))
    world.run(1.5)
    assert world.at_rest() == (500, 0)
