"""From a noun to the part of a document that it is read from, without what is as it would be anyway."""

from dataclasses import MISSING, fields
from enum import Enum
from typing import Any


def given(noun: Any, *names: str) -> dict[str, Any]:
    """The fields of a noun (all of them, or these) that are not as they would be without being written."""
    found: dict[str, Any] = {}
    for field in fields(noun):
        value = getattr(noun, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if (names and field.name not in names) or value == default:
            continue
        match value:
            case Enum():
                found[field.name] = value.value
            case tuple():
                found[field.name] = list(value)
            case dict():
                found[field.name] = dict(value)
            case _:
                found[field.name] = value
    return found


def part(key: str, table: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any]:
    """A document's part under its key; nothing when it is empty."""
    return {key: table} if table else {}
