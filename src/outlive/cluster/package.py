"""A configuration package: what a host needs in order to run a service, as a manifest (US 9,201,744).

The manifest names every file by its content, so whoever has the manifest can fetch the rest from anybody and check
it. A package's id is the hash of its manifest in the one way of writing it (`outlive.depot.package`). What is read
from outside is judged by `problem_with` before anything trusts it. Files, hashes and archives are in `depot/`.
"""

import re

import msgspec

from outlive.errors import UsageInvalid

from .host import NAME
from .versions import LONGEST_VERSION, VERSION, Version, Wanted, parse_range, parse_version

FORMAT = 1
MOST_FILES = 10_000
MOST_FOLDERS = 10_000
MOST_PARTS = 64
MOST_DEPENDENCIES = 64
MOST_WORDS = 1024
MOST_FILE_BYTES = 4 << 30
MOST_PACKAGE_BYTES = 16 << 30
LONGEST_PATH = 1024
LONGEST_NAME = 255
LONGEST_DESCRIPTION = 1000
LONGEST_COMMAND = 100_000
LONGEST_TIMEOUT_S = 86_400.0
MODE = 0o755
"""The permissions that a file may have, at most: nothing that its owner alone may write is changed by others."""
PLACEHOLDER = "{package}"
OWN_VARIABLES = "OUTLIVE_"

_DIGEST = re.compile("[0-9a-f]{64}")
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]{0,254}")

INSTALL_TIMEOUT_S = 300.0
START_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 30.0


class Component(msgspec.Struct, frozen=True, order=True):
    """Content by its name. digest: BLAKE3, 64 hexadecimal digits in lower case."""

    digest: str
    bytes: int


class PackageFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a package. path: below the package's folder, with '/'. mode: permissions, at most 0o755."""

    path: str
    mode: int
    bytes: int
    digest: str

    @property
    def component(self) -> Component:
        return Component(self.digest, self.bytes)


class PackageCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program that a package brings or calls. It runs in the package's folder, which `{package}` stands for.

    command:     its words; the program is an absolute path, a bare name, or `{package}/…`.
    timeout_s:   how long it may take; for `start`, how long until it works.
    environment: variables besides those that every command of a package gets.
    """

    command: tuple[str, ...]
    timeout_s: float
    environment: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that a package is. files: sorted by path. dependencies: ranges by name.

    install: run once where it is installed.  start: what a module runs that names no command of its own.
    check:   tells by its exit code whether what was started works.
    """

    format: int
    name: str
    version: str
    files: tuple[PackageFile, ...] = ()
    description: str = ""
    dependencies: dict[str, str] = {}
    install: PackageCommand | None = None
    start: PackageCommand | None = None
    check: PackageCommand | None = None

    @property
    def parsed_version(self) -> Version:
        return parse_version(self.version)

    @property
    def wants(self) -> tuple[Wanted, ...]:
        """What it depends on, by name."""
        return tuple(Wanted(name, parse_range(text)) for name, text in sorted(self.dependencies.items()))

    @property
    def components(self) -> tuple[Component, ...]:
        """The content of its files, each once, in the order of its digests."""
        return tuple(sorted({file.component for file in self.files}))

    @property
    def bytes(self) -> int:
        """How much its files are together."""
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def problem_with(manifest: Manifest) -> str:
    """What is wrong with a manifest from outside, as a sentence; '' for nothing."""
    return (
        _naming_problem(manifest)
        or _dependency_problem(manifest)
        or _files_problem(manifest.files)
        or next(
            (
                f"Its {what} command {problem}."
                for what, command in (
                    ("install", manifest.install),
                    ("start", manifest.start),
                    ("check", manifest.check),
                )
                if command is not None and (problem := _command_problem(command))
            ),
            "",
        )
        or _install_problem(manifest)
    )


def path_problem(path: str) -> str:
    """Why a path cannot be that of a package's file, as a predicate; '' when it can."""
    if not path.isprintable():
        return "has a character that cannot be printed"
    if len(path.encode()) > LONGEST_PATH:
        return f"is longer than {LONGEST_PATH} bytes"
    if path.startswith("/"):
        return "begins at the root; paths begin at the package's folder"
    parts = path.split("/")
    if len(parts) > MOST_PARTS:
        return f"lies more than {MOST_PARTS - 1} folders deep"
    for part in parts:
        if part in ("", ".", ".."):
            return f"has a part {part!r}, which names no file" if part else "has an empty part"
        if len(part.encode()) > LONGEST_NAME:
            return f"has a part longer than {LONGEST_NAME} bytes"
    return ""


