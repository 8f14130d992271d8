"""Fewer faults that break the same rule: what a failing seed is cut down to before a person reads it.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the seed's
faults, by their numbers in its plan. What is tried is run by the caller; here is only what to try next.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

TRIES = 300


def shrink(faults: int, breaks: Callable[[Sequence[int]], bool], tries: int = TRIES) -> tuple[int, ...]:
    """Numbers of faults that still break the rule; with tries enough, none of them could be left out.

    faults: how many there are; all of them together must break it.  breaks: whether these alone do.
    tries: how often that may be asked.
    """
    kept, parts, asked = tuple(range(faults)), 2, 0
    while kept and asked < tries:
        parts = min(parts, len(kept))
        for part in _parts(kept, parts):
            if asked == tries:
                return kept
            asked += 1
            if breaks(part):
                kept, parts = part, max(parts - 1, 2)
                break
        else:
            if parts == len(kept):
                break
            parts = 2 * parts
    return kept


def _parts(kept: tuple[int, ...], parts: int) -> list[tuple[int, ...]]:
    """All but one of so many equal parts, each in turn; of one fault, none at all."""
    bounds = [len(kept) * number // parts for number in range(parts + 1)]
    return [kept[:begin] + kept[end:] for begin, end in pairwise(bounds)]
