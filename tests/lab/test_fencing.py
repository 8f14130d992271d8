"""A host that stands still, guard and all, is cut off from power for real before what it ran goes elsewhere."""

from collections.abc import Iterator

import pytest

from outlive.lab import hosts, ready

from .scene import Scene


@pytest.fixture
def strict(scene: Scene) -> Iterator[Scene]:
    """The cluster asks for a fence's proof while the test lasts."""
    ready.any_client(scene.lab).put("/v1/policies", {"proof_of_end": "fence"})
    yield scene
    ready.any_client(scene.lab).put("/v1/policies", {"proof_of_end": "claim"})


def test_a_host_that_stands_still_is_switched_off_before_its_workload_goes_elsewhere(strict: Scene) -> None:
    strict.lab.pause(strict.primary)
    strict.runs_elsewhere()
    assert not hosts.is_on(strict.lab.plan, strict.primary)
    strict.counts_again()
    kinds = strict.kinds(besides=(strict.primary,))
    told = [kind for kind in kinds if kind in ("verdict.dead", "fence.begun", "fence.proven", "failover.started")]
    assert told[-4:] == ["verdict.dead", "fence.begun", "fence.proven", "failover.started"]
