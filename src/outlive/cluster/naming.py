"""How many things are named in one sentence: the first few, and how many others.

What is told of a cluster goes into records and events, so that its length must not grow with the cluster's.
"""

from collections.abc import Mapping, Sequence

MOST_NAMED = 3
MOST_REASONS = 6


def named(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """These names as part of a sentence: all of a few, else the first and how many others there are."""
    if len(names) > most + 1:
        names = (*names[:most], f"{len(names) - most} others")
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def by_reason(reasons: Mapping[str, str]) -> str:
    """What is said of each of these names, with those of which the same is said together: 'a and b: it is dead'."""
    alike: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items()):
        alike.setdefault(reason, []).append(name)
    # Most of them first where not every reason can be told; else in the order of the names, which people look for.
    told = sorted(alike.items(), key=lambda each: (-len(each[1]), each[1]))[:MOST_REASONS]
    left = len(reasons) - sum(len(names) for _, names in told)
    parts = [f"{named(names)}: {reason}" for reason, names in sorted(told, key=lambda each: each[1])]
    return "; ".join([*parts, f"and {left} for other reasons"] if left else parts)
