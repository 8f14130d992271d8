"""The launcher on a copy of this checkout: set up, started again, killed, raced and moved."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from outlive import __version__

from .conftest import Checkout

TOLD = f"outlive {__version__}\n"


def is_quiet(checkout: Checkout) -> bool:
    """Tell whether a start does nothing but become the command line."""
    ended = checkout.run("--version")
    return (ended.code, ended.stdout, ended.stderr) == (0, TOLD, "")


def test_second_start_finds_everything_done(checkout: Checkout) -> None:
    assert is_quiet(checkout)


def test_its_programs_are_beside_its_python(checkout: Checkout) -> None:
    built = {path.name for path in (checkout.root / ".venv" / "bin").glob("outlive-*")}
    assert built >= {"outlive-guard", "outlive-runner", "outlive-runlock"}


def test_a_symlink_from_another_folder_finds_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "anywhere"
    link.symlink_to(checkout.launcher)
    ended = checkout.run("--version", cwd=tmp_path, program=link)
    assert (ended.code, ended.stdout, ended.stderr) == (0, TOLD, "")


def test_modules_in_the_callers_folder_are_not_imported(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('imported from the current folder')\n")
    ended = checkout.run("--version", cwd=tmp_path)
    assert (ended.code, ended.stdout) == (0, TOLD)


def test_arguments_and_exit_code_pass_through_unchanged(checkout: Checkout) -> None:
    ended = checkout.run("no such  word", "*", "")
    assert ended.code == 2
    assert "`no such  word`" in ended.stderr


def test_a_changed_native_source_is_built_and_nothing_else(checkout: Checkout) -> None:
    source = checkout.root / "native" / "meson.build"
    source.write_text(source.read_text() + "\n")
    ended = checkout.run("--version")
    assert ended.code == 0
    steps = [line.split()[:2] for line in ended.stderr.splitlines() if line.startswith("  ")]
    assert steps == [["native", "programs"]]
    assert is_quiet(checkout)


def test_an_untouched_copy_of_the_files_builds_nothing_again(checkout: Checkout) -> None:
    for path in (checkout.root / "native").iterdir():
        path.touch()
    ended = checkout.run("--version")
    assert "native programs" not in ended.stderr
    assert is_quiet(checkout)


def test_killed_at_any_moment_the_next_start_heals(checkout: Checkout) -> None:
    marks = ["outlive-ready", "outlive-environment", "outlive-native"]
    for delay_s in (0.05, 0.3, 0.6, 0.9, 1.2):
        for mark in marks:
            (checkout.root / ".venv" / mark).unlink(missing_ok=True)
        with checkout.start("--version") as process:
            time.sleep(delay_s)
            os.killpg(process.pid, signal.SIGKILL)
    ended = checkout.run("--version")
    assert (ended.code, ended.stdout) == (0, TOLD), ended.stderr
    assert is_quiet(checkout)
    python = checkout.root / ".venv" / "bin" / "python"
    subprocess.run([python, "-c", "import click, cryptography, httpx, mypy, pytest, rich"], check=True, timeout=60)


def test_two_at_once_set_up_once_and_the_second_says_that_it_waits(checkout: Checkout) -> None:
    for mark in ("outlive-ready", "outlive-native"):
        (checkout.root / ".venv" / mark).unlink()
    first, second = checkout.start("--version"), checkout.start("--version")
    ends = [process.communicate(timeout=100) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert [stdout for stdout, _ in ends] == [TOLD, TOLD]
    told = "".join(stderr for _, stderr in ends)
    assert told.count("Setting up Outlive") == 1
    assert "Another ./outlive is setting up here" in told


def test_interrupted_set_up_ends_with_130_and_says_so(checkout: Checkout) -> None:
    for mark in ("outlive-ready", "outlive-native"):
        (checkout.root / ".venv" / mark).unlink()
    with checkout.start("--version") as process:
        assert process.stderr is not None
        assert "Setting up" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "goes on from here" in stderr
    assert checkout.run("--version").code == 0


# The last one: it moves the checkout that the others use.
def test_a_moved_checkout_is_set_up_again_where_it_is_now(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    monkeypatch.setattr(checkout, "root", moved)
    ended = checkout.run("--version")
    assert (ended.code, ended.stdout) == (0, TOLD), ended.stderr
    assert (moved / ".venv" / "bin" / "pytest").read_text().splitlines()[0] == f"#!{moved}/.venv/bin/python"
    assert is_quiet(checkout)
