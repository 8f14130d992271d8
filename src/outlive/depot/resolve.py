"""Which packages, in which versions and in which order, one package needs. Pure: no file is opened.

At most one version of a package is in an answer. Newer versions are preferred, those of what is asked for before
those of what it needs. What is returned holds for every range of everybody in it; when nothing does, it is told who
wants what.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outlive.cluster.package import Manifest
from outlive.cluster.versions import Version, Wanted


@dataclass(frozen=True, slots=True)
class Known:
    """A package that can be had, as far as resolving needs to know. id: its package id."""

    name: str
    version: Version
    id: str
    wants: tuple[Wanted, ...] = ()


def known(id: str, manifest: Manifest) -> Known:
    """A manifest as far as resolving needs it."""
    return Known(manifest.name, manifest.parsed_version, id, manifest.wants)


def resolve(
    wanted: Iterable[Wanted], packages: Iterable[Known], *, keep: Mapping[str, Version] | None = None
) -> tuple[Known, ...]:
    """Choose what to install, dependencies before those that need them.

    packages: all that can be had.  keep: versions by name that are preferred where they will do, such as those in use.
    Raises PackageMissing (no version of that name at all, or none in the range: who wants it, what there is),
    DependencyConflict (who wants what), DependencyCycle (naming the circle).
    """
    raise NotImplementedError
