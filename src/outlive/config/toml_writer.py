"""From a document to TOML text, for the files that Outlive writes itself.

Only what a configuration holds: text, numbers, true and false, lists, tables. What is written reads back as the
same document.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(document: Mapping[str, Any]) -> str:
    """Return the document as TOML. Raises TypeError for what TOML has no word for, such as None."""
    blocks: list[str] = []
    _write_table(document, (), "", blocks)
    return "\n".join(blocks)


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], header: str, blocks: list[str]) -> None:
    plain = {key: value for key, value in table.items() if not _stands_apart(value)}
    if plain or header.startswith("[[") or (header and len(plain) == len(table)):
        lines = [header] if header else []
        lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
        blocks.append("\n".join(lines) + "\n")
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            _write_table(value, (*path, key), f"[{name}]", blocks)
        elif _stands_apart(value):
            for element in value:
                _write_table(element, (*path, key), f"[[{name}]]", blocks)


def _stands_apart(value: object) -> bool:
    """Whether a value is written under headers of its own, after the plain ones."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(element, Mapping) for element in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return f"[{', '.join(_value(element) for element in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{_key(key)} = {_value(element)}' for key, element in value.items())}}}"
        case _:
            raise TypeError(f"TOML has no word for {value!r}")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
