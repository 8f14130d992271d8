"""The shapes that hold others: lists, tables with keys that are known, and tables with keys of the user's own.

What a file's keys are, what each means and what others call it is told with these, in `workload_shape`,
`module_shape` and `agent_shape`. Relations between keys are not known here, except that of a table's kind to the
keys that only some kinds have.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from .problems import Path, Problems, header_text, shown
from .shapes import BAD, NO_DEFAULT, Bad, Choice, Schema, Shape, Text, nearest, unfit


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one shape; `of` is what people call its elements.

    first:     what the first element must be, where that is more than `item`.
    from_text: says how a text that stands in its place is written as a list.
    """

    item: Shape
    of: str
    least: int = 0
    most: int = 64
    unique: bool = False
    first: Shape | None = None
    fix: str = ""
    from_text: Callable[[str], str] | None = None

    @property
    def must_be(self) -> str:
        return f"a list of {self.of}"

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if not isinstance(value, list | tuple):
            return unfit(self, value, at, problems, self._fix(value, at))
        if not self.least <= len(value) <= self.most:
            many = f"has {len(value)} {self.of}; at most {self.most} are possible"
            fix = "Remove some." if value else (self.fix or "Write at least one.")
            problems.add(at, many if value else f"must not be an empty list of {self.of}", fix)
            return BAD
        read = []
        for index, item in enumerate(value):
            if self.unique and item in value[:index]:
                problems.add((*at, index), f"says {shown(item)} for the second time", "Say it once.")
                read.append(BAD)
            else:
                shape = self.item if index or self.first is None else self.first
                read.append(shape.read(item, (*at, index), problems))
        return tuple(read)

    def _fix(self, value: object, at: Path) -> str:
        if isinstance(self.item, Table):
            return f"Write [[{header_text(at)}]], with double brackets."
        if self.from_text is not None and isinstance(value, str):
            return self.from_text(value)
        return f"Write [{shown(value)}]." if isinstance(value, str) else f'Write {self.must_be}: ["…", "…"].'

    def schema(self) -> Schema:
        bounds: Schema = {"minItems": self.least} if self.least else {}
        unique: Schema = {"uniqueItems": True} if self.unique else {}
        items: Schema = {"items": self.item.schema()}
        if self.first is not None:
            items = {"items": [self.first.schema()], "additionalItems": self.item.schema()}
        return {"type": "array", **items, **bounds, "maxItems": self.most, **unique}


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table whose keys are the user's own: names of modules, variables of an environment, labels.

    name:    what a key must be.  of: what people call what stands under the keys.
    heading: what stands for a key where the table is described.
    """

    name: Text
    item: Shape
    of: str
    least: int = 0
    most: int = 256
    heading: str = "NAME"

    @property
    def must_be(self) -> str:
        return f"a table of {self.of}"

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            fix = (
                f"Write [{header_text(at)}.{self.heading}]."
                if isinstance(self.item, Table)
                else "Write KEY = VALUE in it."
            )
            return unfit(self, value, at, problems, fix)
        if not self.least <= len(value) <= self.most:
            many = f"has {len(value)} {self.of}; at most {self.most} are possible"
            problems.add(at, many if value else f"must not be without {self.of}", f"Write {self.least} to {self.most}.")
        return {
            key: self._item(str(key), item, (*at, str(key)), problems) for key, item in list(value.items())[: self.most]
        }

    def _item(self, key: str, item: object, at: Path, problems: Problems) -> Any:
        if isinstance(self.item, Table) and not isinstance(item, dict) and self.item.key(key):
            header = header_text(at[:-1])
            problems.add(
                at, f"must stand in one of the {self.of}, not beside them", f"Put it in [{header}.{self.heading}]."
            )
            return BAD
        if not re.fullmatch(self.name.pattern, key) or not self.name.least <= len(key) <= self.name.most:
            problems.add(at, f"must be {self.name.must_be}", self.name.fix)
        return self.item.read(item, at, problems)

    def schema(self) -> Schema:
        bounds: Schema = {"minProperties": self.least} if self.least else {}
        return {
            "type": "object",
            "propertyNames": {key: told for key, told in self.name.schema().items() if key != "type"},
            "additionalProperties": self.item.schema(),
            **bounds,
            "maxProperties": self.most,
        }


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    about:   what it means, for people.
    default: what holds when it is left out, as it would be written.
    also:    what others call it, so that a user of theirs is pointed here.
    only:    the kinds of table that it belongs to; none means all. A required one is required in these.
    """

    name: str
    shape: Shape
    about: str
    default: object = NO_DEFAULT
    required: bool = False
    also: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose keys are known. told_by: the key that says its kind, for tables with keys of some kinds only."""

    keys: tuple[Key, ...]
    told_by: str = ""
    must_be: str = field(default="a table", init=False)

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)

    def keys_for(self, kind: str) -> tuple[Key, ...]:
        """The keys that a table of this kind may have; all, for ''."""
        return tuple(key for key in self.keys if not (kind and key.only) or kind in key.only)

    def read(self, value: object, at: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            one = isinstance(value, list) and len(value) == 1
            fix = (
                f"Write [{header_text(at)}], with single brackets."
                if one
                else f"Write [{header_text(at)}] above its keys."
            )
            return unfit(self, value, at, problems, fix)
        read: dict[str, Any] = {}
        for name, inner in value.items():
            key = self.key(name)
            if key is None:
                self._unknown(str(name), at, problems)
                continue
            result = key.shape.read(inner, (*at, name), problems)
            if result is not BAD:
                read[name] = result
        kind = "" if self.told_by in value and self.told_by not in read else self.kind_of(read)
        for key in self.keys:
            self._belongs(key, kind, value, at, problems)
        return read

    def kind_of(self, values: Mapping[str, object]) -> str:
        """The kind that a table with these values is; '' if there are no kinds, or it is not told."""
        told_by = self.key(self.told_by)
        if told_by is None:
            return ""
        default = "" if isinstance(told_by.default, Bad) else told_by.default
        return str(values.get(self.told_by, default))

    def _belongs(self, key: Key, kind: str, value: Mapping[str, object], at: Path, problems: Problems) -> None:
        fits = not key.only or kind in key.only
        if key.name in value:
            if kind and not fits:
                where = " and ".join(key.only)
                fix = f'Remove it, or write {self.told_by} = "{key.only[0]}".'
                problems.add((*at, key.name), f"is for {self.told_by} {where}, and this is {kind}", fix)
        elif key.required and fits and problems.whole:
            fix = f"Write {key.name} = …: {key.shape.must_be}."
            if isinstance(key.shape, Table | TableOf):
                heading = f".{key.shape.heading}" if isinstance(key.shape, TableOf) else ""
                fix = f"Write [{header_text((*at, key.name))}{heading}] with its keys."
            problems.add((*at, key.name), "is missing", fix)

    def _unknown(self, name: str, at: Path, problems: Problems) -> None:
        called = next((key.name for key in self.keys if name in key.also), None)
        if called is None:
            names = tuple(key.name for key in self.keys)
            near = nearest(name, names)
            called = names[near] if near is not None else None
        homes = problems.homes.get(name, ())
        if called is not None and not homes:
            fix = f"Write {called}."
        elif homes:
            fix = f"It belongs {' or '.join(homes)}."
        else:
            fix = f"Remove it. Known here are {', '.join(key.name for key in self.keys)}."
        problems.add((*at, name), "is no key of this table" if at else "is no key of this file", fix)

    def schema(self) -> Schema:
        properties = {key.name: _described(key) for key in self.keys}
        required = [key.name for key in self.keys if key.required and not key.only]
        told: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            told["required"] = required
        told_by = self.key(self.told_by)
        if told_by is not None and isinstance(told_by.shape, Choice):
            told["allOf"] = [self._of_kind(str(word)) for word in told_by.shape.words]
        return told

    def _of_kind(self, kind: str) -> Schema:
        then: Schema = {"properties": {key.name: False for key in self.keys if key.only and kind not in key.only}}
        required = [key.name for key in self.keys if key.required and kind in key.only]
        if required:
            then["required"] = required
        told = [] if kind == self.kind_of({}) else [self.told_by]
        return {"if": {"properties": {self.told_by: {"const": kind}}, "required": told}, "then": then}


def key_of(
    noun: type,
    name: str,
    shape: Shape,
    about: str,
    *,
    required: bool = False,
    also: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
) -> Key:
    """A key that becomes the noun's field of that name, whose default is what holds without it."""
    default: object = NO_DEFAULT
    for one in fields(noun):
        if one.name == name and not required and isinstance(one.default, str | int | float):
            default = one.default.value if isinstance(one.default, Enum) else one.default
    return Key(name, shape, about, default, required, also, tuple(str(kind) for kind in only))


