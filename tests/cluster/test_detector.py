"""The table of verdicts, row by row, and its edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.detector import Evidence, classify
from outlive.cluster.records import Verdict
from outlive.cluster.timing import Timing

FRESH, LATE, SILENT = 0.1, 1.5, 60.0


@pytest.mark.parametrize(
    ("network_s", "probe_s", "slot_s", "isolated", "lease", "verdict"),
    [
        (FRESH, None, None, False, True, Verdict.ALIVE),
        (FRESH, None, SILENT, False, False, Verdict.ALIVE),
        (LATE, 0.1, FRESH, False, True, Verdict.SUSPECT),
        (LATE, None, FRESH, False, True, Verdict.SUSPECT),
        (SILENT, 0.1, SILENT, False, False, Verdict.SUSPECT),
        (SILENT, None, FRESH, True, True, Verdict.ISOLATED),
        (SILENT, None, FRESH, True, False, Verdict.ISOLATED),
        (SILENT, SILENT, FRESH, False, True, Verdict.PARTITIONED),
        (SILENT, None, FRESH, False, False, Verdict.PARTITIONED),
        (SILENT, None, None, False, True, Verdict.PARTITIONED),
        (SILENT, None, SILENT, True, True, Verdict.PARTITIONED),
        (SILENT, None, None, False, False, Verdict.DEAD),
        (SILENT, SILENT, SILENT, False, False, Verdict.DEAD),
        (SILENT, SILENT, SILENT, True, False, Verdict.DEAD),
    ],
)
def test_the_table(
    network_s: float, probe_s: float | None, slot_s: float | None, isolated: bool, lease: bool, verdict: Verdict
) -> None:
    assert classify(Evidence(network_s, probe_s, slot_s, isolated, lease), Timing()) is verdict


ages = st.none() | st.floats(min_value=0, max_value=1e6)


@given(st.floats(min_value=0, max_value=1e6), ages, ages, st.booleans(), st.booleans())
def test_dead_needs_every_sign_silent(
    network_s: float, probe_s: float | None, slot_s: float | None, isolated: bool, lease: bool
) -> None:
    timing = Timing()
    verdict = classify(Evidence(network_s, probe_s, slot_s, isolated, lease), timing)
    silent = (
        network_s >= timing.dead_s
        and (probe_s is None or probe_s >= timing.probe_fresh_s)
        and (slot_s is None or slot_s >= timing.slot_stale_s)
        and not lease
    )
    assert (verdict is Verdict.DEAD) == silent
