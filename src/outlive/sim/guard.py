"""A host's guard: one deadline, and death to all that acts once it has passed.

It depends on nothing but its host: it fires with the agent dead or hung. It is late by up to Timing.guard_late_s;
after a pause of the whole host it has the first turn. From then on until a later deadline is set it lets nothing act.
"""

from collections.abc import Callable
from random import Random

from .agenda import Agenda
from .clock import BootClock


class Guard:
    """fire: kills whatever acts on the host; it is called at each deadline that passes."""

    def __init__(
        self, agenda: Agenda, random: Random, clock: BootClock, late_s: float, fire: Callable[[], None]
    ) -> None:
        self._agenda = agenda
        self._random = random
        self._clock = clock
        self._most_late_s = late_s
        self._fire = fire
        self._watching = False
        self._fired = False
        self.deadline_at = 0.0
        self.running = True
        self.stalled = False

    def set_deadline(self, deadline_at: float) -> None:
        """Let the host act until then (its boot clock)."""
        self.deadline_at = deadline_at
        self._fired = False
        if not self._watching:
            self._watch()

    def allows(self) -> bool:
        """Whether the host may act now."""
        return self._clock.reads(self._agenda.now) < self.deadline_at

    def wake(self) -> None:
        """The host goes on after a pause."""
        self.stalled = False
        if self.running and not self.allows():
            self._let_fire()

    def restart(self) -> None:
        """A new guard process takes over, with the deadline that was last set."""
        self.running = True
        if not self.allows():
            self._let_fire()

    def _watch(self) -> None:
        self._watching = True
        chance = self._random.random()
        late_s = self._most_late_s * min(1.0, chance * 1.5)
        # The bound counts on the host's own clock, like the deadline.
        self._agenda.at(self._clock.when(self.deadline_at + late_s), self._look, self.deadline_at)

    def _look(self, deadline_at: float) -> None:
        self._watching = False
        if self.deadline_at > deadline_at:
            self._watch()
        elif self.running and not self.stalled:
            self._let_fire()

    def _let_fire(self) -> None:
        if not self._fired:
            self._fired = True
            self._fire()
