"""Killed at any step, nothing is half there, and the next try leaves just what one leaves that was never killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from .package_scene import memory_at


@pytest.mark.parametrize(("scene", "least"), [("bring", 30), ("install", 40), ("uninstall", 20), ("take-away", 6)])
def test_a_kill_at_any_step_does_no_harm(tmp_path: Path, scene: str, least: int) -> None:
    program = Path(__file__).with_name("dying.py")
    with memory_at(tmp_path / "memory", 64 << 20) as folder:
        done = subprocess.run([sys.executable, program, scene, folder], capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) >= least
