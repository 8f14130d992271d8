"""The demo's figures are judged by what they say, and one that is missing never counts as kept."""

from typing import Any

import pytest

from outlive.lab.machine_demo import kept_its_word, reach, sentences

KEPT: dict[str, Any] = {
    "acknowledged": 4000,
    "lost": 0,
    "duplicated": 0,
    "broken_connections": 0,
    "unanswered": 0,
    "double_run": False,
    "first_reply_ms": 120.0,
    "rtt_ms_median": 3.1,
    "pause_ms_median": 1.2,
    "epochs": 60,
}


def test_it_kept_its_word_where_nothing_is_amiss() -> None:
    assert kept_its_word(KEPT)
    assert all(row["holds"] for row in reach(KEPT))
    assert "0 of them lost" in sentences(KEPT)[0]


@pytest.mark.parametrize(
    "amiss", ["lost", "duplicated", "broken_connections", "unanswered", "double_run"]
)  # fmt: skip
def test_one_thing_amiss_or_not_known_is_enough(amiss: str) -> None:
    assert not kept_its_word({**KEPT, amiss: 1})
    assert not kept_its_word({**KEPT, amiss: None})
    assert not kept_its_word({name: value for name, value in KEPT.items() if name != amiss})


def test_a_figure_that_was_not_measured_is_not_reached() -> None:
    assert [row["what"] for row in reach({**KEPT, "first_reply_ms": None, "lost": 1}) if not row["holds"]] == [
        "first reply after the power cut", "lost",
    ]  # fmt: skip
