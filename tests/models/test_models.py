"""The models of docs/models hold in every interleaving, and without any one of their rules they do not."""

import re
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent.parent.parent / "docs" / "models"
COMPILER = ("gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DVECTORSZ=2048", "-DMEMLIM=6000", "-o", "pan", "pan.c")
SEARCH = ("./pan", "-E", "-m3000000")
LIMIT_S = 3000.0

SMALL = ("HOSTS=2", "PLACED=2")


def errors(folder: Path, model: str, *values: str) -> int:
    """How many assertions fail in a model with these values defined; all interleavings are looked at."""
    defined = [f"-D{each}" for each in values]
    for command in (("spin", *defined, "-a", str(MODELS / model)), COMPILER, SEARCH):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "max search depth too small" not in done.stdout
    assert "Search not completed" not in done.stdout or "errors: 0" not in done.stdout
    found = re.search(r"errors: (\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1])


def breaks(model: str) -> list[str]:
    """The rules that a model can do without, by name."""
    return sorted(set(re.findall(r"BREAK_[A-Z]+", (MODELS / model).read_text())))


@pytest.mark.parametrize("values", [("HOSTS=3", "CLAIMS=1", "PLACED=2", "LASTS=1"), ("HOSTS=2", "PLACED=2", "LASTS=1")])
def test_at_most_one_host_acts(tmp_path: Path, values: tuple[str, ...]) -> None:
    assert errors(tmp_path, "claims.pml", *values) == 0


@pytest.mark.soak
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("values", [("HOSTS=2", "PLACED=2"), ("HOSTS=3", "CLAIMS=1", "PLACED=2", "LASTS=2")])
def test_at_most_one_host_acts_also_where_claims_last_longer(tmp_path: Path, values: tuple[str, ...]) -> None:
    assert errors(tmp_path, "claims.pml", *values) == 0


@pytest.mark.parametrize("rule", breaks("claims.pml"))
def test_without_any_one_rule_two_hosts_act(tmp_path: Path, rule: str) -> None:
    assert errors(tmp_path, "claims.pml", *SMALL, rule) > 0


def test_who_goes_on_has_all_that_was_heard_and_nobody_else_is_heard_any_more(tmp_path: Path) -> None:
    assert errors(tmp_path, "hot.pml") == 0


@pytest.mark.parametrize("rule", breaks("hot.pml"))
def test_without_any_one_rule_something_heard_is_lost_or_two_are_heard(tmp_path: Path, rule: str) -> None:
    assert errors(tmp_path, "hot.pml", rule) > 0
