"""The bench of failovers tells what it saw, and takes no true verdict for a wrong one, nor the other way round."""

from typing import Any

import pytest

from outlive.lab.bench_failover import put_together
from outlive.lab.bench_failover_values import FailoverBench, Loss, LossKind, Spread, reach, spread, spreads, told

CUT = 0.0


def event(kind: str, after_s: float, host: str = "") -> dict[str, Any]:
    return {"kind": kind, "host": host, "unix_ms": (CUT + after_s) * 1000}


def loss(kind: LossKind = LossKind.POWER, issued_s: float | None = 4.0, wrong: tuple[str, ...] = ()) -> Loss:
    return Loss(kind, "a", "b", 4.0, issued_s, 5.0, wrong)


def test_a_loss_is_put_together_from_what_was_recorded_since() -> None:
    events = [
        event("verdict.suspect", 1.1, "a"),
        event("verdict.suspect", 1.2, "c"),
        event("verdict.alive", 1.3, "c"),
        event("verdict.partitioned", 2.1, "a"),
        event("verdict.dead", 4.0, "a"),
        event("failover.started", 4.25, "b"),
    ]
    found = put_together(LossKind.POWER, "a", "b", events, CUT, CUT + 5.5)
    assert found == Loss(LossKind.POWER, "a", "b", 2.1, 4.25, 5.5)


@pytest.mark.parametrize(
    ("kind", "verdict", "host", "wrong"),
    [
        (LossKind.POWER, "verdict.dead", "a", False),
        (LossKind.SIGSTOP, "verdict.partitioned", "a", False),
        (LossKind.ISOLATION, "verdict.isolated", "a", False),
        (LossKind.ISOLATION, "verdict.dead", "a", True),
        (LossKind.PARTITION, "verdict.dead", "a", True),
        (LossKind.POWER, "verdict.dead", "c", True),
        (LossKind.POWER, "verdict.partitioned", "c", True),
        (LossKind.POWER, "verdict.suspect", "c", False),
    ],
)
def test_a_verdict_is_wrong_for_who_speaks_and_for_who_is_merely_cut_off(
    kind: LossKind, verdict: str, host: str, wrong: bool
) -> None:
    found = put_together(kind, "a", "b", [event(verdict, 2.0, host)], CUT, None)
    assert found.wrong == ((f"{host} {verdict}",) if wrong else ())
    assert found.issued_s is None
    assert found.first_reply_s is None


def test_times_are_spread_by_nearest_rank_and_what_was_not_seen_is_left_out() -> None:
    assert spread([float(each) for each in range(10, 0, -1)]) == Spread(10, 5.0, 9.0, 10.0)
    assert spread([None, 2.0]) == Spread(1, 2.0, 2.0, 2.0)
    assert spread([None]) == Spread(0, None, None, None)


def test_each_kind_has_its_own_spread_and_all_have_one() -> None:
    bench = FailoverBench((loss(), loss(LossKind.SIGSTOP, 4.4), loss(issued_s=4.2)), 0, 0, 0)
    assert {name: times["issued_s"].worst_s for name, times in spreads(bench).items()} == {
        "power cut": 4.2,
        "SIGSTOP": 4.4,
        "all": 4.4,
    }


@pytest.mark.parametrize(
    ("bench", "missed", "clean"),
    [
        (FailoverBench((loss(),), 0, 0, 0), set(), True),
        (FailoverBench((loss(issued_s=5.2),), 0, 0, 0), {"restart issued, worst of all losses"}, True),
        (FailoverBench((loss(), loss(issued_s=None)), 0, 0, 0), {"restart issued, worst of all losses"}, True),
        (FailoverBench((loss(wrong=("c verdict.dead",)),), 0, 0, 0), {"wrong verdicts"}, False),
        (FailoverBench((loss(),), 1, 0, 0), {"acknowledged and lost"}, False),
        (FailoverBench((loss(),), 0, 2, 0), {"done twice"}, False),
        (FailoverBench((loss(),), 0, 0, 3), {"looks that saw two hosts act"}, False),
    ],
)
def test_a_late_restart_is_told_and_a_broken_promise_fails(bench: FailoverBench, missed: set[str], clean: bool) -> None:
    assert {row["what"] for row in reach(bench) if not row["holds"]} == missed
    assert bench.clean is clean
    assert told(bench)["clean"] is clean
