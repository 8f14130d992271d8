"""What a demo tells: moments after an instant, in order, and counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a timeline: seconds after the power cut, and what happened then."""

    after_s: float
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """What a demo found. counts: figures by name."""

    primary: str
    successor: str
    timeline: tuple[Moment, ...]
    counts: dict[str, Any]


def moments(events: Iterable[dict[str, Any]], cut_unix_s: float, told: Mapping[str, str]) -> list[Moment]:
    """The first event of each kind that is told, as a moment. events: as the API gives them."""
    found: dict[str, Moment] = {}
    for event in sorted(events, key=lambda each: int(each["unix_ms"])):
        kind = event["kind"]
        if kind in told and kind not in found:
            found[kind] = Moment(event["unix_ms"] / 1000 - cut_unix_s, told[kind], event["text"])
    return list(found.values())


def reached(rows: Iterable[tuple[str, Any, str, float]]) -> list[dict[str, Any]]:
    """Figures with what each was to be at most. rows: what it is, its value (None: not measured), unit and limit."""
    return [
        {"what": what, "value": value, "unit": unit, "limit": limit, "holds": value is not None and value <= limit}
        for what, value, unit, limit in rows
    ]
