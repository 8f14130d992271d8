"""Heartbeats that repeat what their host said before, of all hosts at once.

Nine of ten heartbeats bring no news: what they tell is that the host is alive, and by which number. The wire gathers
those and tells of them once a tick, as one value that holds every host's newest. It never says less than the one
before it; a host that is not in it has said nothing twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Repeats:
    """Sequence and time of each host's newest heartbeat, whether it brought news or not.

    places: where each host's are in the two others. heard_at: seconds on the observer's clock.
    """

    places: Mapping[str, int] = field(default_factory=dict)
    sequences: Sequence[int] = ()
    heard_at: Sequence[float] = ()

    def of(self, host: str) -> tuple[int, float] | None:
        """Sequence and time of a host's newest heartbeat, if there was any."""
        place = self.places.get(host)
        return None if place is None else (self.sequences[place], self.heard_at[place])

    def latest_at(self) -> float:
        """When any host was last heard; 0.0: never."""
        return max(self.heard_at, default=0.0)
