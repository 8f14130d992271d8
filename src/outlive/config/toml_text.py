"""From bytes to a TOML document and its lines, with every mistake of the writing itself.

Python's reader stops at the first mistake. Here the statement that it stopped at is blanked out and the rest read
again, so that a file's other mistakes are told too; what is then missing may have stood in what was blanked, which
`TomlText.whole` says. Nothing here knows what the file is for.
"""

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from .problems import Problem, path_text, printable
from .toml_lines import Statement, TomlLines, locate

MOST_BYTES = 1024 * 1024
MOST_SYNTAX_PROBLEMS = 20
MOST_CHARACTERS_READ = 2 * MOST_BYTES

_PLACE = re.compile(r" \(at (?:end of document|line (\d+), column (\d+))\)$")
_NEW_STATEMENT = re.compile(r"[ \t]*+(?:\[|[\w.\"'-]++[ \t]*+=)")
_NEW_STATEMENT_LINE = re.compile(r"(?<=\n)" + _NEW_STATEMENT.pattern)
_NOT_NEWLINE = re.compile(r"[^\n]")

_SAID: tuple[tuple[str, str, str], ...] = (
    ("Expected '=' after a key", "This line has a key without `=`.", "Write KEY = VALUE."),
    ("Expected newline or end of document", "Something follows the value on this line.", "Put it on its own line."),
    ("Expected ']", "This header is not closed.", "Close it as it was opened: [TABLE] or [[TABLE]]."),
    ("Invalid initial character for a key", "A key cannot begin like this.", "Put the key in quotes."),
    ("Invalid statement", "This is no key, header or comment.", "Write KEY = VALUE, [TABLE], or # before a comment."),
    ("Invalid value", "This is no value.", "Write text in quotes, a number, true, false, a [list] or a {table}."),
    ("Invalid date", "There is no such date or time.", "Put it in quotes if it is text."),
    ("Illegal character '\\n'", "A text is not closed on its line.", "Close the quotes, or use three for many lines."),
    ("Illegal character", "A control character stands in a text.", r"Write it as an escape, such as \u0007."),
    ("Found invalid character", "A control character stands here.", "Remove it."),
    ("Unterminated string", "A text is not closed.", "Close the quotes."),
    ("Unclosed array", "A list is not closed.", "Put a comma between its values and ] after the last."),
    ("Unclosed inline table", "A table in braces is not closed.", "Close it with } on the same line."),
    ("Unescaped '\\'", r"A \ in a text begins an escape, and there is none like this.", r"Write \\, or use '…'."),
    ("Invalid hex value", "An escape in a text lacks its digits.", r"Write four after \u, eight after \U, or \\."),
    ("Escaped character", "An escape in a text is no character.", r"Write \\ for a \ itself."),
    ("Duplicate inline table key", "A key stands twice in a table in braces.", "Keep one of them."),
)
_NOT_CLOSED = ("Unclosed", "Invalid value")
_RUNS_ON = ("The value that begins here is not closed.", "Close it: each [ needs its ], each { its }.")
_TWICE = ("Cannot declare", "Cannot overwrite", "Cannot redefine", "Cannot mutate")


@dataclass(frozen=True, slots=True)
class TomlText:
    """A text as far as it could be read.

    document: what it holds; None when nothing could be made of it.
    whole:    False when a part was left out for its mistakes.
    """

    document: dict[str, Any] | None
    lines: TomlLines
    problems: tuple[Problem, ...] = ()

    @property
    def whole(self) -> bool:
        return self.document is not None and not self.problems


@dataclass(slots=True)
class _Reading:
    problems: list[Problem] = field(default_factory=list)
    characters: int = 0


