"""Which packages, in which versions and in which order, one package needs. Pure: no file is opened.

At most one version of a package is in an answer. Newer versions are preferred, those of what is asked for before
those of what it needs. What is returned holds for every range of everybody in it, and nothing in it depends on itself;
when there is no such answer, it is told why the best choice for everybody does not go together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outlive.cluster.package import Manifest
from outlive.cluster.versions import Version, Wanted
from outlive.errors import OutliveError

from .errors import DependencyConflict, DependencyCycle, PackageMissing

MOST_TRIES = 5000
MOST_CHOSEN = 256
_SHOWN_VERSIONS = 12


@dataclass(frozen=True, slots=True)
class Known:
    """A package that can be had, as far as resolving needs to know. id: its package id."""

    name: str
    version: Version
    id: str
    wants: tuple[Wanted, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def known(id: str, manifest: Manifest) -> Known:
    """A manifest as far as resolving needs it."""
    return Known(manifest.name, manifest.parsed_version, id, manifest.wants)


def resolve(
    wanted: Iterable[Wanted], packages: Iterable[Known], *, keep: Mapping[str, Version] | None = None
) -> tuple[Known, ...]:
    """Choose what to install, dependencies before those that need them.

    packages: all that can be had.  keep: versions by name that are preferred where they will do, such as those in use.
    Raises PackageMissing (no version of that name at all, or none in the range: who wants it, what there is),
    DependencyConflict (who wants what, also when MOST_TRIES choices were not enough to tell), DependencyCycle (naming
    the circle).
    """
    search = _Search(_by_name(packages, keep or {}))
    chosen = search.complete({}, tuple(_Wish(None, one) for one in wanted))
    if isinstance(chosen, frozenset):
        raise search.why or DependencyConflict(
            f"No choice of versions was found in {MOST_TRIES} tries.", remedy="ask for certain versions"
        )
    return _in_order(chosen)


@dataclass(frozen=True, slots=True)
class _Wish:
    """Who wants what. by: None for what was asked for."""

    by: Known | None
    wanted: Wanted

    def __str__(self) -> str:
        return f"{self.by} wants {self.wanted}" if self.by else f"{self.wanted} is asked for"


_Chosen = dict[str, Known]
_Blamed = frozenset[str]
"""Names of packages of which at least one would have to be chosen otherwise."""


@dataclass(slots=True)
class _Search:
    """A search that steps back to the last choice that has to do with a failure (conflict-directed backjumping,
    P. Prosser, Hybrid Algorithms for the Constraint Satisfaction Problem, 1993).

    why: what kept the first, most wanted choice from being one.
    """

    candidates: Mapping[str, tuple[Known, ...]]
    why: OutliveError | None = None
    tries: int = field(default=0)

    def complete(self, chosen: _Chosen, wishes: tuple[_Wish, ...]) -> _Chosen | _Blamed:
        """Choose for the first wish that has no package yet, and for all that follows from it."""
        name = next((wish.wanted.name for wish in wishes if wish.wanted.name not in chosen), None)
        if name is None:
            return chosen
        about = [wish for wish in wishes if wish.wanted.name == name]
        blamed = {wish.by.name for wish in about if wish.by}
        fitting = [one for one in self._all(name) if all(one.version in wish.wanted.range for wish in about)]
        if not fitting:
            self._note(_none_fits(name, about, self._all(name)))
        if len(chosen) >= MOST_CHOSEN:
            self._note(DependencyConflict(f"More than {MOST_CHOSEN} packages would have to be installed."))
            return _Blamed()
        for one in fitting:
            self.tries += 1
            if self.tries > MOST_TRIES:
                return _Blamed()
            with_one = {**chosen, name: one}
            every = (*wishes, *(_Wish(one, want) for want in one.wants))
            if to_blame := self._circle(one, with_one) or self._contradicted(one, with_one, every):
                blamed |= to_blame
                continue
            found = self.complete(with_one, every)
            if not isinstance(found, frozenset) or name not in found:
                return found
            blamed |= found
        return _Blamed(blamed - {name})

    def _circle(self, one: Known, chosen: _Chosen) -> _Blamed:
        """Who is in a circle with the one that was chosen last."""
        way = _way_back(one, chosen)
        if way:
            told = " needs ".join(str(each) for each in (*way, one))
            self._note(
                DependencyCycle(
                    f"Packages depend on each other in a circle: {told}.",
                    remedy="push a version of one of them that does not depend on the next",
                )
            )
        return _Blamed(each.name for each in way)

    def _contradicted(self, one: Known, chosen: _Chosen, wishes: tuple[_Wish, ...]) -> _Blamed:
        """Whose chosen version is none that the one that was chosen last could do with."""
        against = [
            want.name for want in one.wants if want.name in chosen and chosen[want.name].version not in want.range
        ]
        for name in against[:1]:
            about = [wish for wish in wishes if wish.wanted.name == name]
            self._note(_none_fits(name, about, self._all(name), chosen[name]))
        return _Blamed(against)

    def _all(self, name: str) -> tuple[Known, ...]:
        return self.candidates.get(name, ())

    def _note(self, why: OutliveError) -> None:
        self.why = self.why or why


def _by_name(packages: Iterable[Known], keep: Mapping[str, Version]) -> dict[str, tuple[Known, ...]]:
    """All versions of each package, the one to prefer first."""
    found: dict[str, list[Known]] = {}
    for one in packages:
        found.setdefault(one.name, []).append(one)
    for name, several in found.items():
        several.sort(key=lambda one: (keep.get(name) == one.version, one.version, one.id), reverse=True)
    return {name: tuple(several) for name, several in found.items()}


def _way_back(one: Known, chosen: _Chosen) -> tuple[Known, ...]:
    """The packages along a circle that begins with this one; () if there is none."""
    came_from: dict[str, str] = {}
    waiting = [one.name]
    while waiting:
        name = waiting.pop()
        for want in chosen[name].wants:
            if want.name == one.name:
                way = [name]
                while way[-1] != one.name:
                    way.append(came_from[way[-1]])
                return tuple(chosen[each] for each in reversed(way))
            if want.name not in came_from and want.name in chosen:
                came_from[want.name] = name
                waiting.append(want.name)
    return ()


def _none_fits(name: str, wishes: list[_Wish], there: tuple[Known, ...], one: Known | None = None) -> OutliveError:
    """Why a package cannot be chosen. one: the version that everybody wanted until now."""
    who = "; ".join(dict.fromkeys(str(wish) for wish in wishes))
    versions = [str(each.version) for each in sorted(there, key=lambda each: each.version, reverse=True)]
    shown = ", ".join(versions[:_SHOWN_VERSIONS]) + (", …" if len(versions) > _SHOWN_VERSIONS else "")
    if not there:
        return PackageMissing(f"There is no package {name}.", cause=who, remedy=f"push a package {name}")
    for wish in wishes:
        if not any(each.version in wish.wanted.range for each in there):
            return PackageMissing(
                f"There is no version {wish.wanted.range} of the package {name}.",
                cause=f"{who}; there are {shown}",
                remedy=f"push such a version of {name}, or ask for another",
            )
    instead = f"; {one.version} was chosen" if one is not None else ""
    return DependencyConflict(
        f"No version of the package {name} suits everybody who needs it.",
        cause=f"{who}; there are {shown}{instead}",
        remedy="push versions that agree, or ask for others",
    )


def _in_order(chosen: _Chosen) -> tuple[Known, ...]:
    """Each after what it needs; otherwise by name. There is no circle."""
    order: dict[str, Known] = {}

    def place(one: Known) -> None:
        for want in sorted(one.wants, key=lambda want: want.name):
            if want.name not in order:
                place(chosen[want.name])
        order[one.name] = one

    for name in sorted(chosen):
        if name not in order:
            place(chosen[name])
    return tuple(order.values())
