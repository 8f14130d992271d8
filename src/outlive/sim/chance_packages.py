"""Packages of a world that is drawn from a seed: who runs from one, where each was pushed, and what goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from outlive.cluster.workload import Kind, UpgradePolicy

from .depot import use_of
from .faults import Fault
from .setup import Setup, WorkloadSetup

VERSIONS = ("app@1.0.0", "app@1.1.0", "app@2.0.0")
NEEDED = "lib@1.0.0"
KEYS = (*VERSIONS, NEEDED)

Draft = Callable[[Random, float, list[str], list[WorkloadSetup]], list[Fault]]


def packaged(random: Random, setup: Setup, hosts: list[str]) -> Setup:
    """The same world, in half of all seeds with services that run from a package."""
    if random.random() < 0.5:
        return setup
    upgrade = UpgradePolicy(random.choice((4.0, 10.0)), random.choice((1.0, 3.0)))
    needs = random.choice(("", f"+{NEEDED}"))
    workloads = []
    for each in setup.workloads:
        workload = each.workload
        if workload.kind is Kind.SERVICE and random.random() < 0.8:
            use = use_of(random.choice(VERSIONS[:2]) + needs)
            workload = replace(workload, package=use, upgrade=upgrade)
        workloads.append(replace(each, workload=workload))
    pushed = tuple((key, random.choice(hosts)) for key in KEYS)
    return replace(setup, workloads=tuple(workloads), packages=pushed)


def _upgrade(random: Random, at_s: float, _: list[str], workloads: list[WorkloadSetup]) -> list[Fault]:
    """One workload, or all that run from a package at once, are brought to a version that may be no good."""
    users = [each.workload.name for each in workloads if each.workload.package is not None]
    if not users:
        return []
    key = random.choice(VERSIONS)
    faults = []
    if random.random() < 0.4:
        faults.append(Fault(at_s, "bad-version", (key,), random.uniform(4.0, 20.0)))
    for name in users if random.random() < 0.6 else [random.choice(users)]:
        faults.append(Fault(round(at_s + random.uniform(0.0, 1.0), 3), "upgrade", (name, key)))
    return faults


def _fails(verb: str) -> Draft:
    def fault(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
        args = (random.choice(KEYS),) if random.random() < 0.3 else (random.choice(KEYS), random.choice(hosts))
        return [Fault(at_s, verb, args, random.uniform(1.0, 10.0))]

    return fault


def _remove(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A version goes, if nothing uses it, and may be pushed again."""
    key = random.choice(KEYS)
    faults = [Fault(at_s, "remove-package", (key,))]
    if random.random() < 0.7:
        faults.append(Fault(round(at_s + random.uniform(0.5, 8.0), 3), "push", (key, random.choice(hosts))))
    return faults


def _damage(random: Random, at_s: float, hosts: list[str], _: list[WorkloadSetup]) -> list[Fault]:
    """A disk has lost a bit of a package."""
    return [Fault(at_s, "damage-copy", (random.choice(KEYS), random.choice(hosts)))]


DRAFTS: dict[str, tuple[int, Draft]] = {
    "upgrade": (6, _upgrade),
    "fail fetches": (2, _fails("fail-fetches")),
    "fail installs": (2, _fails("fail-installs")),
    "remove package": (1, _remove),
    "damage copy": (1, _damage),
}
"""Kinds of faults by name, as in `chance`."""
