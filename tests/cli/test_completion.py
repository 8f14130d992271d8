"""Completion: each shell gets its script, and the script's questions are answered from the table."""

import os
import subprocess

import pytest

from outlive.cli import main
from outlive.native import outlive_command


@pytest.mark.parametrize(
    ("shell", "marker"), [("bash", "complete -o"), ("zsh", "#compdef outlive"), ("fish", "complete ")]
)
def test_each_shell_gets_its_script(capsys: pytest.CaptureFixture[str], shell: str, marker: str) -> None:
    assert main.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert marker in script
    assert "_OUTLIVE_COMPLETE" in script


def test_another_shell_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


def completed(words: str) -> list[str]:
    """Return what bash would offer after these words."""
    count = len(words.split(" ")) - 1
    asked = {**os.environ, "_OUTLIVE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    told = subprocess.run(outlive_command(), env=asked, capture_output=True, text=True, timeout=60)
    return [line.split(",", 1)[1] for line in told.stdout.splitlines()]


def test_commands_are_completed_even_where_files_are_missing() -> None:
    assert completed("outlive sta") == ["status", "start"] or completed("outlive sta") == ["start", "status"]
    assert "migrate" in completed("outlive ")


def test_words_of_a_command_are_completed() -> None:
    assert completed("outlive completion ") == ["bash", "zsh", "fish"]
    assert "--quick" in completed("outlive test --q")
    assert completed("outlive vm ") == ["check", "create", "import", "pause", "reset", "unpause"]
    assert completed("outlive vm create --rep") == ["--replica-site"]
