"""When to cut the next epoch, and how: at once when somebody waits for what the guest said, seldom when nobody does.

Never sooner after the last one than the floor, nor than the guest needs to have run so that its pauses stay within the
policy's share of the time that it would have used: a guest that waits loses nothing by standing still. Pure: times are
arguments, in seconds on one clock.
"""

from collections import deque
from dataclasses import dataclass

from outlive.replication.comm_config import HotValues

_REMEMBERED = 4096
_SMOOTHING = 0.2
_MANY_PAGES = 1000
_WRITTEN_AGAIN = 0.4
_EPOCHS_UNTIL_TRIED_AGAIN = 50


@dataclass(frozen=True, slots=True)
class Told:
    """Pauses since it was last told, in milliseconds, and pages per epoch (median)."""

    median_ms: float
    p99_ms: float
    pages: int


class Pace:
    """The rhythm of one pairing."""

    def __init__(self, hot: HotValues) -> None:
        self._floor_s = hot.floor_ms / 1000
        self._idle_s = hot.idle_ms / 1000
        self._run_per_pause = (1 - hot.overhead) / hot.overhead
        self._ended = 0.0
        self._typical_pause_s = 0.0
        self._busy_share = 1.0
        self.last_pause_s = 0.0
        self._pauses: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)

    def cut(self, ended: float, pause_s: float, pages: int, busy_share: float) -> None:
        """An epoch was cut: the guest goes on since `ended`, after standing for `pause_s`.

        busy_share: of the time before that, what the guest computed.
        """
        self._ended = ended
        self.last_pause_s = pause_s
        self._typical_pause_s += _SMOOTHING * (pause_s - self._typical_pause_s)
        self._busy_share += _SMOOTHING * (busy_share - self._busy_share)
        self._pauses.append((pause_s, pages))

    def wait_s(self, now: float, *, wanted: bool) -> float:
        """How long until the next cut is due; not above 0: now. wanted: somebody waits for it."""
        return self.earliest_s(now) if wanted else max(self._ended + self._idle_s - now, self.earliest_s(now))

    def earliest_s(self, now: float) -> float:
        """How long until the next cut is allowed."""
        # What it has time to spare for it catches up with: half busy, it loses a quarter of a pause.
        lost_s = min(self._typical_pause_s, self.last_pause_s) * self._busy_share**2
        return self._ended + max(self._floor_s, lost_s * self._run_per_pause) - now

    def may_cut(self, now: float) -> bool:
        return self.earliest_s(now) <= 0

    def tell(self) -> Told:
        """Sum up what was cut since the last time."""
        if not self._pauses:
            return Told(0.0, 0.0, 0)
        pauses = sorted(pause for pause, _ in self._pauses)
        pages = sorted(count for _, count in self._pauses)
        self._pauses.clear()
        p99 = pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))]
        return Told(pauses[len(pauses) // 2] * 1000, p99 * 1000, pages[len(pages) // 2])


class Ahead:
    """Whether an epoch's pages are worth copying in two goes, the first of which the guest does not wait for.

    They are when there are many and, as a rule, few of them are written again meanwhile. After it was not worth while
    it is tried again only some epochs later.
    """

    def __init__(self) -> None:
        self._many = False
        self._again_share = 0.0
        self._not_for = 0

    @property
    def worthwhile(self) -> bool:
        return self._many and not self._not_for

    def learn(self, ahead: int, standing: int) -> None:
        """An epoch was cut. ahead, standing: pages copied while the guest ran, and while it stood."""
        self._not_for = max(0, self._not_for - 1)
        # A few pages tell nothing: those that an idle guest writes are the same ones again and again.
        if ahead and self._many:
            self._again_share += _SMOOTHING * (min(1.0, standing / ahead) - self._again_share)
        if self._again_share > _WRITTEN_AGAIN:
            self._again_share, self._not_for = 0.0, _EPOCHS_UNTIL_TRIED_AGAIN
        self._many = max(ahead, standing) >= _MANY_PAGES
