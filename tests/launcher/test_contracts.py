"""The import contracts, each proven able to fail: one forbidden import is added to a copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REAL, copy_checkout

LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def broken_contracts(folder: Path) -> str:
    """Return what import-linter says of the copy in a folder."""
    ended = subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": "src", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ended.stdout if ended.returncode else ""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("contracts") / "checkout", ["pyproject.toml", "src"])


def test_the_project_keeps_its_contracts(copy: Path) -> None:
    assert broken_contracts(copy) == ""


@pytest.mark.parametrize(
    ("room", "statement", "contract"),
    [
        ("cluster", "import time", "decisions read no clock"),
        ("cluster", "import random", "decisions read no clock"),
        ("cluster", "from pathlib import Path", "decisions read no clock"),
        ("cluster", "from outlive import native", "decisions read no clock"),
        ("cluster", "from outlive import wire", "imports point one way"),
        ("wire", "from outlive import agent", "imports point one way"),
        ("store", "from outlive import datastore", "imports point one way"),
        ("depot", "from outlive import wire", "imports point one way"),
        ("sim", "from outlive import store", "the simulator runs the decisions"),
        ("sim", "from outlive import client", "the simulator runs the decisions"),
        ("cli", "from outlive import store", "command line and lab reach rooms"),
        ("lab", "from outlive import datastore", "command line and lab reach rooms"),
        ("client", "from outlive import api", "the client knows the agent by HTTP"),
        ("api", "from outlive import store", "imports point one way"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, room: str, statement: str, contract: str) -> None:
    forbidden = copy / "src" / "outlive" / room / "forbidden.py"
    forbidden.write_text(f"{statement}\n")
    told = broken_contracts(copy)
    forbidden.unlink()
    assert any(line.startswith(contract) and "BROKEN" in line for line in told.splitlines()), told


def test_a_room_that_no_contract_names_is_found(copy: Path) -> None:
    room = copy / "src" / "outlive" / "attic"
    room.mkdir()
    (room / "__init__.py").touch()
    told = broken_contracts(copy)
    shutil.rmtree(room)
    assert "attic" in told


def test_every_room_is_a_package() -> None:
    rooms = [path for path in (REAL / "src" / "outlive").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert [room.name for room in rooms if not (room / "__init__.py").exists()] == []
