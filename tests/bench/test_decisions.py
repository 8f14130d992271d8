"""The bench of decisions loses a third of its hosts and sees everything placed, at every size."""

import json

import pytest
from click.testing import CliRunner

from outlive.bench import decisions
from outlive.bench.decisions import Row, Shortage, sizes, told
from outlive.cli.bench import command


def test_all_that_ran_in_a_lost_site_is_placed_elsewhere_and_nothing_else_moves() -> None:
    rows, shortages = decisions.play(30, 90, lambda _: None)
    assert [(row.hosts, row.workloads, row.moved, row.left) for row in rows] == [
        (3, 9, 3, 0),
        (9, 27, 9, 0),
        (30, 90, 30, 0),
    ]
    for row in rows:
        # Not before the claims have certainly ended; what is placed at one tick is bounded.
        assert row.placed_s >= 4.2
        assert row.each_ms > 0
        assert row.worst_ms > 0
    assert [(each.waited, each.left) for each in shortages] == [(3, 0), (9, 0), (30, 0)]
    assert all(each.longest_text < 300 for each in shortages)


@pytest.mark.parametrize(
    ("hosts", "workloads", "expected"),
    [(1000, 10000, ((100, 1000), (300, 3000), (1000, 10000))), (3, 1, ((3, 1),))],
)
def test_sizes_grow_to_the_one_that_was_asked_for(
    hosts: int, workloads: int, expected: tuple[tuple[int, int], ...]
) -> None:
    assert sizes(hosts, workloads) == expected


def test_the_command_fails_when_something_is_left_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(*_: object) -> tuple[tuple[Row, ...], tuple[Shortage, ...]]:
        rows = Row(100, 1000, 333, 0, 1.5, 10.0, 90.0, 4.8), Row(300, 3000, 999, 1, 3.0, 40.0, 200.0, 5.8)
        return rows, (Shortage(100, 1000, 333, 0, 40.0, 2.0, 30.0, 200),)

    monkeypatch.setattr(decisions, "play", played)
    answer = CliRunner().invoke(command, ["decisions", "--json"], standalone_mode=False)
    assert answer.return_value == 1
    object_ = json.loads(answer.stdout.splitlines()[-1])
    assert [row["growth"] for row in object_["rows"]] == [1.0, 2.0]
    assert not object_["all_placed"]
    assert object_["no_room"][0]["waited"] == 333
    assert told(played()[0][:1], played()[1])["all_placed"]
