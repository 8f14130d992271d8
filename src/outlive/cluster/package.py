"""A configuration package: what a host needs in order to run a service, as a manifest (US 9,201,744).

The manifest names every file by its content, so whoever has the manifest can fetch the rest from anybody and check
it. A package's id is the hash of its manifest in the one way of writing it (`outlive.depot.package`). What is read
from outside is judged by `problem_with` before anything trusts it. Files, hashes and archives are in `depot/`.
"""

import msgspec

from .versions import Version, Wanted, parse_range, parse_version

FORMAT = 1
MOST_FILES = 10_000
MOST_DEPENDENCIES = 64
MOST_WORDS = 1024
MOST_FILE_BYTES = 4 << 30
MOST_PACKAGE_BYTES = 16 << 30
LONGEST_PATH = 1024
LONGEST_NAME = 255
LONGEST_DESCRIPTION = 1000

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
    """A program that a package brings or calls. It runs in the package's folder.

    command:     its words; `{package}` in them is the package's folder, and a first word with a '/' begins there.
    timeout_s:   how long it may take; what a program that stays may take until it counts as started.
    environment: variables besides those that every command of a package gets.
    """

    command: tuple[str, ...]
    timeout_s: float
    environment: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that a package is. files: sorted by path. dependencies: ranges by name.

    install: run once where it is installed. start: what a module runs that names no command of its own.
    check:   tells by its exit code whether what is installed can work; run after installing, and when asked.
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
    raise NotImplementedError
