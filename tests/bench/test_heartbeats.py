"""The bench of receiving heartbeats measures what it says, and sees who fell silent, however slow the machine is."""

import json

import pytest
from click.testing import CliRunner

from outlive.bench import heartbeats
from outlive.bench.heartbeats import Row, reach, sizes, told
from outlive.cli.bench import command

ROW = Row(100, 10, 500.0, 500, 499, 0, 0.02, 2.0, 1.0, (1.0, 1.1), (4.0, 4.1), 0, 0.01)


def test_silent_hosts_are_suspected_then_dead_while_the_others_stay_alive() -> None:
    (row,) = heartbeats.play(2, 3, 0.5, lambda _: None)
    assert row.accepted > 0
    assert row.repeated <= row.accepted
    assert row.dropped == 0
    assert 1.0 <= row.suspect_s[0] <= row.suspect_s[1] < row.dead_s[0]
    assert row.dead_s[0] >= 4.0
    assert row.us_each > 0
    assert row.bare_us_each > 0
    # Where the speakers themselves were held up, others may have seemed silent.
    assert row.wrong == 0 or row.late_s > 0.5


@pytest.mark.parametrize(("hosts", "expected"), [(10000, (100, 1000, 10000)), (100, (2, 10, 100)), (2, (2,))])
def test_sizes_grow_by_tens(hosts: int, expected: tuple[int, ...]) -> None:
    assert sizes(hosts) == expected


def test_what_is_to_be_reached_is_told_with_what_was_measured() -> None:
    rows = (ROW, Row(1000, 10, 4000.0, 4000, 3999, 7, 0.6, 3.0, 1.0, (1.0, 1.1), (4.0, 4.1), 2, 0.01))
    held = {each["what"]: (each["value"], each["holds"]) for each in reach(rows, 1000)}
    assert held == {
        "heartbeats accepted, 1000 hosts": (4000.0, False),
        "receiving them": (0.6, False),
        "one heartbeat, 1000 hosts to 100": (1.5, False),
        "wrong verdicts, all sizes": (2, False),
    }
    assert told(rows, 1000)["rows"][1]["to_bare"] == 3.0


def test_the_command_fails_for_a_wrong_verdict_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def played(*_: object) -> tuple[Row, ...]:
        return (ROW,)

    monkeypatch.setattr(heartbeats, "play", played)
    answer = CliRunner().invoke(command, ["heartbeat", "--hosts", "100", "--json"], standalone_mode=False)
    assert answer.return_value == 0, answer.output
    assert json.loads(answer.stdout.splitlines()[-1])["rows"][0]["hosts"] == 100
