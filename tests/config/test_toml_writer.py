"""A document that was written reads back as itself."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.config.toml_writer import toml_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_reads_back(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(document)) == document


def test_tables_stand_under_headers() -> None:
    document = {"a": 1, "b": {"c": {"d": True}}, "e": [{"f": "x"}, {}], "g": [{"h": 1}, 2], "i": {}}
    assert toml_text(document) == ('a = 1\ng = [{h = 1}, 2]\n\n[b.c]\nd = true\n\n[[e]]\nf = "x"\n\n[[e]]\n\n[i]\n')


def test_what_toml_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError):
        toml_text({"a": None})
