"""A story's moments are the first of their kind, in order, counted from the power cut."""

from typing import Any

from outlive.lab.timeline import Moment, moments

TOLD = {"primary.lost": "missed", "workload.taken_over": "won"}


def event(kind: str, unix_ms: int, text: str = "") -> dict[str, Any]:
    return {"kind": kind, "unix_ms": unix_ms, "text": text}


def test_the_first_of_each_kind_is_told_in_order_and_others_are_not() -> None:
    events = [
        event("workload.taken_over", 100_750, "by b"),
        event("primary.lost", 100_250, "silence"),
        event("host.joined", 100_100),
        event("workload.taken_over", 107_000, "again"),
    ]
    assert moments(events, 100.0, TOLD) == [Moment(0.25, "missed", "silence"), Moment(0.75, "won", "by b")]


def test_what_came_before_the_cut_is_said_to_have() -> None:
    assert moments([event("primary.lost", 99_500)], 100.0, TOLD) == [Moment(-0.5, "missed")]


def test_nothing_tells_nothing() -> None:
    assert moments([], 100.0, TOLD) == []