def mode_problem(mode: int) -> str:
    """Why these cannot be a package's file's permissions, as a predicate; '' when they can."""
    if mode & 0o7000:
        return "has the setuid, setgid or sticky bit"
    if mode & ~MODE:
        return "can be written by others than its owner"
    return "" if mode & 0o400 else "cannot be read by its owner"


def _naming_problem(manifest: Manifest) -> str:
    if manifest.format != FORMAT:
        return f"Its format is {manifest.format}; this version of Outlive knows {FORMAT}."
    if not NAME.fullmatch(manifest.name):
        return "Its name is not 1 to 63 of a-z, 0-9 and '-'."
    if len(manifest.version) > LONGEST_VERSION or not VERSION.fullmatch(manifest.version):
        return "Its version is none such as 1.4.2 or 2.0.0-rc.1."
    if len(manifest.description) > LONGEST_DESCRIPTION or not manifest.description.isprintable():
        return f"Its description is not one line of at most {LONGEST_DESCRIPTION} characters."
    return ""


def _dependency_problem(manifest: Manifest) -> str:
    if len(manifest.dependencies) > MOST_DEPENDENCIES:
        return f"It has {len(manifest.dependencies)} dependencies; at most {MOST_DEPENDENCIES} are possible."
    for name, text in manifest.dependencies.items():
        if not NAME.fullmatch(name):
            return "It depends on something whose name is not 1 to 63 of a-z, 0-9 and '-'."
        if name == manifest.name:
            return "It depends on itself."
        try:
            parse_range(text)
        except UsageInvalid:
            return f"It depends on {name} in versions that are no range such as ^1.2."
    return ""


def _files_problem(files: tuple[PackageFile, ...]) -> str:
    if len(files) > MOST_FILES:
        return f"It has {len(files)} files; at most {MOST_FILES} are possible."
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    before = ""
    for file in files:
        problem = path_problem(file.path) or mode_problem(file.mode)
        if not problem and not _DIGEST.fullmatch(file.digest):
            problem = "is not named by a hash of 64 hexadecimal digits"
        if not problem and not 0 <= file.bytes <= MOST_FILE_BYTES:
            problem = f"is larger than {MOST_FILE_BYTES} bytes, or less than nothing"
        if not problem and sizes.setdefault(file.digest, file.bytes) != file.bytes:
            problem = "has the hash of a file of another size"
        if not problem and file.path <= before:
            problem = "is named twice" if file.path == before else "is not in the order of paths"
        if problem:
            return f"The file {file.path!r} {problem}."
        before = file.path
        folders.update(file.path[:place] for place, sign in enumerate(file.path) if sign == "/")
        if len(folders) > MOST_FOLDERS:
            return f"Its files lie in more than {MOST_FOLDERS} folders."
    both = next((file.path for file in files if file.path in folders), None)
    if both is not None:
        return f"The file {both!r} is a folder as well."
    total = sum(file.bytes for file in files)
    return (
        f"Its files are {total} bytes; at most {MOST_PACKAGE_BYTES} are possible." if total > MOST_PACKAGE_BYTES else ""
    )


def _command_problem(command: PackageCommand) -> str:
    words = command.command
    if not words or not words[0]:
        return "names no program"
    if "/" in words[0] and not words[0].startswith(("/", f"{PLACEHOLDER}/")):
        return f"names a program by a path that begins neither at the root nor with {PLACEHOLDER}/"
    values = [*words, *command.environment.values()]
    if len(values) > MOST_WORDS or sum(len(value) for value in values) > LONGEST_COMMAND:
        return f"has more than {MOST_WORDS} words, or {LONGEST_COMMAND} characters"
    if any("\0" in value for value in values):
        return "has a character of code 0"
    if not all(_VARIABLE.fullmatch(name) for name in command.environment):
        return "has a variable whose name is not letters, digits and '_'"
    if any(name.startswith(OWN_VARIABLES) for name in command.environment):
        return f"has a variable whose name begins with {OWN_VARIABLES}, which are set for it"
    if not 0 < command.timeout_s <= LONGEST_TIMEOUT_S:
        return f"has a time limit that is not above 0 and at most {LONGEST_TIMEOUT_S:g} s"
    return ""


def _install_problem(manifest: Manifest) -> str:
    """What an installation begins with has to be there: nothing can have made it yet."""
    own = own_program(manifest.install.command[0]) if manifest.install else None
    if own is None:
        return ""
    mode = next((file.mode for file in manifest.files if file.path == own), None)
    if mode is None:
        return f"Its install command is {own!r}, which is not among its files."
    return "" if mode & 0o100 else f"Its install command is {own!r}, which is not executable."


def own_program(word: str) -> str | None:
    """The path of a command's program within the package; None when it is a program of the host's."""
    return word.removeprefix(f"{PLACEHOLDER}/") if word.startswith(f"{PLACEHOLDER}/") else None
