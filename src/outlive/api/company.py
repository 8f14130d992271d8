"""What must hold between a workload that is applied and all others: no circles, no contradictions.

It is looked at in the agent's picture, and what was looked at is compared when the wish is written: of two wishes that
together make a circle, the second finds the first. Names that nobody has yet are no mistake; they are told.
"""

from dataclasses import replace

from outlive.cluster import records as rec
from outlive.cluster.affinity import contradiction
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.ordering import cycle, looked_at
from outlive.cluster.transaction import Compare, unchanged
from outlive.cluster.workload import Workload
from outlive.errors import UsageInvalid

MOST_LOOKED_AT = 100
"""A store takes 128 comparisons in one transaction."""


def check_order(picture: Mirror, workload: Workload) -> None:
    """Refuse a workload that would wait for itself, by way of others or not. Raises UsageInvalid."""
    wanted = Entry(rec.WorkloadRecord(workload), 0, 0)
    circle = cycle(replace(picture, workloads=picture.workloads.set(workload.name, wanted)), workload.name)
    if circle:
        raise UsageInvalid(
            f"{workload.name} would never be started: it would wait for itself.",
            cause=f"these wait for each other: {' after '.join(circle)}",
            remedy="take one of these names out of its `after` or `together_with`, so that one of them can be first",
        )


def check_company(picture: Mirror, workload: Workload) -> None:
    """Refuse what can never have a place beside the others, by what all their rules say. Raises UsageInvalid."""
    rules = workload.placement
    others = {name: entry.record.workload for name, entry in picture.workloads.items()}
    if not rules.apart_from and not rules.together_with and not _is_named(workload.name, others):
        return
    if why := contradiction(workload, others):
        raise UsageInvalid(
            f"{workload.name} could never be placed: its rules and those of others contradict each other.",
            cause=why,
            remedy="change `together_with` or `apart_from` in one of these files",
        )


def _is_named(name: str, others: dict[str, Workload]) -> bool:
    return any(name in each.placement.together_with or name in each.placement.apart_from for each in others.values())


def as_looked_at(picture: Mirror, workload: Workload) -> tuple[Compare, ...]:
    """That those by which it is known that all this holds have not changed since. Raises UsageInvalid for too many."""
    names = dict.fromkeys((*looked_at(picture, workload), *workload.placement.apart_from))
    if len(names) > MOST_LOOKED_AT:
        raise UsageInvalid(
            f"{workload.name} needs {len(names)} others before it, over all steps.",
            cause=f"at most {MOST_LOOKED_AT} can be",
            remedy="let it come after fewer, or after those that are nearest alone",
        )
    return tuple(unchanged(rec.WORKLOADS + name, _revision(picture, name)) for name in names)


def _revision(picture: Mirror, name: str) -> int:
    key = rec.WORKLOADS + name
    if key in picture.bad:
        return picture.bad[key][0]
    entry = picture.workloads.get(name)
    return entry.mod_revision if entry is not None else 0


def strangers(picture: Mirror, workload: Workload) -> list[str]:
    """A sentence for each kind of rule that names workloads which the cluster does not know."""
    rules = workload.placement
    told = (
        ("it waits for them", "after", workload.after),
        ("the rule holds once there are", "together_with", rules.together_with),
        ("the rule holds once there are", "apart_from", rules.apart_from),
        ("the rule holds once there are", "prefer_together_with", rules.prefer_together_with),
        ("the rule holds once there are", "prefer_apart_from", rules.prefer_apart_from),
    )
    found = []
    for then, key, names in told:
        if unknown := [name for name in names if name not in picture.workloads]:
            found.append(f"There is no workload {' nor '.join(unknown)} yet, named in {key}: {then}.")
    return found
