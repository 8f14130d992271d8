"""Generations: the numbers of a workload's reigns, which only ever grow.

Every later generation is the one before it plus one (`courses`). Here is where the first one comes from, so that it is
above all that ever were, also under a name that was used before or when a hand removed the records.
"""

from .mirror import Mirror


def first_generation(mirror: Mirror) -> int:
    """The generation of a placement that has none before it: the store's revision.

    Each generation costs the store at least one revision, so no earlier one can be as high. What depends on growing
    generations (run locks, hosts that have acted before) needs no memory of removed workloads for it.
    """
    return max(1, mirror.revision)
