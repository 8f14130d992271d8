"""A folder has one agent at a time, and is free again with its process, however that ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outlive.agent.exclusive import AgentRunning, FolderUnusable, alone_in

HOLDING = "import sys, time; from pathlib import Path; from outlive.agent.exclusive import alone_in\n" + (
    "with alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
)


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path / "data", tmp_path / "run"),
        pytest.raises(AgentRunning, match=str(os.getpid())),
        alone_in(tmp_path / "other", tmp_path / "run"),
    ):
        pytest.fail("both have it")
    with alone_in(tmp_path / "other", tmp_path / "run", tmp_path / "run"):
        pass


def test_a_folder_is_free_once_its_holder_was_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AgentRunning), alone_in(tmp_path):
            pytest.fail("both have it")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with alone_in(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable) as caught, alone_in(tmp_path / "file" / "data"):
        pytest.fail("there is no such folder")
    assert caught.value.remedy
