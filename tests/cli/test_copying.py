"""A copy is told where it gets on: each tenth of the way, with its rate, from where this copy began."""

import sys
from typing import Any

import pytest

from outlive.cli import moving
from outlive.cli.copying import CopyLine

MIB = 1 << 20


def test_each_tenth_is_told_once_with_the_rate_since_the_copy_began(capsys: pytest.CaptureFixture[str]) -> None:
    line = CopyLine()
    line.begin(10.0, 20 * MIB)
    for seconds, done in enumerate((20, 24, 40, 41, 100)):
        line.tell(done * MIB, 100 * MIB, 10.0 + seconds)
    line.end()
    assert capsys.readouterr().err.splitlines() == [
        "  20 % (20 of 100 MiB, 0 MiB/s)",
        "  40 % (40 of 100 MiB, 10 MiB/s, 6 s left)",
        "  100 % (100 of 100 MiB, 20 MiB/s)",
    ]


def test_on_a_terminal_it_changes_in_place_and_what_follows_begins_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = CopyLine()
    line.begin(0.0, 0, "disks")
    line.tell(0, 4 * MIB, 0.0)
    line.tell(MIB, 4 * MIB, 1.0)
    line.end()
    line.end()
    told = capsys.readouterr().err
    assert told == "\r\x1b[K  disks: 0 % (0 of 4 MiB, 0 MiB/s)\r\x1b[K  disks: 25 % (1 of 4 MiB, 1 MiB/s, 3 s left)\n"


class Moving:
    """An agent whose move gets on each time that it is looked at."""

    def __init__(self, *moves: dict[str, Any]) -> None:
        self.moves = list(moves)

    def get(self, path: str) -> dict[str, Any]:
        if path.startswith("/v1/operations/"):
            return {"state": "running" if self.moves else "done"}
        return {"machine": {"move": self.moves.pop(0)}}


def test_each_phase_of_a_move_is_a_copy_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    agent: Any = Moving(
        {},
        {"phase": "disks", "done_bytes": 0, "total_bytes": 8 * MIB},
        {"phase": "disks", "done_bytes": 8 * MIB, "total_bytes": 8 * MIB},
        {"phase": "memory", "done_bytes": MIB, "total_bytes": 2 * MIB},
    )
    assert moving.until_moved(agent, "db", "migrate-1", 60.0) == {"state": "done"}
    words = [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert words == ["  disks: 0 %", "  disks: 100 %", "  memory: 50 %"]
