"""A bench tells what was measured and what was not, and fails only for what no machine may do, however slow it is."""

from dataclasses import replace

import pytest

from outlive.cli.bench import show
from outlive.cli.output import stdout_console
from outlive.lab.bench_cuts import put_together, sentence
from outlive.lab.bench_values import (
    BUSY,
    IDLE,
    Bench,
    Bulk,
    Cpu,
    Epochs,
    PowerCut,
    Run,
    Second,
    Window,
    over,
    reach,
    told,
)
from outlive.lab.guests.history import Answer, History, Seen, Unanswered

CUT = PowerCut("a", "b", 155.0, 160.0, 12.0, 180.0, (170.0, 190.0, 180.0), 900, 0, 0, 0, 0)


def window(level: str, clients: int, rtt_ms: float | None, requests_per_s: float | None, *, hot: bool) -> Window:
    epochs = Epochs(1.0, 2.0, 40.0, 10.0, 1e6) if hot else None
    return Window(level, clients, rtt_ms, rtt_ms, requests_per_s, epochs, Cpu(0.1, 0.0, 0.2, 0.1) if hot else Cpu(0.1))


def run(*, hot: bool) -> Run:
    windows = [
        window(level.name, clients, 2.0 if clients else None, 500.0 if clients else None, hot=hot)
        for level in (IDLE, BUSY)
        for clients in (0, 1, 8, 32)
    ]
    return Run(tuple(windows), (Bulk(IDLE.name, 1e8, 2e8),))


def bench(*cuts: PowerCut) -> Bench:
    return Bench(run(hot=False), run(hot=True), cuts)


def test_several_seconds_are_one_and_the_first_is_only_where_counting_begins() -> None:
    seconds = [
        Second(10.0, 100, 90.0, 99.0, 9000, 1000),
        Second(11.0, 120, 1.0, 3.0, 50, 3000),
        Second(12.0, 150, 3.0, 5.0, 70, 9000),
    ]
    assert over(seconds) == Epochs(2.0, 4.0, 60.0, 25.0, 4000.0)
    assert over(seconds[:1]) is None


def test_all_that_was_reached_holds() -> None:
    rows = reach(bench(CUT))
    assert len(rows) == 12
    assert all(row["holds"] for row in rows), rows


def test_what_was_not_measured_does_not_hold_and_is_no_failure() -> None:
    nothing = Bench(Run((), ()), Run((), ()), ())
    assert not any(row["holds"] for row in reach(nothing))
    assert all(row["value"] is None for row in reach(nothing))
    assert nothing.clean


def test_a_slow_machine_is_told_and_does_not_fail() -> None:
    slow = bench(replace(CUT, first_reply_ms=(5000.0,)))
    assert [row["what"] for row in reach(slow) if not row["holds"]] == ["first reply after a power cut, median"]
    assert slow.clean


@pytest.mark.parametrize(
    "broken", [replace(CUT, lost=1), replace(CUT, duplicated=1), replace(CUT, broken=1), replace(CUT, double=1)]
)
def test_whatever_breaks_a_promise_fails(broken: PowerCut) -> None:
    assert not bench(CUT, broken).clean


def test_what_goes_wrong_without_any_power_cut_fails_too() -> None:
    found = bench(CUT)
    windows = (replace(found.hot.windows[0], wrong=1), *found.hot.windows[1:])
    assert not replace(found, hot=replace(found.hot, windows=windows)).clean


def test_a_connection_without_an_answer_leaves_no_median() -> None:
    assert replace(CUT, first_reply_ms=(170.0, None)).first_reply_median_ms is None
    assert CUT.first_reply_median_ms == 180.0


def test_a_power_cut_is_put_together_from_events_and_records() -> None:
    events = [
        {"kind": "workload.running", "unix_ms": 1_000_180, "host": "c"},
        {"kind": "workload.taken_over", "unix_ms": 1_000_160, "host": "c"},
        {"kind": "primary.lost", "unix_ms": 1_000_155, "host": "c"},
        {"kind": "machine.adopted", "unix_ms": 1_000_175, "host": "c", "adopt_ms": 12.5},
    ]
    answers = (Answer(0, 1, 0, 10, 1), Answer(0, 2, 20, 30, 1))
    seen = (Seen(0, 0, 0), Seen(0, 1, 40))
    history = History(frozenset([0]), answers, (Unanswered(0, 3, 40),), seen=seen, ended_ns=50)
    cut = put_together("a", "b", [170.0], events, [history], 1000.0, 2)
    times = (cut.detected_ms, cut.won_ms, cut.adopt_ms, cut.running_ms)
    assert times == (155.0, 160.0, 12.5, 180.0)
    assert (cut.successor, cut.acknowledged, cut.lost, cut.broken, cut.double) == ("c", 2, 1, 1, 2)
    assert "A PROMISE WAS BROKEN" in sentence(cut)
    assert sentence(CUT) == "a to b, first reply after 180 ms, nothing lost"


def test_the_object_has_each_load_beside_its_control() -> None:
    found = told(bench(CUT, replace(CUT, detected_ms=None)))
    assert len(found["rows"]) == 8
    row = next(each for each in found["rows"] if each["clients"] == 32)
    assert row["unprotected"]["epochs"] is None
    assert row["hot"]["epochs"]["pause_ms"] == 1.0
    assert row["requests_ratio"] == 1.0
    assert found["takeover"]["cuts"] == 2
    assert (found["takeover"]["detected_ms"], found["takeover"]["first_reply_ms_median"]) == (155.0, 180.0)


def test_a_bench_of_which_much_is_unknown_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    windows = tuple(replace(each, epochs=None) for each in run(hot=True).windows)
    half = Bench(
        Run((), ()), Run(windows, (Bulk(IDLE.name, 1e6, 1e6),)), (replace(CUT, detected_ms=None, lost=1),), "it is slow"
    )
    show(half, reach(half), stdout_console())
    shown = capsys.readouterr().out
    assert "Not all power cuts were made: it is slow" in shown
    assert "A promise was broken." in shown
    assert told(half)["unfinished"] == "it is slow"
