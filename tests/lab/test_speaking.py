"""Two voices for one machine are heard; one that takes over, and comes back later, is none too many."""

from types import SimpleNamespace
from typing import Any

import pytest

from outlive.errors import Failed
from outlive.lab.speaking import Voices, listened


def heard(*said: tuple[float, str]) -> Voices:
    voices = Voices()
    for at_s, host in said:
        voices.heard(at_s, host)
    return voices


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ([], []),
        ([(0.0, "a"), (0.1, "a"), (9.0, "a")], ["a"]),
        ([(0.0, "a"), (5.0, "b"), (5.1, "b")], ["a", "b"]),
        # Soon after it began: takeovers may follow each other as long as each host is new.
        ([(0.0, "a"), (0.1, "b"), (0.2, "c")], ["a", "b", "c"]),
        ([(0.0, "a"), (5.0, "b"), (9.0, "a"), (12.0, "b")], ["a", "b", "a", "b"]),
    ],
)
def test_turns_taken_one_after_the_other_are_no_double_run(said: list[tuple[float, str]], turns: list[str]) -> None:
    voices = heard(*said)
    assert ([host for _, host in voices.turns], voices.both) == (turns, [])


def test_a_host_that_was_replaced_and_still_speaks_is_told() -> None:
    voices = heard((0.0, "a"), (5.0, "b"), (5.3, "a"), (5.4, "b"), (5.9, "a"))
    assert voices.both == [(5.3, "a"), (5.9, "a")]
    assert [host for _, host in voices.turns] == ["a", "b"]


def test_what_is_heard_late_and_may_have_been_said_before_the_other_began_is_not_out_of_turn() -> None:
    voices = heard((0.0, "a"), (5.0, "b"))
    voices.heard(7.0, "a", 4.9)
    assert voices.both == []
    voices.heard(7.1, "b", 6.9)
    voices.heard(7.2, "a", 7.0)
    voices.heard(7.3, "b", 7.2)
    assert voices.both == [(7.3, "b")]


def test_one_that_speaks_in_between_for_longer_is_caught_once_the_other_is_heard_again() -> None:
    voices = heard((0.0, "a"), (5.0, "b"), (6.5, "a"), (6.6, "b"))
    assert voices.both == [(6.6, "b")]


def test_a_host_that_cannot_be_listened_to_is_no_silent_one() -> None:
    host = SimpleNamespace(name="a", namespace="no-such-namespace-of-a-lab")
    lab: Any = SimpleNamespace(plan=SimpleNamespace(hosts=[host]))
    with pytest.raises(Failed, match="not listened to"), listened(lab):
        pass
