"""From a file to values that are right, or to one error with all that is wrong: the steps common to every file.

A document is read by its shape, which tells each value's mistakes, and then by its rules, which tell those of
values against each other. What the values become is the business of each file's own reader.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .problems import Enough, FileInvalid, NoLines, Problem, Problems
from .tables import Table, homes
from .toml_text import MOST_BYTES, read_toml

Rules = Callable[[dict[str, Any], Mapping[str, Any], Problems], None]
"""Takes what is right of a document, the document as it was given, and where to note mistakes."""


def checked_text(raw: str | bytes, source: str, root: Table, rules: Rules, error: type[FileInvalid]) -> dict[str, Any]:
    """Return a TOML text's values. Raises `error`, which tells every mistake with its line."""
    toml = read_toml(raw)
    problems = Problems(toml.lines, whole=toml.whole, homes=homes(root, toml.document))
    problems.found.extend(toml.problems)
    values = {} if toml.document is None else _judged(toml.document, root, rules, problems)
    if problems.found:
        raise error(source, problems.found)
    return values


def checked_document(
    document: object, source: str, root: Table, rules: Rules, error: type[FileInvalid]
) -> dict[str, Any]:
    """The same for a document that came otherwise, in JSON say; its mistakes have no lines."""
    problems = Problems(NoLines(), homes=homes(root, document))
    values = _judged(document, root, rules, problems)
    if problems.found:
        raise error(source, problems.found)
    return values


def file_bytes(path: Path, error: type[FileInvalid]) -> bytes:
    """Return what stands in a file, or enough of it to be too much. It blocks. Raises `error` if it cannot."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as failure:
        errno = failure.errno if isinstance(failure, OSError) else None
        why = os.strerror(errno) if errno else str(failure).capitalize()
        problem = Problem(0, "", f"{why}.", f"Name the {error.what} by a path that this user can read.")
        raise error(str(path), [problem], sentence=f"The {error.what} {path} cannot be read.") from failure


def _judged(document: object, root: Table, rules: Rules, problems: Problems) -> dict[str, Any]:
    """What is right of a document, which is all of it unless mistakes were noted."""
    values: dict[str, Any] = {}
    with contextlib.suppress(Enough):
        values = root.read(document, (), problems)
        if isinstance(document, dict):
            rules(values, document, problems)
    return values
