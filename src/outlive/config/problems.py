"""Mistakes in a file: how one is told, how they are gathered, and the error that carries them all.

A file is always read to its end, so that whoever mends it sees everything at once; MOST_PROBLEMS keeps a file that
is something else altogether from being told line by line. What counts as a mistake is decided elsewhere.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from outlive.errors import UsageInvalid

MOST_PROBLEMS = 100
SHOWN_CHARACTERS = 60

Path = tuple[str | int, ...]
"""Where a value stands: keys, and indexes (from 0) in lists. `()` is the whole file."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    line:     in the file, from 1; 0 when what was read had no lines.
    path:     the key, as in `module.redis.check[0].port`; empty for the file as a whole.
    sentence: what is wrong, mostly with the path as its subject.  fix: what to write instead.
    """

    line: int
    path: str
    sentence: str
    fix: str

    def told(self, source: str) -> str:
        """Return the mistake on one line, beginning as compilers do so that editors can jump there."""
        place = f"{source}:{self.line}" if self.line else source
        path = f"{self.path}: " if self.path and not self.sentence.startswith(self.path) else ""
        return f"{place}: {path}{self.sentence} {self.fix}"


class FileInvalid(UsageInvalid):
    """A configuration file that cannot be used; `problems` says all that is wrong with it, by line."""

    id = "file.invalid"
    what: ClassVar[str] = "configuration file"

    def __init__(self, source: str, problems: Iterable[Problem], *, sentence: str = "") -> None:
        self.source = printable(source)
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        count = len(self.problems)
        several = f"at least {count} mistakes" if count >= MOST_PROBLEMS else f"{count} mistakes"
        super().__init__(
            sentence or f"{self.source} is no valid {self.what}: {'one mistake' if count == 1 else several}.",
            cause="\n".join(problem.told(self.source) for problem in self.problems),
            remedy=self.problems[0].fix if count == 1 else "Mend these, then try again.",
        )


class Lines(Protocol):
    """Knows where in a text a value stands."""

    def line_of(self, path: Path) -> int:
        """The line of the value, or of the nearest one that it stands in."""
        ...


class NoLines:
    """The places of a document that never was a text."""

    def line_of(self, path: Path) -> int:
        return 0


class Enough(Exception):
    """So many mistakes are known that the rest of the file is not looked at."""


class Problems:
    """Gathers the mistakes of one document.

    whole: False when parts of the file could not be read, so that what seems to be missing may stand there.
    homes: for each key of the file's kind, the tables that it belongs in, for telling where a misplaced one goes.
    """

    def __init__(self, lines: Lines, *, whole: bool = True, homes: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._lines = lines
        self.whole = whole
        self.homes = homes or {}
        self.found: list[Problem] = []

    def add(self, at: Path, predicate: str, fix: str) -> None:
        """Note a mistake; `predicate` completes a sentence that begins with the key. Raises Enough at the limit."""
        path = path_text(at)
        self.found.append(Problem(self._lines.line_of(at), path, f"{path or 'The file'} {predicate}.", fix))
        if len(self.found) >= MOST_PROBLEMS:
            raise Enough


def path_text(at: Path) -> str:
    """Write a path as people do: `module.redis.check[0].port`."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{_key_text(part)}"
    return text


def header_text(at: Path) -> str:
    """Write a path as it stands in a table's header, where lists have no indexes."""
    return path_text(tuple(part for part in at if isinstance(part, str)))


def shown(value: object) -> str:
    """Tell a value in a sentence, in TOML's spelling where it is short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            cut = value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"
            return printable(json.dumps(cut, ensure_ascii=False))
        case int():
            return str(value) if value.bit_length() < 64 else "a number beyond 64 bits"
        case float():
            return repr(value)
        case list() | tuple():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case None:
            return "nothing"
        case _:
            return "a date or time"


def printable(text: str) -> str:
    """Return text that does nothing to a terminal: whatever is not printable is told as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _key_text(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) and len(key) <= SHOWN_CHARACTERS else shown(key)
