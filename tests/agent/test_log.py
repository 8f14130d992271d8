"""What the agent says is kept in bounded files, and never stops the agent."""

import json
from pathlib import Path

import structlog

from outlive.agent.log import AgentLog, LineFile, rotated


def test_files_are_rotated_and_only_so_many_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = LineFile(path, most_bytes=100, files_kept=2)
    for number in range(100):
        file.add(b"line %03d" % number)
    file.close()
    kept = sorted(found.name for found in tmp_path.iterdir())
    assert kept[-2:] == ["lines.1", "lines.2"]
    text = b"".join(found.read_bytes() for found in (rotated(path, 2), rotated(path, 1), path) if found.exists())
    numbers = [int(line.split()[1]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 100))


def test_lines_that_cannot_be_written_are_counted_not_raised(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "missing" / "lines")
    file.add(b"lost")
    file.close()
    assert file.dropped == 1


def test_a_log_line_is_one_json_object_with_its_fields(tmp_path: Path) -> None:
    with (tmp_path / "terminal").open("w") as terminal:
        log = AgentLog(tmp_path, "a", terminal=terminal)
        structlog.get_logger().warning("guard.lost", deadline_s=1.5)
        structlog.get_logger().debug("unwanted")
        log.close()
    (line,) = (tmp_path / "agent.log").read_text().splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["host"], told["deadline_s"]) == (
        "guard.lost",
        "warning",
        "a",
        1.5,
    )
    assert "guard.lost" in (tmp_path / "terminal").read_text()
