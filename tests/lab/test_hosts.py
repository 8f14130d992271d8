"""What is seen of a host's processes is so, also in the very moment in which they are killed."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outlive.lab import hosts

ROUNDS, PROCESSES, LOOKED_S = 60, 4, 0.004


@pytest.fixture
def group() -> Iterator[Path]:
    made = hosts.control_groups() / f"outlive-{time.monotonic_ns()}"
    made.mkdir()
    yield made
    hosts.remove_empty(made)


def frozen_in(group: Path, until: ExitStack) -> "list[subprocess.Popen[bytes]]":
    found = []
    for _ in range(PROCESSES):
        process = subprocess.Popen(["sleep", "60"])
        until.callback(process.wait)
        until.callback(process.kill)
        (group / "cgroup.procs").write_text(str(process.pid))
        found.append(process)
    (group / "cgroup.freeze").write_text("1")
    while "frozen 1" not in (group / "cgroup.events").read_text():
        time.sleep(0.001)
    return found


def test_what_was_killed_while_it_was_paused_is_never_taken_for_running(group: Path) -> None:
    for _ in range(ROUNDS):
        with ExitStack() as until:
            processes = frozen_in(group, until)
            assert not any(hosts.is_dying(each.pid) for each in processes)
            (group / "cgroup.kill").write_text("1")
            end = time.monotonic() + LOOKED_S
            while time.monotonic() < end:
                assert all(hosts.is_dying(each.pid) for each in processes)
