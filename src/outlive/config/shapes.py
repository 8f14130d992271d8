"""What a single value in a file may be: each shape reads a value, noting every mistake, and is told as JSON Schema.

Since the same shape does both, what the schema accepts and what is read cannot drift apart: the schema refuses
nothing that is read, and all that only reading refuses is what a `made` function refuses (a regular expression that
does not compile, say). Lists and tables, the shapes that hold others, are in `tables`.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .problems import Path, Problems, shown

LONGEST_TEXT = 32_767
"""In characters: no text grows beyond what Linux takes as one argument of a program, 128 KiB."""

Schema = dict[str, Any]

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Bad:
    """Stands for a value that could not be read; its mistakes are noted."""


BAD: Final = Bad()
NO_DEFAULT: Final = Bad()


class Wrong(Exception):
    """Raised by a `made` function: `predicate` completes a sentence that begins with the key."""

    def __init__(self, predicate: str, fix: str) -> None:
        super().__init__(predicate)
        self.predicate, self.fix = predicate, fix


class Shape(Protocol):
    """What a value may be. must_be: as in "a whole number from 1 to 65535"."""

    @property
    def must_be(self) -> str: ...

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        """Return what the value stands for; BAD when it is wrong, also as an element of what is right otherwise."""
        ...

    def schema(self) -> Schema: ...


def unfit(shape: Shape, value: object, at: Path, problems: Problems, fix: str) -> Bad:
    """Note that a value is not what its shape must be."""
    problems.add(at, f"must be {shape.must_be}, not {shown(value)}", fix)
    return BAD


@dataclass(frozen=True, slots=True)
class Text:
    """Text, whose whole must match `pattern`; `fix` says how to write it.

    made: turns it into what it stands for, or raises Wrong.
    """

    must_be: str = "text in quotes"
    pattern: str = r"[^\x00]*"
    fix: str = "Write it without the character of code 0."
    least: int = 0
    most: int = LONGEST_TEXT
    made: Callable[[str], object] = str

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if not isinstance(value, str):
            is_short = isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64)
            fix = f'Write it in quotes: "{shown(value)}".' if is_short else "Write it as text in quotes."
            return unfit(self, value, at, problems, fix)
        if not self.least <= len(value) <= self.most:
            fix = self.fix if len(value) < self.least else f"{self.fix} At most {self.most} characters are possible."
            return unfit(self, value, at, problems, fix)
        if not re.fullmatch(self.pattern, value) or not _is_unicode(value):
            return unfit(self, value, at, problems, self.fix)
        try:
            return self.made(value)
        except Wrong as wrong:
            problems.add(at, wrong.predicate, wrong.fix)
            return BAD

    def schema(self) -> Schema:
        bounds: Schema = {"minLength": self.least} if self.least else {}
        return {"type": "string", **bounds, "maxLength": self.most, "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words.

    later: words that a reader may expect and this version does not have; `scope` says what it does instead.
    made:  turns the word into what it stands for.
    """

    words: tuple[str, ...]
    later: tuple[str, ...] = ()
    scope: str = ""
    made: Callable[[str], object] = str

    @property
    def must_be(self) -> str:
        words = [f'"{word}"' for word in self.words]
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if isinstance(value, str) and value in self.words:
            return self.made(value)
        fix = f"Write {self.must_be}."
        if isinstance(value, str):
            near = nearest(value.lower().removeprefix("sig"), tuple(word.lower() for word in self.words))
            fix = f'Write "{self.words[near]}".' if near is not None else fix
            if value in self.later:
                problems.add(at, f"cannot be {shown(value)} yet: {self.scope}", fix)
                return BAD
        return unfit(self, value, at, problems, fix)

    def schema(self) -> Schema:
        return {"type": "string", "enum": [str(word) for word in self.words]}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    must_be: str = "true or false"

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else str(value)
        meant = "true" if word in _YES else "false" if word in _NO else ""
        return unfit(self, value, at, problems, f"Write {meant or self.must_be}, without quotes.")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from `least` to `most`, both allowed unless `above`, which excludes `least`.

    whole: it is read as an int; 256.0 is whole.
    """

    least: float
    most: float
    whole: bool = False
    above: bool = False

    @property
    def must_be(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.above:
            return f"{kind} above {self.least:g} and at most {self.most:.12g}"
        return f"{kind} from {self.least:g} to {self.most:.12g}"

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            bare = isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value)
            fix = f"Write it without quotes: {value}." if bare else "Write a number."
            return unfit(self, value, at, problems, fix)
        if not (self.least <= value <= self.most) or (self.above and value == self.least):
            return unfit(self, value, at, problems, "Choose a number in this range.")
        if self.whole and value != math.floor(value):
            return unfit(self, value, at, problems, f"Write it without a fraction: {math.floor(value)}.")
        return int(value) if self.whole else float(value)

    def schema(self) -> Schema:
        least = "exclusiveMinimum" if self.above else "minimum"
        return {
            "type": "integer" if self.whole else "number",
            least: _plain(self.least),
            "maximum": _plain(self.most),
        }


def nearest(word: str, known: tuple[str, ...]) -> int | None:
    """The index of the known word that was most likely meant."""
    if not 2 <= len(word) <= 64:
        return None
    near = difflib.get_close_matches(word, known, 1, 0.7)
    if near:
        return known.index(near[0])
    begun = [place for place, name in enumerate(known) if name.startswith(word) or word.startswith(name)]
    return begun[0] if len(begun) == 1 else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(number: float) -> int | float:
    return int(number) if number == math.floor(number) else number
