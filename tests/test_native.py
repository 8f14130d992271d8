"""Our native programs are found beside the interpreter first, then on PATH, and missed in words."""

import subprocess
import sys
from pathlib import Path

import pytest

from outlive import __version__, native
from outlive.errors import Failed


def program(folder: Path, name: str = "outlive-guard", mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose interpreter has nothing beside it; returns the folder on its PATH."""
    monkeypatch.delenv("OUTLIVE_NATIVE_DIR", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "path"


def test_beside_the_interpreter_comes_before_path(elsewhere: Path, tmp_path: Path) -> None:
    program(elsewhere)
    assert native.find("outlive-guard") == elsewhere / "outlive-guard"
    beside = program(tmp_path / "bin")
    assert native.find("outlive-guard") == beside


def test_a_file_that_may_not_be_run_is_not_our_program(elsewhere: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", mode=0o644)
    with pytest.raises(Failed) as caught:
        native.find("outlive-guard")
    assert caught.value.id == "native.missing"
    assert str(tmp_path / "bin") in caught.value.cause
    assert caught.value.remedy


def test_a_special_build_counts_alone(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(elsewhere)
    monkeypatch.setenv("OUTLIVE_NATIVE_DIR", str(tmp_path / "special"))
    with pytest.raises(Failed):
        native.find("outlive-guard")
    special = program(tmp_path / "special")
    assert native.find("outlive-guard") == special


def test_our_own_command_runs_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('imported from the current folder')\n")
    told = subprocess.run(
        native.outlive_command("--version"), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == f"outlive {__version__}\n"


def test_programs_for_guests_are_no_commands_and_are_found_below_the_environment(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(Failed) as caught:
        native.find_guest_program("outlive-guest-server")
    assert caught.value.id == "native.missing"
    (tmp_path / "outlive").mkdir()
    of_a_wheel = program(tmp_path / "outlive" / "guest", "outlive-guest-server")
    assert native.find_guest_program("outlive-guest-server") == of_a_wheel
    (tmp_path / "share" / "outlive").mkdir(parents=True)
    shared = program(tmp_path / "share" / "outlive" / "guest", "outlive-guest-server")
    assert native.find_guest_program("outlive-guest-server") == shared
    monkeypatch.setenv("OUTLIVE_NATIVE_DIR", str(tmp_path / "special"))
    with pytest.raises(Failed, match="a part of Outlive"):
        native.find_guest_program("outlive-guest-server")
