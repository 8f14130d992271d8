"""Where in a TOML text each key stands, which Python's own reader does not tell.

This walks over a text without judging it: on what `tomllib` accepts it knows the line of every value, and on
anything else it still ends, in time that grows with the text's length, and never raises. What nothing here may be
allowed to reach `tomllib` with is refused first: nesting or keys so deep that they would exhaust its stack or its
time, and numbers longer than any number.
"""

import re
import tomllib
from bisect import bisect_left
from dataclasses import dataclass, field

from .problems import Path

MOST_DEPTH = 32
MOST_NUMBER_CHARACTERS = 100
MOST_PLACES = 20_000

# No possessive groups here: Python 3.11.2, which Debian 12 has, matches them wrongly.
_BLANK = re.compile(r"[ \t\r\n]*+")
_SPACE = re.compile(r"[ \t]*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_REST_OF_LINE = re.compile(r"[^\n]*+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]*+")
_LITERAL = re.compile(r"'[^'\n]*+'")
_PLAIN_IN_STRING = re.compile(r'[^"\\\n]*+')
_PLAIN_IN_LONG_STRING = re.compile(r'[^"\\]*+')


@dataclass(frozen=True, slots=True)
class Statement:
    """One header or assignment: its place in the text as offsets, and the path that it speaks of."""

    start: int
    end: int
    path: Path
    is_header: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a text is not worth reading, and the line."""

    line: int
    predicate: str
    fix: str


@dataclass(slots=True)
class TomlLines:
    """The statements of a text, and the line of each value.

    places: the line of each path, at most MOST_PLACES of them.  refusal: None for a text that may be read.
    """

    newlines: list[int]
    places: dict[Path, int] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    refusal: Refusal | None = None

    def line_of(self, path: Path) -> int:
        """The line where the value at `path` begins, or the nearest that it stands in; 1 for the whole text."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, 1)

    def line_at(self, offset: int) -> int:
        """The line of a character."""
        return bisect_left(self.newlines, offset) + 1

    def statement_at(self, offset: int) -> Statement | None:
        """The last statement that begins at or before a character."""
        index = bisect_left(self.statements, offset + 1, key=lambda statement: statement.start)
        return self.statements[index - 1] if index else None


def locate(text: str) -> TomlLines:
    """Walk over a text; see `TomlLines.refusal` before reading it."""
    lines = TomlLines([match.start() for match in re.finditer("\n", text)])
    try:
        _Walk(text, lines).whole()
    except _Refused as refused:
        lines.refusal = Refusal(lines.line_at(refused.offset), refused.predicate, refused.fix)
    return lines


class _Refused(Exception):
    def __init__(self, offset: int, predicate: str, fix: str) -> None:
        super().__init__(predicate)
        self.offset, self.predicate, self.fix = offset, predicate, fix


