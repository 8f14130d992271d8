"""What an agent counts and measures of itself on the way, for `/metrics` to tell.

Noting something is an addition or two, takes no lock and keeps nothing but sums, since steps and heartbeats are noted
too. All of it belongs to the agent's loop.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS_S = (0.00001, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tally:
    """How long something took, many times: how often up to each of the bounds, and all together."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, took_s: float) -> None:
        """Take in one time."""
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s

    def up_to(self) -> Iterator[tuple[str, int]]:
        """For each bound, as text, how many took no longer; the last is "+Inf"."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


Answered = tuple[str, str, int]
"""Method, path as it is declared, and status: of these there are few."""


@dataclass(slots=True)
class Figures:
    """One run of the agent in numbers.

    steps: of each decision machine.  store: of each kind of call; store_failures: those that were not done.
    datagrams: by what became of them; nearly all of them are heartbeats.
    requests: how the API answered; answers: how long that took, until the head of the answer.
    """

    steps: dict[str, Tally] = field(default_factory=lambda: {"node": Tally(), "leader": Tally()})
    store: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    store_failures: Counter[str] = field(default_factory=Counter)
    heartbeats_sent: int = 0
    datagrams: dict[str, int] = field(default_factory=dict)
    requests: Counter[Answered] = field(default_factory=Counter)
    answers: Tally = field(default_factory=Tally)
    loop_lag_s: float = 0.0
    events_waiting: int = 0
