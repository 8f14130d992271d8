"""What is wrong with the writing itself is told by line, and one mistake does not hide the next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.config.toml_text import MOST_BYTES, MOST_SYNTAX_PROBLEMS, read_toml


def told(text: str | bytes) -> list[tuple[int, str]]:
    return [(problem.line, problem.path) for problem in read_toml(text).problems]


def test_a_right_text_is_read_whole() -> None:
    toml = read_toml('\ufeffname = "a"\r\n[b]\r\nc = [1, 2]\r\n')
    assert toml.document == {"name": "a", "b": {"c": [1, 2]}}
    assert toml.whole
    assert not toml.problems


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ('a = 1\nname = "abc\n', 2, "A text is not closed on its line."),
        ('a = 1\nname = """abc\n\n', 2, "A text is not closed."),
        ("a = 1\nname\n", 2, "This line has a key without `=`."),
        ("a = 1\nb = 2 c = 3\n", 2, "Something follows the value on this line."),
        ("a = 1\n[b\n", 2, "This header is not closed."),
        ("a = 1\n= 2\n", 2, "This is no key, header or comment."),
        ("a = 1\nb. = 2\n", 2, "A key cannot begin like this."),
        ("a = 1\nb = yes\n", 2, "This is no value."),
        ("a = 1\nb =\n", 2, "This is no value."),
        ("a = 1\nb = 2026-02-30\n", 2, "There is no such date or time."),
        ("a = 1\nb = [1 2]\n", 2, "A list is not closed."),
        ("a = 1\nb = [1,\n2\n", 2, "A list is not closed."),
        ("a = 1\nb = {c = 1\n", 2, "A table in braces is not closed."),
        ('a = 1\nb = "\\q"\n', 2, "A \\ in a text begins an escape, and there is none like this."),
        ('a = 1\nb = "\\u12"\n', 2, "An escape in a text lacks its digits."),
        ('a = 1\nb = "\\ud800"\n', 2, "An escape in a text is no character."),
        ('a = 1\nb = "\x07"\n', 2, "A control character stands in a text."),
        ("a = 1\n# \x07\n", 2, "A control character stands here."),
        ("a = 1\nb = {c = 1, c = 2}\n", 2, "A key stands twice in a table in braces."),
        ("a = 1\n\na = 2\n", 3, "This key cannot be given here"),
        ("[a]\n[a]\n", 2, "This table cannot be given here"),
        ("a = 1\n[a]\n", 2, "This table cannot be given here"),
    ],
)
def test_each_mistake_of_writing_has_its_line_sentence_and_fix(text: str, line: int, sentence: str) -> None:
    (problem,) = read_toml(text).problems
    assert problem.line == line
    assert problem.sentence.startswith(sentence)
    assert problem.fix


def test_a_key_given_twice_names_the_line_of_the_first() -> None:
    (problem,) = read_toml("[m]\na = 1\nb = 2\na = 3\n").problems
    assert (problem.line, problem.path) == (4, "m.a")
    assert "line 2 already" in problem.sentence


def test_mistakes_of_writing_are_told_together_and_the_rest_is_read() -> None:
    toml = read_toml('a = 1\nb = \nc = "x\n[d]\ne = 1 2\nf = 3\n')
    assert [(problem.line, problem.path) for problem in toml.problems] == [(2, "b"), (3, "c"), (5, "d.e")]
    assert toml.document == {"a": 1, "d": {"f": 3}}
    assert not toml.whole


def test_a_list_without_its_end_does_not_swallow_the_mistakes_below() -> None:
    assert told('command = ["a", "b"\nafter = \n') == [(1, "command"), (2, "after")]
    assert told('command = ["a",\n[m]\nx = 1 2\n') == [(1, "command"), (3, "m.x")]


def test_a_broken_header_takes_its_table_with_it() -> None:
    toml = read_toml("[a\nb = 1\nb = 2\n[c]\nd = 1\n")
    assert [problem.line for problem in toml.problems] == [1]
    assert toml.document == {"c": {"d": 1}}


def test_mistakes_inside_a_long_text_are_not_taken_for_statements() -> None:
    assert told('a = """\nb = 1\n\\q\n"""\nc = \n') == [(3, "a"), (5, "c")]


def test_mistakes_of_writing_are_bounded() -> None:
    assert len(told("x\n" * 1000)) == MOST_SYNTAX_PROBLEMS


@pytest.mark.parametrize(
    ("raw", "line", "sentence"),
    [
        (b"a = 1\nb = '\xff'\n", 2, "The file is not UTF-8 text."),
        ("name = 'x'".encode("utf-16"), 1, "The file is not UTF-8 text."),
        ("a = 1\nb = '\ud800'", 2, "The file is not UTF-8 text."),
        (b"#" * (MOST_BYTES + 1), 0, "The file is larger than 1024 KiB, so it was not read."),
        ("\na = " + "[" * 40, 2, "The file holds a value nested more than 32 deep."),
        ("\na = " + "1" * 5000, 2, "The file holds a value that is too long for a number."),
    ],
)
def test_what_is_no_such_text_at_all_is_refused(raw: str | bytes, line: int, sentence: str) -> None:
    toml = read_toml(raw)
    assert toml.document is None
    assert [(problem.line, problem.sentence) for problem in toml.problems] == [(line, sentence)]


PIECES = st.sampled_from(
    [
        "[",
        "]",
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
        "\\u0041",
        "#",
        "\n",
        " ",
        "a",
        "b",
        "1",
        "é",
        "\0",
        "\r",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text() | st.binary())
def test_anything_is_read_or_told(raw: str | bytes) -> None:
    toml = read_toml(raw)
    assert toml.whole == (not toml.problems)
    assert toml.document is not None or toml.problems
    lines = raw.count("\n" if isinstance(raw, str) else b"\n") + 1  # type: ignore[arg-type]
    assert all(0 <= problem.line <= lines and problem.sentence and problem.fix for problem in toml.problems)


@pytest.mark.parametrize(
    "unit",
    ["a.", "[", "a = [", "a=1\n", "[[a]]\n", "x\n", "[a\n", 'a="', "a=[1,\n", '"""', "\\", "[a]\nb=[1,\n", "{a="],
)
def test_texts_made_to_take_long_end_in_bounded_time(unit: str) -> None:
    assert read_toml(unit * (20_000 // len(unit))).lines is not None
