"""Help: every command and every command of the lab says what it is for, and it comes quickly enough to be asked for."""

import subprocess
import time

import click
import pytest

from outlive.cli import main, table
from outlive.native import outlive_command

DECIDING = ("apply", "run", "start", "stop", "rm", "migrate", "failover", "checkpoint", "resume")


def every_command() -> list[list[str]]:
    found = []
    for entry in table.COMMANDS.values():
        found.append([entry.name])
        command = table.load(entry)
        if isinstance(command, click.Group):
            found += [[entry.name, name] for name in command.commands]
    return found


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_commands_help_says_what_it_does_and_what_it_takes(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*words, "--help"]) == 0
    told = capsys.readouterr()
    usage, _, rest = told.out.partition("\n")
    assert usage.startswith(f"Usage: outlive {' '.join(words)}")
    assert rest.strip().partition("\n\n")[0].split("  ")[0]
    assert all(len(line) <= 112 for line in told.out.splitlines())
    assert told.err == ""


def test_every_command_that_talks_to_a_cluster_can_be_told_which_and_answers_in_json() -> None:
    looking = ("status", "ps", "logs", "events", "why", "screenshot", "checkpoints", "verify")
    for name in (*DECIDING, *looking):
        command = table.load(table.COMMANDS[name])
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--socket", "--lab", "--json"} <= options, name


def test_every_command_that_decides_can_be_tried_out() -> None:
    for name in DECIDING:
        options = {option for parameter in table.load(table.COMMANDS[name]).params for option in parameter.opts}
        assert "--dry-run" in options, name


def test_the_time_that_help_takes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(outlive_command("--help"), check=True, capture_output=True, timeout=60)
        took.append(time.perf_counter() - began)
    with capsys.disabled():
        print(f"\n`outlive --help` took {min(took) * 1000:.0f} ms at best of 3 (to reach: 150 ms)")