def read_toml(raw: str | bytes) -> TomlText:
    """Read a TOML text; raises nothing for any text or bytes, and takes bounded time."""
    text = _decoded(raw)
    if isinstance(text, Problem):
        return TomlText(None, TomlLines([]), (text,))
    reading = _Reading()
    while True:
        lines = locate(text)
        if lines.refusal:
            refusal = lines.refusal
            reading.problems.append(Problem(refusal.line, "", f"The file {refusal.predicate}.", refusal.fix))
            return TomlText(None, lines, tuple(reading.problems))
        reading.characters += len(text)
        try:
            return TomlText(tomllib.loads(text), lines, tuple(reading.problems))
        except tomllib.TOMLDecodeError as error:
            problem, left = _explained(str(error), text, lines)
        except (ValueError, RecursionError) as error:
            problem, left = Problem(1, "", "The file cannot be read.", f"Python's TOML reader says: {error}."), text
        reading.problems.append(problem)
        spent = reading.characters + len(text) > MOST_CHARACTERS_READ
        if left == text or spent or len(reading.problems) >= MOST_SYNTAX_PROBLEMS:
            return TomlText(None, lines, tuple(reading.problems))
        text = left


def _decoded(raw: str | bytes) -> str | Problem:
    """Return the text, or why it is none."""
    if len(raw) > MOST_BYTES:
        return Problem(
            0,
            "",
            f"The file is larger than {MOST_BYTES // 1024} KiB, so it was not read.",
            "Name the right file; bulky data belongs in a file of its own.",
        )
    try:
        if isinstance(raw, str):
            raw.encode()
            return raw.removeprefix("\ufeff")
        return raw.decode("utf-8-sig")
    except UnicodeError as error:
        offset = error.start if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else 0
        before = raw[:offset]
        line = 1 + (before.count("\n") if isinstance(before, str) else before.count(b"\n"))
        return Problem(line, "", "The file is not UTF-8 text.", "Save it again with the encoding UTF-8.")


def _explained(said: str, text: str, lines: TomlLines) -> tuple[Problem, str]:
    """Tell a mistake that Python's reader found, and the text without the statement that has it."""
    offset = _offset(said, text, lines)
    line_start = text.rfind("\n", 0, offset) + 1
    statement = lines.statement_at(offset)
    if statement is None or statement.end < offset:
        # Between statements only a comment can be wrong.
        end_of_line = text.find("\n", offset)
        statement = Statement(line_start, end_of_line if end_of_line >= 0 else len(text), (), False)
    line, first = lines.line_at(min(offset, len(text))), lines.line_at(statement.start)
    runs_on = line > first and said.startswith(_NOT_CLOSED) and _NEW_STATEMENT.match(text, line_start) is not None
    if said.startswith(_TWICE):
        line, sentence, fix = first, *_twice(statement, lines, first)
    elif runs_on:
        line, sentence, fix = first, *_RUNS_ON
    else:
        line, (sentence, fix) = line if offset < len(text) else first, _sentence(said)
    end = line_start if runs_on else _end_of(statement, said, offset, text, lines)
    blanked = _NOT_NEWLINE.sub(" ", text[statement.start : end])
    return Problem(line, path_text(statement.path), sentence, fix), text[: statement.start] + blanked + text[end:]


def _end_of(statement: Statement, said: str, offset: int, text: str, lines: TomlLines) -> int:
    """Where the part ends that is lost with a mistake: a broken header takes its table with it."""
    if statement.is_header:
        return next((later.start for later in lines.statements if later.is_header and later.start > offset), len(text))
    if not said.startswith(_NOT_CLOSED):
        return statement.end
    following = _NEW_STATEMENT_LINE.search(text, offset, statement.end)
    return following.start() if following else statement.end


def _offset(said: str, text: str, lines: TomlLines) -> int:
    place = _PLACE.search(said)
    if place is None or place[1] is None:
        return len(text)
    number = int(place[1])
    return (lines.newlines[number - 2] + 1 if number > 1 else 0) + int(place[2]) - 1


def _twice(statement: Statement, lines: TomlLines, line: int) -> tuple[str, str]:
    known = lines.places.get(statement.path)
    where = f" It stands on line {known} already." if known and known != line else ""
    what = "This table" if statement.is_header else "This key"
    return f"{what} cannot be given here, since the file gave it before, or gave it as something else.{where}", (
        "Keep one of them."
    )


def _sentence(said: str) -> tuple[str, str]:
    for beginning, sentence, fix in _SAID:
        if said.startswith(beginning):
            return sentence, fix
    return f"This is not valid TOML: {printable(_PLACE.sub('', said))}.", "Write it as TOML has it."
