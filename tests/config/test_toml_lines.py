"""The walk over a TOML text knows where everything stands that TOML's reader finds, and survives everything else."""

import datetime
import math
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.config.problems import Path
from outlive.config.toml_lines import MOST_DEPTH, MOST_PLACES, locate

KEYS = st.one_of(
    st.sampled_from(
        ["a", "b", "name", "9", "-", "a.b", "", " ", "é", 'say "x"', "it's", "#", "[x]", "=", "a\tb", "\\"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", '"', "''", '"""', "# no comment", "[no.header]\nx = 1", "\\", "a\nb\n", "{x", "\n", "\r", ']"']
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
SCALARS = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from([datetime.date(1979, 5, 27), datetime.datetime(1979, 5, 27, 7, 32), datetime.time(7, 32)]),
)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=5,
)


class Scribe:
    """Writes a document in every style that TOML has, as `draw` chooses, and remembers where it wrote what."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def chance(self) -> bool:
        return self.draw(st.booleans())

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def table(self, path: Path, table: dict[str, Any], header: tuple[str, ...]) -> None:
        apart = {key: value for key, value in table.items() if self.may_stand_apart(value) and self.chance()}
        for key, value in table.items():
            if key not in apart:
                self.blank()
                self.assignment(path, key, value)
                self.end_of_line()
        for key, value in apart.items():
            names = (*header, key)
            for index, element in enumerate(value if isinstance(value, list) else [value]):
                self.blank()
                inner: Path = (*path, key, index) if isinstance(value, list) else (*path, key)
                self.note((*path, key))
                self.note(inner)
                name = self.draw(st.sampled_from([".", " . "])).join(self.key(part) for part in names)
                self.text += f"[[{name}]]" if isinstance(value, list) else f"[ {name} ]"
                self.end_of_line()
                self.table(inner, element, names)

    def assignment(self, path: Path, key: str, value: Any) -> None:
        self.note((*path, key))
        self.text += self.key(key)
        if isinstance(value, dict) and len(value) == 1 and self.chance():
            self.text += self.draw(st.sampled_from([".", " .\t"]))
            ((inner, value),) = value.items()
            self.assignment((*path, key), inner, value)
        else:
            self.text += self.draw(st.sampled_from(["=", " = ", "\t=  "]))
            self.value((*path, key), value)

    def value(self, path: Path, value: Any) -> None:
        match value:
            case str():
                self.string(value)
            case bool():
                self.text += "true" if value else "false"
            case int() | float():
                self.text += str(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
            case list():
                self.text += "["
                for index, element in enumerate(value):
                    self.between()
                    self.note((*path, index))
                    self.value((*path, index), element)
                    self.between()
                    if index < len(value) - 1 or self.chance():
                        self.text += ","
                self.between()
                self.text += "]"
            case dict():
                self.text += "{ "
                for index, (key, element) in enumerate(value.items()):
                    self.text += ", " if index else ""
                    self.assignment(path, key, element)
                self.text += " }"
            case _:
                self.text += value.isoformat(*[" "] if isinstance(value, datetime.datetime) and self.chance() else [])

    def string(self, value: str) -> None:
        escaped = "".join(self.escaped(character) for character in value)
        plain = all(character.isprintable() or character in "\t\n" for character in value)
        styles = [f'"{escaped}"']
        opening = '"""\n' if value.startswith("\n") else '"""'
        styles.append(opening + escaped.replace("\\n", self.draw(st.sampled_from(["\n", "\\n"]))) + '"""')
        styles.append(f'"""\n{escaped}\\\n   \n  """')
        if plain and "'" not in value:
            styles += [f"'''\n{value}'''", f"'{value}'"] if "\n" not in value else [f"'''\n{value}'''"]
        if not value.startswith("\n") and plain and '"' not in value and "\\" not in value:
            styles.append(f'"""{value}"""')
        self.text += self.draw(st.sampled_from(styles))

    def escaped(self, character: str) -> str:
        if character in '"\\':
            return "\\" + character
        if character == "\n":
            return "\\n"
        return character if character.isprintable() else f"\\U{ord(character):08x}"

    def key(self, key: str) -> str:
        styles = ['"' + "".join(self.escaped(character) for character in key) + '"']
        if key.isprintable() and "'" not in key:
            styles.append(f"'{key}'")
        if key and all(character.isascii() and (character.isalnum() or character in "_-") for character in key):
            styles.append(key)
        return self.draw(st.sampled_from(styles))

    def may_stand_apart(self, value: Any) -> bool:
        if isinstance(value, list):
            return bool(value) and all(isinstance(element, dict) for element in value)
        return isinstance(value, dict)

    def blank(self) -> None:
        self.text += self.draw(st.sampled_from(["", "", "\n", "# [comment] = {\n", "  \t", " # '''\n\n"]))

    def between(self) -> None:
        self.text += self.draw(st.sampled_from(["", "", " ", "\n", "# ] , }\n", "\n\n\t"]))

    def end_of_line(self) -> None:
        self.text += self.draw(st.sampled_from(["\n", " \n", ' # """ [\n']))


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], str, dict[Path, int]]:
    document = draw(DOCUMENTS)
    scribe = Scribe(draw)
    scribe.table((), document, ())
    return document, scribe.text, scribe.lines


@settings(deadline=None, max_examples=150)
@given(written(), st.booleans())
def test_every_value_is_found_on_its_line_however_it_is_written(
    case: tuple[dict[str, Any], str, dict[Path, int]], windows: bool
) -> None:
    document, text, expected = case
    text = text.replace("\n", "\r\n") if windows else text
    assert tomllib.loads(text) == document
    lines = locate(text)
    assert lines.refusal is None
    assert lines.places == expected
    assert all(lines.line_of(path) == line for path, line in expected.items())


FRAGMENTS = st.sampled_from(
    [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        '"',
        "'",
        '"""',
        "'''",
        "\\",
        "#",
        "\n",
        "\r\n",
        " ",
        "a",
        "b.c",
        "1",
        "\0",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(FRAGMENTS, max_size=40).map("".join) | st.text())
def test_any_text_is_walked_over(text: str) -> None:
    lines = locate(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.places.values())
    starts = [statement.start for statement in lines.statements]
    assert starts == sorted(set(starts))
    assert all(statement.start < statement.end <= len(text) for statement in lines.statements)
    assert lines.line_of(("no", 3, "such")) >= 1


def test_what_is_not_found_falls_back_to_what_it_stands_in() -> None:
    lines = locate("\n[a]\nb = [\n 1,\n 2]\n")
    assert lines.line_of(("a", "b", 1)) == 5
    assert lines.line_of(("a", "b", 7)) == 3
    assert lines.line_of(("a", "missing")) == 2
    assert lines.line_of(("missing",)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * (MOST_DEPTH + 2),
        "a = " + "{a = " * (MOST_DEPTH + 2),
        "a." * (MOST_DEPTH + 2) + "a = 1",
        "[" + "a." * (MOST_DEPTH + 2) + "a]",
        "a = " + "9" * 5000,
    ],
    ids=["lists", "inline tables", "dotted key", "header", "number"],
)
def test_what_would_exhaust_the_reader_is_refused_with_its_line(text: str) -> None:
    refusal = locate("\n" + text).refusal
    assert refusal is not None
    assert refusal.line == 2


def test_what_is_remembered_of_a_huge_file_is_bounded() -> None:
    assert len(locate("a = [" + "1," * 100_000 + "]").places) == MOST_PLACES
