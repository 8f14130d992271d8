"""How much of its past a store keeps: some minutes, so that watches can go on where they ended, and no more.

A store that several hosts share keeps every change until somebody says that it may forget. The leader does, from time
to time; another one that takes over begins to count anew, which only keeps the past for longer.
"""

from collections import deque

KEPT_S = 600.0
BETWEEN_S = 60.0


class History:
    """What revision the store was at, some minutes back."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, int]] = deque()

    def forgettable(self, now: float, revision: int) -> int | None:
        """Note where the store is now; a revision before which nothing is needed any more, at most each BETWEEN_S.

        now: seconds on the boot clock.
        """
        if self._noted and now - self._noted[-1][0] < BETWEEN_S:
            return None
        self._noted.append((now, revision))
        old = None
        while now - self._noted[0][0] >= KEPT_S:
            old = self._noted.popleft()[1]
        return old

    def begin_anew(self) -> None:
        """Somebody else sees to it."""
        self._noted.clear()
