"""The bench of machines measures everything that it has columns for, in a lab of its own, and loses nothing."""

import pytest

from outlive.lab import bench_machines
from outlive.lab.bench_measure import Effort
from outlive.lab.bench_values import IDLE, told
from outlive.lab.lab import Lab

SHORT = Effort(window_s=3.5, bulk_bytes=1 << 20, levels=(IDLE,))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_figure_is_measured_and_nothing_is_lost(lab: Lab) -> None:
    bench = bench_machines.play(lab, SHORT, 2, print)
    assert bench.clean
    assert not bench.unfinished
    assert len(bench.cuts) == 2
    for alone, hot in bench.pairs():
        assert alone is not None
        assert (alone.wrong, hot.wrong) == (0, 0)
        assert hot.epochs is not None
        assert None not in (hot.cpu.primary_emulator, hot.cpu.standby_emulator)
        assert None not in (hot.cpu.primary_comm, hot.cpu.standby_comm, alone.cpu.primary_emulator)
        assert (hot.requests_per_s is None) == (hot.clients == 0)
    for cut in bench.cuts:
        assert None not in (cut.detected_ms, cut.won_ms, cut.adopt_ms, cut.running_ms, cut.first_reply_median_ms)
    measured = {row["what"]: row["value"] for row in told(bench)["reach"]}
    assert [what for what, value in measured.items() if value is None] == [
        "pause, 4k pages, median",
        "pause, 4k pages, p99 to median",
    ]
