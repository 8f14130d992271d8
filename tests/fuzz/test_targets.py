"""Every parser takes what the project writes, and refuses in words what once broke it, and a sample of more.

Longer searches are those of `outlive test --fuzz`; docs/fuzzing.md tells what is asked and how.
"""

from itertools import islice
from pathlib import Path
from random import Random

import pytest

from . import __main__ as command
from . import native, running
from .target import Target
from .targets import TARGETS

DOCS = Path(__file__).parents[2] / "docs" / "fuzzing.md"
SAMPLE = 40


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_valid_passes_and_what_was_found_is_refused_in_words(name: str) -> None:
    target = TARGETS[name]
    for data in running.seeds(target):
        assert len(data) <= target.most_bytes, "a seed that is never tried"
        target.offer(data)
    for valid in target.seeds():
        target.judge(valid)


@pytest.mark.parametrize("name", TARGETS)
def test_a_sample_of_changed_inputs_is_read_or_refused_in_words(name: str) -> None:
    for data in islice(running.inputs(TARGETS[name], Random(name)), SAMPLE):
        TARGETS[name].offer(data)


def test_a_search_finds_what_only_a_change_of_a_valid_input_shows(tmp_path: Path) -> None:
    def judge(data: bytes) -> None:
        assert b'"host":1e999' not in data

    broken = Target("broken", judge, lambda: [b'{"host":"a","port":1}'], text=True)
    with pytest.raises(AssertionError):
        running.by_chance(broken, tmp_path, 3600, 7)
    [kept] = tmp_path.iterdir()
    with pytest.raises(AssertionError):
        broken.offer(kept.read_bytes())


def test_what_was_found_belongs_to_a_target_that_there_is() -> None:
    assert {path.name for path in running.FOUND.iterdir()} <= {*TARGETS, *native.TARGETS}


def test_the_docs_name_every_target_and_no_other() -> None:
    told = {line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")}
    assert told == {*TARGETS, *native.TARGETS}


def test_a_target_that_there_is_none_of_is_told_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["1", "nothing"])
    assert ended.value.code == 2
    assert "store-record" in capsys.readouterr().err
