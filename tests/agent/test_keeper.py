"""The keeper starts its agent again when it crashes, and lets it end when it should."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outlive.agent import keeper

CHILD_WITHIN_S = 60.0


@contextmanager
def kept(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A keeper of a shell program that runs in `folder`."""
    code = f"import sys; from outlive.agent import keeper; sys.exit(keeper.keep(['/bin/sh', '-c', {script!r}]))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        for path in folder.glob("pid.*"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue


def appeared(path: Path) -> None:
    until = time.monotonic() + CHILD_WITHIN_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.02)


def test_a_crashed_agent_is_started_again_until_it_ends_well(tmp_path: Path) -> None:
    script = "echo x >> starts; [ $(wc -l < starts) -ge 3 ] && exit 0; kill -9 $$"
    with kept(script, tmp_path) as process:
        assert process.wait(CHILD_WITHIN_S) == 0
    assert (tmp_path / "starts").read_text().count("x") == 3


def test_an_agent_that_was_refused_is_not_started_again(tmp_path: Path) -> None:
    with kept("echo x >> starts; exit 3", tmp_path) as process:
        assert process.wait(CHILD_WITHIN_S) == 3
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_signal_to_end_reaches_the_agent_and_ends_the_keeper(tmp_path: Path) -> None:
    script = "trap 'echo asked > asked; exit 0' TERM; echo $$ > pid.1; while :; do sleep 0.05; done"
    with kept(script, tmp_path) as process:
        appeared(tmp_path / "pid.1")
        process.terminate()
        assert process.wait(CHILD_WITHIN_S) == 0
    assert (tmp_path / "asked").exists()


def test_the_agent_goes_on_when_its_keeper_is_killed(tmp_path: Path) -> None:
    with kept("echo $$ > pid.1; exec sleep 60", tmp_path) as process:
        appeared(tmp_path / "pid.1")
        process.kill()
        process.wait()
        os.kill(int((tmp_path / "pid.1").read_text()), 0)


def test_the_first_restart_is_at_once_and_later_ones_wait_longer_up_to_a_bound() -> None:
    pauses = [keeper.pause_s(deaths) for deaths in range(1, 10)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == max(keeper.PAUSES_S)
