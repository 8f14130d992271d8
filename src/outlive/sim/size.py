"""How much a machine's state holds: a count of values, for the checker that keeps it bounded."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from msgspec import Struct


def values_in(thing: object, leave_out: tuple[str, ...] = ()) -> int:
    """Count a value and all values in it; fields of dataclasses named in `leave_out` are not looked into."""
    if is_dataclass(thing) and not isinstance(thing, type):
        return 1 + sum(
            values_in(getattr(thing, field.name), leave_out) for field in fields(thing) if field.name not in leave_out
        )
    if isinstance(thing, Struct):
        names = thing.__struct_fields__
        return 1 + sum(values_in(getattr(thing, name), leave_out) for name in names if name not in leave_out)
    if isinstance(thing, Mapping):
        return 1 + sum(1 + values_in(value, leave_out) for value in thing.values())
    if isinstance(thing, tuple | list | set | frozenset):
        return 1 + sum(values_in(value, leave_out) for value in thing)
    return 1
