"""A host's boot clock: it starts anew with each boot, runs a little fast or slow, and never stops.

It goes on while the host is paused (a suspended machine, or a stalled VM whose clock is set right on waking).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BootClock:
    """rate: seconds that it counts in a real second. zero_s: the real moment at which it read zero."""

    rate: float
    zero_s: float

    def reads(self, now_s: float) -> float:
        """What the clock shows at a real moment."""
        return (now_s - self.zero_s) * self.rate

    def when(self, reading_s: float) -> float:
        """The real moment at which the clock shows `reading_s`."""
        return self.zero_s + reading_s / self.rate
