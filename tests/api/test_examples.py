"""The examples of docs/api.md are run as they stand there, one after the other, by a shell and curl."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..one_host import WITHIN_S, OneHost, until

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
ENDED = "--ended--"


def examples() -> list[tuple[str, str]]:
    """Each command with what it answers; … stands for anything."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> "):
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
            else:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


@pytest.fixture
def tidy(one_host: OneHost) -> Iterator[None]:
    yield
    one_host.forget("web")


@pytest.mark.usefixtures("tidy")
def test_the_examples_answer_as_they_are_told_to(one_host: OneHost, tmp_path: Path) -> None:
    with subprocess.Popen(
        ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    ) as shell:  # fmt: skip
        assert shell.stdin is not None
        assert shell.stdout is not None
        for command, told in examples():
            shell.stdin.write(command.replace("/run/outlive/api.sock", one_host.socket) + f"\necho {ENDED}\n")
            shell.stdin.flush()
            lines = []
            while (line := shell.stdout.readline()) and not line.endswith(f"{ENDED}\n"):
                lines.append(line)
            said = "".join(lines).strip("\n")
            wanted = ".*".join(re.escape(part) for part in told.strip("\n").split("…"))
            assert re.fullmatch(wanted, said, re.DOTALL), f"$ {command}\n{said}\ninstead of\n{told}"
            if "-T web.toml" in command:
                until(lambda: one_host.outlook("web")["state"] == "running", "web runs")
        shell.stdin.close()
        shell.wait(WITHIN_S)
    assert len(examples()) > 12
