"""What an agent knows of the store when it must decide at once: whose a workload is, whether it ran, what from."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from outlive.agent.ground import Ground
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.records import PlacementRecord, ReportRecord, Stage


def ground(
    placement: PlacementRecord | None = None, report: ReportRecord | None = None, *, at: float = 1.0, until: float = 2.0
) -> Ground:
    def entries(records: Iterable[Any]) -> Any:
        return {each.workload: Entry(each, 1, 1) for each in records if each is not None}

    mirror = Mirror(placements=entries([placement]), reports=entries([report]))
    nothing: Any = SimpleNamespace(deadline_at=until)
    return Ground(
        "a", nothing, nothing, nothing, {"shared": nothing}, nothing, lambda: at, nothing, lambda: mirror, nothing
    )


@pytest.mark.parametrize(
    ("placement", "is_superseded"),
    [
        (None, False),
        (PlacementRecord("web", 7, "a"), False),
        (PlacementRecord("web", 6, "a"), False),  # the picture is older than the order
        (PlacementRecord("web", 8, "a"), True),
        (PlacementRecord("web", 7, "b"), True),
        (PlacementRecord("web", 6, "b"), True),
        (PlacementRecord("web", 7, None), True),
        (PlacementRecord("db", 9, "b"), False),
    ],
)
def test_a_workload_is_superseded_elsewhere_or_by_a_newer_generation(
    placement: PlacementRecord | None, is_superseded: bool
) -> None:
    assert ground(placement).superseded("web", 7) is is_superseded


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("generation", [6, 7, 8])
def test_it_ran_before_only_if_an_earlier_generation_is_known_to_have_run(stage: Stage, generation: int) -> None:
    known = generation < 7 and stage in (Stage.RUNNING, Stage.DEGRADED)
    assert ground(report=ReportRecord("web", generation, "b", 1, stage)).ran_before("web", 7) is known


def test_without_a_report_nothing_ran_before() -> None:
    assert not ground().ran_before("web", 7)


def test_an_operators_checkpoint_counts_for_its_own_generation_alone() -> None:
    placed = ground(PlacementRecord("web", 7, "a", resume_at="nightly"))
    assert [placed.resume_at("web", generation) for generation in (6, 7, 8)] == ["", "nightly", ""]
    assert ground().resume_at("web", 7) == ""


def test_nothing_may_act_from_the_deadline_on() -> None:
    assert [ground(at=at).may_act() for at in (1.999, 2.0, 3.0)] == [True, False, False]
