"""Killed at any step, nothing is half there, and the next try leaves just what one leaves that was never killed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("scene", "least"), [("bring", 30), ("install", 40), ("uninstall", 20), ("take-away", 6)])
def test_a_kill_at_any_step_does_no_harm(tmp_path: Path, scene: str, least: int) -> None:
    words = [sys.executable, str(Path(__file__).with_name("dying.py")), scene, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) >= least
