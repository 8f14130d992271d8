"""The edge: whatever a command ends with becomes one exit code, told once, to a person or to a program."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from outlive.cli import main, table
from outlive.errors import ClusterUnreachable, Degraded, Failed, OutliveError, RefusedForSafety, UsageInvalid
from outlive.native import outlive_command

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `outlive status` with a body of the test's own as that command."""

    def run(body: Callable[[], object], *words: str) -> int:
        @click.command()
        @click.option("--json", is_flag=True)
        def command(json: bool) -> object:
            return body()

        monkeypatch.setattr(table, "load", lambda entry: command)
        return main.run(["status", *words])

    return run


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> object:
        raise error

    return body


@pytest.mark.parametrize("kind", [Failed, UsageInvalid, RefusedForSafety, ClusterUnreachable, Degraded])
def test_an_error_gives_its_exit_code_and_is_told_once(
    run: Run, capsys: pytest.CaptureFixture[str], kind: type[OutliveError]
) -> None:
    code = run(raising(kind("The disk is full.", cause="no space left", remedy="free some")))
    told = capsys.readouterr()
    assert code == kind.exit_code
    assert told.err == "The disk is full.\n  Why: no space left\n  Do:  free some\n"
    assert told.out == ""


def test_json_gives_the_error_as_a_problem_on_the_last_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    error = RefusedForSafety("Host a may still run it.", id="claim.not-ended")
    assert run(raising(error), "--json") == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == error.problem()


def test_an_error_of_a_task_group_is_told_as_itself(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    inner = ExceptionGroup("tasks", [ValueError("cancelled"), ClusterUnreachable("No agent answers.")])
    assert run(raising(ExceptionGroup("outer", [inner]))) == 4
    assert capsys.readouterr().err == "No agent answers.\n"


def test_an_unforeseen_exception_is_our_mistake_with_its_traceback(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(KeyError("slot")), "--json") == 1
    told = capsys.readouterr()
    assert "Traceback" in told.err
    assert json.loads(told.out)["id"] == "internal"


def test_interruption_ends_with_130(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (5, 5)])
def test_a_command_may_return_its_exit_code(run: Run, returned: object, code: int) -> None:
    assert run(lambda: returned) == code


def test_a_wrong_option_is_usage(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: None, "--jsn") == 2
    told = capsys.readouterr().err
    assert "--jsn" in told
    assert "  Do:  see outlive status --help" in told


@pytest.mark.parametrize(
    ("word", "told"), [("statsu", "Did you mean `status`?"), ("xyzzy", "There is no command `xyzzy`.")]
)
def test_a_wrong_command_is_usage_and_the_near_one_is_named(
    capsys: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    assert main.run([word]) == 2
    assert told in capsys.readouterr().err


def test_json_after_a_double_dash_belongs_to_the_protected_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["xyzzy", "--", "tool", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_colour_only_for_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from outlive.cli.output import may_colour

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert may_colour(sys.stderr)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not may_colour(sys.stderr)


@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"]])
def test_a_reader_that_goes_away_is_told_nothing(words: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(outlive_command(*words), stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write_end)
    assert ended.returncode == 1
    assert ended.stderr == ""


def test_interrupting_the_real_process_prints_no_traceback(tmp_path: Path) -> None:
    waiting = tmp_path / "waiting.py"
    waiting.write_text(
        "import sys, time, click\n"
        "from outlive.cli import main, table\n"
        "@click.command()\n"
        "def command():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "table.load = lambda entry: command\n"
        "sys.exit(main.run(['status']))\n"
    )
    with subprocess.Popen(
        [sys.executable, str(waiting)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
