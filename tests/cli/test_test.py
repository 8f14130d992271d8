"""`outlive test`: failures are never lost, whatever form they take, and its steps are ended cleanly."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from outlive.cli import main, test
from outlive.cli.test import WORKERS, Counts, Runner, Step, pytest_step, read_counts

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
CONFIGURATION = (
    '[tool.pytest.ini_options]\nmarkers = ["lab", "soak"]\nasyncio_default_fixture_loop_scope = "function"\n'
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the real conftest and no tests yet. A pytest that is started shuts the folder of folders for all
    other users, so it gets one of its own."""
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    return tmp_path


def python(name: str, code: str, limit_s: float = 60) -> Step:
    return Step(name, [[sys.executable, "-c", code]], limit_s)


def test_a_failing_step_shows_its_output_and_counts_as_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = Runner(tmp_path, False).run(python("lint", "print('a long line'); raise SystemExit(1)"))
    assert (result.holds, result.counts) == (False, Counts(errors=1))
    told = capfd.readouterr().err
    assert "a long line" in told
    assert "lint: FAILED after" in told


def test_a_succeeding_step_says_its_time_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = Runner(tmp_path, False).run(python("lint", "print('all is well')"))
    assert (result.holds, result.counts) == (True, Counts())
    told = capfd.readouterr()
    assert "all is well" not in told.out + told.err
    assert "lint: ok after" in told.err


def test_a_step_over_its_limit_is_interrupted_so_that_it_cleans_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import time, pathlib\ntry: time.sleep(60)\nfinally: pathlib.Path('cleaned').touch()"
    result = Runner(tmp_path, False).run(python("slow", code, limit_s=1))
    assert not result.holds
    assert (tmp_path / "cleaned").exists()
    assert "Not done within 1 s" in capfd.readouterr().err


def test_the_second_command_of_a_step_waits_for_the_first_to_succeed(tmp_path: Path) -> None:
    first, second = "raise SystemExit(1)", "import pathlib; pathlib.Path('ran').touch()"
    step = Step("two", [[sys.executable, "-c", first], [sys.executable, "-c", second]], 60)
    assert not Runner(tmp_path, False).run(step).holds
    assert not (tmp_path / "ran").exists()


TESTS = """
import pytest

def test_good(): pass
def test_bad(): assert False
@pytest.fixture
def broken(): raise ValueError
def test_broken(broken): pass
"""


def test_tests_are_counted_as_pytest_counts_them(checkout: Path) -> None:
    (checkout / "tests" / "test_some.py").write_text(TESTS)
    result = Runner(checkout, True).run(pytest_step("tests", "not soak"))
    assert (result.holds, result.counts) == (False, Counts(passed=1, failed=1, errors=1))
    assert read_counts(checkout / ".setup" / "tests.xml") == result.counts


def test_a_selection_that_finds_no_test_fails(checkout: Path) -> None:
    (checkout / "tests" / "test_some.py").write_text("def test_good(): pass\n")
    assert not Runner(checkout, True).run(pytest_step("tests", "not soak", "-k", "nothing_is_named_so")).holds


def test_tests_beside_each_other_are_counted_so_too_and_one_that_ends_its_process_is_an_error(checkout: Path) -> None:
    dying = "import os, signal\ndef test_dying(): os.kill(os.getpid(), signal.SIGKILL)\n"
    (checkout / "tests" / "test_dying.py").write_text(dying)
    (checkout / "tests" / "test_some.py").write_text(TESTS)
    result = Runner(checkout, True).run(pytest_step("tests", "not soak", *WORKERS))
    assert (result.holds, result.counts) == (False, Counts(passed=1, failed=1, errors=2))


def test_a_skipped_test_fails_the_run_of_root_beside_others_too(checkout: Path) -> None:
    skipping = "import pytest\ndef test_it(): pytest.skip('no time')\ndef test_good(): pass\n"
    (checkout / "tests" / "test_some.py").write_text(skipping)
    result = Runner(checkout, True).run(pytest_step("tests", "not soak", *WORKERS))
    assert (result.holds, result.counts.passed, result.counts.skipped) == (os.geteuid() != 0, 1, 1)


def test_a_skipped_test_fails_the_run_of_root_alone(checkout: Path) -> None:
    skipping = (
        "import os, pytest\nos.geteuid = lambda: {uid}\ndef test_it(): pytest.skip('no time')\ndef test_good(): pass\n"
    )
    for uid, holds in ((0, False), (1000, True)):
        (checkout / "tests" / "test_some.py").write_text(skipping.format(uid=uid))
        result = Runner(checkout, True).run(pytest_step("tests", "not soak"))
        assert result.holds is holds
        assert result.counts == Counts(passed=1, skipped=1, errors=0 if holds else 1)


