"""A lab's fence method asks for power by an exit code, and a mistake in asking is no proof of anything."""

from pathlib import Path

import pytest

from outlive.cli.main import run


@pytest.mark.parametrize("words", [["a"], [], ["a", "b"], ["--no-such-option"], ["a", "--name", "../x"]])
def test_a_question_that_cannot_be_answered_does_not_end_with_the_code_for_off(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTLIVE_LABS", str(tmp_path))
    assert run(["lab", "power", *words]) == 1
    assert "off" not in capsys.readouterr().out
