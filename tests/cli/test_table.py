"""The table of commands: cheap to list, complete, and honest about what is missing."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from outlive.cli import main, table
from outlive.errors import Failed

PLANNED = (
    "up down status apply run stop start rm ps logs events why failover migrate lab simulate demo test doctor "
    "completion agent vm console screenshot checkpoint checkpoints resume verify network bench policy confirm-dead "
    "package what-if drain freeze unfreeze maintenance"
)
PRESENT = [entry for entry in table.COMMANDS.values() if find_spec(entry.module)]
DEAR = ["asyncio", "cryptography", "httpx", "msgspec", "pyroute2", "rich", "starlette", "structlog", "subprocess"]


def test_the_table_names_every_command() -> None:
    assert set(table.COMMANDS) == set(PLANNED.split())


def test_help_names_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    with_option = capsys.readouterr().out
    assert main.run([]) == 0
    assert capsys.readouterr().out == with_option
    for entry in table.COMMANDS.values():
        assert any(line.split() == [entry.name, *entry.summary.split()] for line in with_option.splitlines()), (
            entry.name
        )


def test_help_imports_no_command_and_nothing_dear() -> None:
    asked = (
        "import sys, json, io, contextlib\n"
        "from outlive.cli.main import run\n"
        "with contextlib.redirect_stdout(io.StringIO()): run(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    imported = set(json.loads(told.stdout))
    assert imported & {entry.module for entry in table.COMMANDS.values()} == set()
    assert imported & set(DEAR) == set()


@pytest.mark.parametrize("entry", PRESENT, ids=lambda entry: entry.name)
def test_a_command_loads_and_helps(entry: table.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(table.load(entry), click.Command)
    assert main.run([entry.name, "--help"]) == 0
    assert f"outlive {entry.name}" in capsys.readouterr().out


def test_every_command_file_is_in_the_table() -> None:
    folder = Path(main.__file__).parent
    with_command = {
        path.stem.replace("_", "-")
        for path in folder.glob("*.py")
        if "\n@click." in (text := path.read_text()) and "\ndef command(" in text
    }
    assert with_command <= set(table.COMMANDS)


def test_a_command_without_its_file_is_a_broken_installation() -> None:
    with pytest.raises(Failed) as caught:
        table.load(table.Entry("nowhere", "Other", "Is not there."))
    assert caught.value.id == "command.missing"


def test_a_library_missing_inside_a_command_is_not_a_missing_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> object:
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setattr(table, "import_module", import_module)
    with pytest.raises(ModuleNotFoundError):
        table.load(table.COMMANDS["completion"])