def test_whatever_lives_in_the_labs_folder_is_marked_as_lab(checkout: Path) -> None:
    (checkout / "tests" / "lab").mkdir()
    (checkout / "tests" / "lab" / "test_power.py").write_text("def test_cut(): pass\n")
    (checkout / "tests" / "test_some.py").write_text("def test_good(): pass\n")
    runner = Runner(checkout, True)
    assert runner.run(pytest_step("lab", test.LAB, "-k", "cut")).counts == Counts(passed=1)
    assert not runner.run(pytest_step("tests", test.QUICK, "-k", "cut")).holds


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (Counts(passed=1234), "1234 passed in 61.50s"),
        (Counts(passed=3, failed=1), "1 failed, 3 passed in 61.50s"),
        (Counts(passed=3, skipped=2, errors=1), "3 passed, 2 skipped, 1 error in 61.50s"),
        (Counts(errors=2), "2 errors in 61.50s"),
        (Counts(), "no tests ran in 61.50s"),
    ],
)
def test_the_last_line_has_pytests_form(counts: Counts, line: str) -> None:
    assert counts.line(61.5) == line


def test_all_steps_run_though_one_fails_and_the_result_says_which(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (checkout / "tests" / "test_some.py").write_text("def test_good(): pass\n")
    monkeypatch.setattr(test, "find_checkout", lambda: checkout)
    steps = [python("lint", "raise SystemExit(1)"), pytest_step("tests", test.QUICK)]
    monkeypatch.setattr(test, "all_steps", lambda checkout: steps)
    assert main.run(["test", "--quick", "--json"]) == 1
    result = json.loads(capfd.readouterr().out)
    assert result["holds"] is False
    assert result["counts"] == {"passed": 1, "failed": 0, "skipped": 0, "errors": 1}
    assert [(step["step"], step["holds"]) for step in result["steps"]] == [("lint", False), ("tests", True)]
    monkeypatch.setattr(test, "all_steps", lambda checkout: steps[1:])
    assert main.run(["test", "--quick"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("== 1 passed in ")


def test_words_select_tests_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = "import os\ndef test_one(): pass\ndef test_two(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
    (checkout / "tests" / "test_some.py").write_text(alone)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(test, "find_checkout", lambda: checkout)
    monkeypatch.delattr(test, "all_steps")
    assert main.run(["test", "tests/test_some.py", "-k", "two", "-x"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("== 1 passed in ")


def test_without_root_the_lab_is_refused_in_words(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(test, "find_checkout", lambda: checkout)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main.run(["test"]) == 2
    assert "--quick" in capsys.readouterr().err


def test_an_installed_copy_says_that_it_cannot_be_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("outlive.__file__", str(tmp_path / "lib" / "site-packages" / "outlive" / "__init__.py"))
    assert main.run(["test", "--quick"]) == 2
    assert "installed copy" in capsys.readouterr().err


def test_terminating_the_command_ends_its_step_cleanly(tmp_path: Path) -> None:
    step_code = (
        "import time, pathlib\n"
        "try: pathlib.Path('began').touch(); time.sleep(60)\n"
        "finally: pathlib.Path('cleaned').touch()\n"
    )
    (tmp_path / "step.py").write_text(step_code)
    (tmp_path / "whole.py").write_text(
        "import pathlib, sys\n"
        "from outlive.cli import main, test\n"
        "here = pathlib.Path(__file__).parent\n"
        "test.find_checkout = lambda: here\n"
        "test.all_steps = lambda checkout: [test.Step('slow', [[sys.executable, 'step.py']], 60)]\n"
        "sys.exit(main.run(['test', '--quick']))\n"
    )
    with subprocess.Popen([sys.executable, str(tmp_path / "whole.py")], stderr=subprocess.PIPE) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            signal.sigtimedwait([], 0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()


SLOW = """
import pathlib, time
import pytest

@pytest.mark.parametrize("number", range(4))
def test_slow(number):
    try:
        pathlib.Path(f"began-{number}").touch()
        time.sleep(100)
    finally:
        pathlib.Path(f"cleaned-{number}").touch()
"""


@pytest.mark.soak
def test_tests_that_run_beside_each_other_are_ended_cleanly_too(checkout: Path) -> None:
    (checkout / "tests" / "test_some.py").write_text(SLOW)
    step = pytest_step("tests", "not soak", *WORKERS)
    assert not Runner(checkout, True).run(replace(step, limit_s=40.0)).holds
    began = {path.name.removeprefix("began-") for path in checkout.glob("began-*")}
    assert began
    assert began == {path.name.removeprefix("cleaned-") for path in checkout.glob("cleaned-*")}


def test_the_steps_of_this_checkout_can_be_named() -> None:
    names = [step.name for step in test.all_steps(test.find_checkout())]
    assert names[:3] == ["lint", "types", "import contracts"]
    assert "tests" in names
    assert isinstance(test.command, click.Command)
