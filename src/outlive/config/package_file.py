"""A package.toml: from TOML to a `PackageSource`, and the JSON Schema for editors.

What the keys are is in `package_shape`. Which files there are, and whether they can be in a package, is seen when it
is built (`outlive.depot.package`). The invariant: whatever is read here without mistakes makes a manifest whose naming,
dependencies and commands are right.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlive.cluster.package import (
    CHECK_TIMEOUT_S,
    INSTALL_TIMEOUT_S,
    LONGEST_COMMAND,
    START_TIMEOUT_S,
    PackageCommand,
)

from .package_shape import FILES, PACKAGE
from .placeholders import KNOWN, used
from .problems import FileInvalid, Problems, shown
from .problems import Path as At
from .reading import checked_text, file_bytes
from .schemas import schema_of
from .shapes import nearest

_TIMEOUTS_S = {"install": INSTALL_TIMEOUT_S, "start": START_TIMEOUT_S, "check": CHECK_TIMEOUT_S}


class PackageFileError(FileInvalid):
    """A package.toml with mistakes: `problems` has each with its line, path, sentence and fix."""

    id = "package-file.invalid"
    what = "package file"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """What a package is to be made of. files: the folder with its files, from the one with package.toml."""

    name: str
    version: str
    description: str = ""
    files: str = FILES
    dependencies: dict[str, str] = field(default_factory=dict)
    install: PackageCommand | None = None
    start: PackageCommand | None = None
    check: PackageCommand | None = None


def parse_package(text: str | bytes, source: str = "the package file") -> PackageSource:
    """Read what a package is to be made of from TOML.

    text:   str, or bytes in UTF-8; at most 1 MiB.
    source: what mistakes are told of, usually the file's path.
    Raises PackageFileError with every mistake, and nothing else for any text or bytes.
    """
    parts = checked_text(text, source, PACKAGE, _rules, PackageFileError)
    for name, usual_s in _TIMEOUTS_S.items():
        if name in parts:
            parts[name] = _command(parts[name], usual_s)
    return PackageSource(**parts)


def read_package(path: Path) -> PackageSource:
    """Read a package.toml. It blocks. Raises PackageFileError, also when the file cannot be read."""
    return parse_package(file_bytes(path, PackageFileError), str(path))


def package_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7) of a package.toml, as published in schema/package.schema.json."""
    return schema_of(PACKAGE, "package", "A configuration package of Outlive: what a host needs to run a service")


def _command(values: dict[str, Any], usual_s: float) -> PackageCommand:
    return PackageCommand(values["command"], values.get("timeout_s", usual_s), values.get("environment", {}))


def _rules(values: dict[str, Any], given: Mapping[str, Any], problems: Problems) -> None:
    """Note what does not hold between keys that are each right by themselves."""
    dependencies = values.get("dependencies")
    if isinstance(dependencies, dict) and values.get("name") in dependencies:
        problems.add(("dependencies", values["name"]), "is the package itself", "Remove it.")
    for what in _TIMEOUTS_S:
        if isinstance(table := values.get(what), dict):
            _check_words(what, table, problems)


def _check_words(what: str, table: Mapping[str, Any], problems: Problems) -> None:
    """Note what is wrong with a command's words as a whole, and words in braces that stand for nothing."""
    command, environment = table.get("command", ()), table.get("environment", {})
    said: list[tuple[At, object]] = [((what, "command", index), word) for index, word in enumerate(command)]
    said += [((what, "environment", name), value) for name, value in environment.items()]
    texts = [(at, text) for at, text in said if isinstance(text, str)]
    if sum(len(text) for _, text in texts) > LONGEST_COMMAND:
        problems.add((what,), f"has more than {LONGEST_COMMAND} characters", "Put them into a file of the package.")
    known = ("package",) if what == "install" else tuple(dict.fromkeys(("package", *KNOWN)))
    for at, text in texts:
        for word in dict.fromkeys(used(text)):
            if word not in known:
                near = nearest(word.lower(), known)
                meant = f"{{{known[near]}}}" if near is not None else ", ".join(f"{{{name}}}" for name in known)
                fix = f"Write {meant}, or {shown(f'{{{{{word}}}}}')} for the word in braces itself."
                problems.add(at, f"has {shown(f'{{{word}}}')}, which stands for nothing here", fix)
