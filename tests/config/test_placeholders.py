"""Words in braces are filled in; doubled ones and every other brace stay text."""

import pytest

from outlive.config.placeholders import KNOWN, filled, used

VALUES = {
    "data": "/mnt/d",
    "address": "10.0.0.9",
    "host": "a",
    "workload": "w",
    "package": "/var/p",
    "generation": "7",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{data}/x {address}:1 {host}{workload}{generation}", "/mnt/d/x 10.0.0.9:1 aw7"),
        ("{{data}}", "{data}"),
        ("{{print}}", "{print}"),
        ("{{{data}}}", "{{data}}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("${a:-b} {} {1} { data }", "${a:-b} {} {1} { data }"),
        ("{unknown}", "{unknown}"),
        ("", ""),
    ],
)
def test_words_in_braces_are_filled_in_and_other_braces_stay(text: str, expected: str) -> None:
    assert filled(text, VALUES) == expected


def test_a_value_is_not_looked_at_again() -> None:
    assert filled("{data}", {"data": "{host}", "host": "a"}) == "{host}"


def test_used_words_are_told_known_or_not() -> None:
    assert used("{data} {Data} {{host}} {x}") == ("data", "Data", "x")
    assert set(VALUES) == set(KNOWN)
