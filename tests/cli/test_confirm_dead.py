"""Who says that a host is off is warned with what would run twice, and asked for its name once more."""

import os
import pty
import subprocess
from collections.abc import Iterator

import pytest

from outlive.cli import main
from outlive.native import outlive_command

from .pretended_agent import Answer, Asked, PretendedAgent, pretended, problem


def takes(asked: Asked) -> Answer:
    told = {"host": "b", "changed": True, "workloads": ["db", "web"]}
    return 200, told if "dry_run" in asked.path else {**told, "event": "e", "revision": 7}


@pytest.fixture
def agent() -> Iterator[PretendedAgent]:
    with pretended(takes) as made:
        yield made


def said(agent: PretendedAgent) -> list[Asked]:
    return [each for each in agent.of("POST") if "dry_run" not in each.path]


def test_with_yes_the_word_is_given_with_ones_name_after_the_warning(
    agent: PretendedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["confirm-dead", "b", "--yes", "--socket", agent.socket]) == 0
    [given] = said(agent)
    assert given.path == "/v1/hosts/b/dead"
    assert given.json["host"] == "b"
    assert given.json["by"]
    assert "these will run twice and may lose data: db, web" in capsys.readouterr().err


def test_the_warning_names_the_machine_before_where_another_has_the_hosts_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"host": "b", "before": True, "changed": True, "workloads": ["web"]}
    with pretended(lambda _: (200, told)) as agent:
        assert main.run(["confirm-dead", "b", "--yes", "--socket", agent.socket]) == 0
    assert "If the machine that was b before is not off" in capsys.readouterr().err


def test_without_a_terminal_nobody_is_asked_and_nothing_is_said(agent: PretendedAgent) -> None:
    words = outlive_command("confirm-dead", "b", "--socket", agent.socket)
    ran = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 3
    assert "--yes" in ran.stderr
    assert said(agent) == []


@pytest.mark.parametrize(("typed", "code", "words"), [("b\n", 0, 1), ("a\n", 3, 0), ("\n", 3, 0)])
def test_at_a_terminal_the_hosts_name_is_typed_once_more(
    agent: PretendedAgent, typed: str, code: int, words: int
) -> None:
    ours, theirs = pty.openpty()
    try:
        command = outlive_command("confirm-dead", "b", "--socket", agent.socket)
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            os.write(ours, typed.encode())
            process.communicate(timeout=60)
        assert process.returncode == code
    finally:
        os.close(ours)
        os.close(theirs)
    assert len(said(agent)) == words


def test_a_dry_run_says_what_would_be_and_nothing_more(
    agent: PretendedAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["confirm-dead", "b", "--dry-run", "--socket", agent.socket]) == 0
    assert said(agent) == []
    assert "would run twice: db, web" in capsys.readouterr().err


def test_a_refusal_comes_before_any_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pretended(lambda _: problem(409, "refused", "b is not taken for dead.", 3)) as agent:
        assert main.run(["confirm-dead", "b", "--socket", agent.socket]) == 3
    assert "not taken for dead" in capsys.readouterr().err