class _Walk:
    """One pass over a text. `at` only grows, and every loop either moves it or ends."""

    def __init__(self, text: str, lines: TomlLines) -> None:
        self.text = text
        self.lines = lines
        self.at = 0
        self.table: Path = ()
        self.lists_of_tables: dict[Path, int] = {}

    def whole(self) -> None:
        while True:
            self._skip_blank()
            start = self.at
            if start >= len(self.text):
                return
            is_header = self.text[start] == "["
            path = self._header() if is_header else self._assignment()
            self._skip(_REST_OF_LINE)
            self.lines.statements.append(Statement(start, self.at, path, is_header))

    def _header(self) -> Path:
        start = self.at
        is_list = self.text.startswith("[[", start)
        self.at += 2 if is_list else 1
        keys = self._keys()
        path: Path = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            self._note(path, start)
            if path in self.lists_of_tables and not (is_list and place == len(keys) - 1):
                path = (*path, self.lists_of_tables[path] - 1)
        if is_list and keys:
            count = self.lists_of_tables.get(path, 0)
            self.lists_of_tables[path] = count + 1
            path = (*path, count)
            self._note(path, start)
        self.table = path
        return path

    def _assignment(self) -> Path:
        return self._pair(self.table, 0)

    def _pair(self, table: Path, depth: int) -> Path:
        start = self.at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        if len(path) > 2 * MOST_DEPTH:
            raise _Refused(start, *_too_deep("a key"))
        self._skip(_SPACE)
        if self._here() == "=":
            self.at += 1
            self._skip(_SPACE)
            self._value(path, depth)
        return path

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            bare = _BARE_KEY.match(self.text, self.at)
            end = bare.end() if bare else _end_of_string(self.text, self.at)
            if end is None:
                return keys
            keys.append(_unquoted(self.text[self.at : end]))
            if len(keys) > MOST_DEPTH:
                raise _Refused(self.at, *_too_deep("a key"))
            self.at = end
            self._skip(_SPACE)
            if self._here() != ".":
                return keys
            self.at += 1

    def _value(self, path: Path, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise _Refused(self.at, *_too_deep("a value"))
        match self._here():
            case "[":
                self._list(path, depth)
            case "{":
                self._inline_table(path, depth)
            case '"' | "'" as quote:
                self._string(quote)
            case _:
                start = self.at
                self._skip(_BARE_VALUE)
                if len(self.text[start : self.at].rstrip()) > MOST_NUMBER_CHARACTERS:
                    raise _Refused(start, "holds a value that is too long for a number", "Write text in quotes.")

    def _list(self, path: Path, depth: int) -> None:
        self.at += 1
        index = 0
        while self._next_of(closing="]"):
            start = self.at
            self._note((*path, index), start)
            self._value((*path, index), depth + 1)
            index += 1
            if self.at == start:
                self.at += 1

    def _inline_table(self, path: Path, depth: int) -> None:
        self.at += 1
        while self._next_of(closing="}"):
            start = self.at
            self._pair(path, depth + 1)
            if self.at == start:
                self.at += 1

    def _next_of(self, closing: str) -> bool:
        """Move to the next element of a list or inline table; False past its end."""
        while True:
            self._skip_blank()
            here = self._here()
            if here != ",":
                break
            self.at += 1
        if here == closing:
            self.at += 1
        return here not in ("", closing)

    def _string(self, quote: str) -> None:
        is_long = self.text.startswith(quote * 3, self.at)
        end = _end_of_long_string(self.text, self.at) if is_long else _end_of_string(self.text, self.at)
        if end is not None:
            self.at = end
        elif is_long:
            self.at = len(self.text)
        else:
            self._skip(_REST_OF_LINE)

    def _skip_blank(self) -> None:
        self._skip(_BLANK)
        while self._here() == "#":
            self._skip(_REST_OF_LINE)
            self._skip(_BLANK)

    def _here(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _note(self, path: Path, offset: int) -> None:
        if len(self.lines.places) < MOST_PLACES:
            self.lines.places.setdefault(path, self.lines.line_at(offset))


def _end_of_string(text: str, start: int) -> int | None:
    """Where a string on one line ends; None if none that is closed begins at `start`."""
    if text.startswith("'", start):
        found = _LITERAL.match(text, start)
        return found.end() if found else None
    at = start + 1 if text.startswith('"', start) else len(text)
    while at < len(text):
        found = _PLAIN_IN_STRING.match(text, at)
        at = found.end() if found else at
        if text.startswith('"', at):
            return at + 1
        if text.startswith("\n", at) or text.startswith("\n", at + 1):
            return None
        at += 2
    return None


def _end_of_long_string(text: str, start: int) -> int | None:
    """Where a string in three quotes ends, which may have two more before its end; None if it is not closed."""
    quote, at = text[start], start + 3
    if quote == "'":
        at = text.find("'''", at)
    else:
        while not text.startswith('"""', at):
            found = _PLAIN_IN_LONG_STRING.match(text, at)
            at = found.end() if found else at
            if at >= len(text):
                return None
            if text.startswith("\\", at):
                at += 2
            elif not text.startswith('"""', at):
                at += 1
    if at < 0:
        return None
    more = next((count for count in (2, 1) if text.startswith(quote * (3 + count), at)), 0)
    return at + 3 + more


def _unquoted(text: str) -> str:
    if text[0] not in "\"'":
        return text
    if text[0] == "'" or "\\" not in text:
        return text[1:-1]
    try:
        return str(tomllib.loads(f"key = {text}")["key"])
    except tomllib.TOMLDecodeError:
        return text[1:-1]


def _too_deep(what: str) -> tuple[str, str]:
    return f"holds {what} nested more than {MOST_DEPTH} deep", "Nothing in this file needs that: remove it."
