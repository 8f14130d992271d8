"""Versions of packages, which of them a range allows, and `NAME@RANGE`, by which one package asks for another.

Versions are those of semver.org 2.0.0, without build metadata: two versions that differ in nothing that counts could
not be told apart when the newer is looked for. A range is one or more conditions, all of which must hold.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import total_ordering

from outlive.errors import UsageInvalid

from .host import checked_name

LONGEST_VERSION = 64
LONGEST_RANGE = 200
MOST_CONDITIONS = 8

_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_LABEL = r"(?:0|[1-9][0-9]{0,8}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_LABEL}(?:\.{_LABEL})*))?")
_CONDITION = re.compile(
    rf"(\^|~|>=|<=|>|<|=)?[ ]*({_NUMBER})(?:\.({_NUMBER})(?:\.({_NUMBER})(?:-({_LABEL}(?:\.{_LABEL})*))?)?)?(\.\*)?"
)
RANGE_FIX = "Write it as ^1.2, ~1.2.3, 1.2.*, >=1.2, <2 or 1.2.3; a comma joins conditions that must all hold."


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version; the order is that of semver.org: 1.0.0-rc.2 < 1.0.0-rc.10 < 1.0.0 < 1.0.1."""

    major: int
    minor: int
    patch: int
    early: tuple[int | str, ...] = ()
    """What stands after the hyphen of a pre-release, such as ("rc", 1)."""

    def __str__(self) -> str:
        early = ".".join(str(label) for label in self.early)
        return f"{self.major}.{self.minor}.{self.patch}{'-' if early else ''}{early}"

    def __lt__(self, other: "Version") -> bool:
        return self._order() < other._order()

    @property
    def base(self) -> tuple[int, int, int]:
        """The version that a pre-release comes before."""
        return self.major, self.minor, self.patch

    def _order(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        labels = tuple((False, label, "") if isinstance(label, int) else (True, 0, label) for label in self.early)
        return *self.base, not self.early, labels


def parse_version(text: str) -> Version:
    """Read a version such as 1.4.2 or 2.0.0-rc.1. Raises UsageInvalid."""
    found = VERSION.fullmatch(text) if len(text) <= LONGEST_VERSION else None
    if found is None:
        raise UsageInvalid(
            f"{text[:LONGEST_VERSION]!r} is no version.",
            cause="a version is three numbers with dots between, and a pre-release has a hyphen and labels after them",
            remedy="write it as 1.4.2 or 2.0.0-rc.1",
        )
    return Version(int(found[1]), int(found[2]), int(found[3]), _early(found[4]))


@dataclass(frozen=True, slots=True)
class Range:
    """The versions that are good enough. text: as it was written.

    A pre-release is in a range only if the range itself names a pre-release of the same version: whoever asks for
    >=1.2 does not want to try 2.0.0-rc.1 out.
    conditions: signs with versions, all of which must hold.  early: the versions whose pre-releases it names.
    """

    text: str
    conditions: tuple[tuple[str, Version], ...] = field(default=(), repr=False)
    early: frozenset[tuple[int, int, int]] = field(default=frozenset(), repr=False)

    def __str__(self) -> str:
        return self.text

    def __contains__(self, version: Version) -> bool:
        if version.early and version.base not in self.early:
            return False
        return all(_SIGNS[sign](version, bound) for sign, bound in self.conditions)

    def newest(self, versions: Iterable[Version]) -> Version | None:
        """The newest of these versions that is in the range; None if none is."""
        return max((version for version in versions if version in self), default=None)


_SIGNS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

ANY = Range("*")


def parse_range(text: str) -> Range:
    """Read a range: `*`, `1.2.3`, `1.2.*`, `^1.2`, `~1.2.3`, `>=1.2, <2`. Raises UsageInvalid."""
    parts = [part.strip(" ") for part in text.split(",", MOST_CONDITIONS)] if len(text) <= LONGEST_RANGE else []
    if parts == ["*"]:
        return ANY
    conditions: list[tuple[str, Version]] = []
    early: set[tuple[int, int, int]] = set()
    for part in parts:
        found = _CONDITION.fullmatch(part)
        if found is None or (found[6] and (found[1] or found[4])):
            parts.clear()
            break
        sign, written = found[1] or "=", [int(number) for number in found.group(2, 3, 4) if number is not None]
        major, minor, patch = (*written, 0, 0)[:3]
        least = Version(major, minor, patch, _early(found[5]))
        if least.early:
            early.add(least.base)
        conditions += _conditions(sign, least, len(written))
    if not parts or len(parts) > MOST_CONDITIONS:
        raise UsageInvalid(
            f"{text[:LONGEST_VERSION]!r} is no range of versions.",
            cause=f"a range has up to {MOST_CONDITIONS} conditions such as ^1.2, each with one to three numbers",
            remedy=RANGE_FIX[0].lower() + RANGE_FIX[1:-1],
        )
    return Range(text, tuple(conditions), frozenset(early))


def _conditions(sign: str, least: Version, numbers: int) -> tuple[tuple[str, Version], ...]:
    """The conditions that a sign before the first one to three numbers of a version stands for."""
    next_written = _next(least, numbers - 1)
    match sign:
        case "^":
            leftmost = next((place for place in range(numbers) if least.base[place]), numbers - 1)
            return (">=", least), ("<", _next(least, leftmost))
        case "~":
            return (">=", least), ("<", _next(least, min(numbers - 1, 1)))
        case "=" if numbers == 3:
            return (">=", least), ("<=", least)
        case "=":
            return (">=", least), ("<", next_written)
        case ">" if numbers < 3:
            return ((">=", next_written),)
        case "<=" if numbers < 3:
            return (("<", next_written),)
        case _:
            return ((sign, least),)


def _next(version: Version, place: int) -> Version:
    """The first version with a larger number at this place: of 1.2.3 that is 1.3.0 for place 1."""
    major, minor, patch = (*version.base[:place], version.base[place] + 1, 0, 0)[:3]
    return Version(major, minor, patch)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package that is asked for, as in `web@^1.2`."""

    name: str
    range: Range = ANY

    def __str__(self) -> str:
        return f"{self.name}@{self.range}"


def parse_wanted(text: str) -> Wanted:
    """Read NAME or NAME@RANGE. Raises UsageInvalid."""
    name, at, versions = text.partition("@")
    return Wanted(checked_name(name, "package"), parse_range(versions) if at else ANY)


def _early(text: str | None) -> tuple[int | str, ...]:
    return tuple(int(label) if label.isdigit() else label for label in text.split(".")) if text else ()