def every_table(root: Table, kind: str = "") -> Iterator[tuple[str, str, Table]]:
    """Every table that a file may have, as its header is written, with what it is for; the first is the file.

    kind: only those of a file of this kind.
    """

    def of(shape: Shape, path: str, brackets: str, about: str) -> Iterator[tuple[str, str, Table]]:
        match shape:
            case Table():
                yield brackets[: len(brackets) // 2] + path + brackets[len(brackets) // 2 :], about, shape
                for key in shape.keys_for(kind) if shape is root else shape.keys:
                    yield from of(key.shape, f"{path}.{key.name}" if path else key.name, "[]", key.about)
            case TableOf():
                yield from of(shape.item, f"{path}.{shape.heading}", "[]", about)
            case ListOf():
                yield from of(shape.item, path, "[[]]", about)

    yield from of(root, "", "", "")


def homes(root: Table, document: object) -> dict[str, tuple[str, ...]]:
    """For each key, the tables that it belongs in, as a sentence's "in [resources]" or "above all tables".

    document: what is being read, which tells the kind.
    """
    found: dict[str, tuple[str, ...]] = {}
    kind = root.kind_of(document) if isinstance(document, dict) else ""
    kind = kind if any(kind in key.only for key in root.keys) else ""
    for header, _, table in every_table(root, kind):
        for key in table.keys_for(kind) if table is root else table.keys:
            where = f"in {header}" if header else "at the file's top, above all tables"
            found[key.name] = (*found.get(key.name, ()), where)
    return found


def _described(key: Key) -> Schema:
    default = {} if isinstance(key.default, Bad) else {"default": key.default}
    return {"description": key.about, **key.shape.schema(), **default}
