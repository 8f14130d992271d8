"""Packages as the cluster knows them: which were pushed, what a workload takes of them, and which host has which.

What a package is made of is in `package`; here are only the nouns that decisions rest on. A workload's use of a package
is pinned when its file is applied: the same versions, by content, are installed wherever it goes, until it is applied
anew.
"""

import re
from dataclasses import dataclass, field

from outlive.errors import UsageInvalid

from .host import NAME, checked_name
from .package import PackageCommand
from .versions import LONGEST_RANGE, parse_version

ID = re.compile("[0-9a-f]{64}")
MOST_COPIES = 100
MOST_NEEDS = 64
SMALL_CLUSTER_HOSTS = 3
USUAL_COPIES = 2


@dataclass(frozen=True, slots=True)
class Pinned:
    """One version of a package, by its content. id: the package's, the hash of its manifest."""

    name: str
    version: str
    id: str

    @property
    def key(self) -> str:
        """What it is called: NAME@VERSION."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class PackageUse:
    """What a workload takes.

    wanted: the versions that its file allows, as written.  version, id: what was chosen; '' before that.
    needs: the package's dependencies and theirs, each after what it needs itself.
    """

    name: str
    wanted: str = ""
    version: str = ""
    id: str = ""
    needs: tuple[Pinned, ...] = ()

    @property
    def key(self) -> str:
        """What was chosen: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    def all(self) -> tuple[Pinned, ...]:
        """Everything that must be installed for it, in the order of installing."""
        return (*self.needs, Pinned(self.name, self.version, self.id))


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """A version of a package that was pushed. id: the hash of its manifest.

    requires: its dependencies, each with the range of versions that it may be.
    start: what starts a module that names no command of its own; check: what then tells whether it works.
    copies: how many hosts shall keep it; 0: as the size of the cluster says (`copies_of`).
    hosts: those that shall keep it, as the leader chose.
    trial: the workload that is being brought to it, so that there is never a second one.
    failed: workload → why this version was given up there; no other workload is brought to it after that.
    removing: it is to go as soon as it is certain that nothing uses it.
    """

    name: str
    version: str
    id: str
    requires: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    start: PackageCommand | None = None
    check: PackageCommand | None = None
    copies: int = 0
    hosts: tuple[str, ...] = ()
    trial: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    removing: bool = False
    pushed_by: str = ""
    because: str = ""

    @property
    def key(self) -> str:
        """What it is called: NAME@VERSION."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class DepotRecord:
    """A host's own statement. holds: what is whole in its depot, id → NAME@VERSION; troubles: why it lacks what.

    An id tells what is there; the name is for people.
    """

    host: str
    holds: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)


def copies_of(record: PackageRecord, hosts: int) -> int:
    """How many hosts of a cluster of so many shall keep it."""
    if record.copies:
        return min(record.copies, hosts)
    return hosts if hosts <= SMALL_CLUSTER_HOSTS else USUAL_COPIES


def split(key: str) -> tuple[str, str]:
    """The name and the version that NAME@VERSION is made of. Raises UsageInvalid."""
    name, at, text = key.partition("@")
    if not at:
        raise UsageInvalid(f"{key[:100]!r} names no version of a package.", remedy="write it as NAME@VERSION")
    return checked_name(name, "package"), str(parse_version(text))


def package_problem(record: PackageRecord) -> str:
    """What keeps a pushed package from being used; '' for nothing. Names become paths."""
    try:
        parse_version(record.version)
    except UsageInvalid as bad:
        return bad.cause
    if wrong := [name for name in (record.name, *record.requires) if not NAME.fullmatch(name)]:
        return f"{wrong[0][:80]!r} is no name"
    if not 0 <= record.copies <= MOST_COPIES:
        return f"{record.copies} copies cannot be"
    return "" if ID.fullmatch(record.id) else "it names no content"


def use_problem(use: PackageUse) -> str:
    """What keeps a workload's package from being installed; '' for nothing."""
    if not (use.version and use.id):
        return f"no version of its package {use.name[:80]} was chosen"
    if len(use.needs) > MOST_NEEDS or len(use.wanted) > LONGEST_RANGE:
        return f"its package {use.name[:80]} asks for too much"
    for each in use.all():
        if not NAME.fullmatch(each.name) or not ID.fullmatch(each.id):
            return f"{each.key[:80]!r} is no package"
        try:
            parse_version(each.version)
        except UsageInvalid as bad:
            return bad.cause
    return ""
