"""How often what was refused, from where: counted in bounded memory, told in a bounded number of lines.

Pure: whoever refuses something counts it here and logs it when `count` says so. Totals by reason are exact
for ever; numbers by address are kept for the MOST_ADDRESSES refused last.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from .record import Reason, Refused

MOST_ADDRESSES = 256
SAME_EVERY_S = 60.0
LINES = 10
LINES_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Telling:
    """A line worth logging. times: how many of the kind since it was last told."""

    reason: Reason
    address: str
    detail: str
    times: int


@dataclass(slots=True)
class _Kept:
    count: int = 0
    told: int = 0
    told_at: float | None = None


class Refusals:
    """Counts refusals by reason and by address.

    The same reason from the same address is told at most once in SAME_EVERY_S; altogether at most LINES lines
    in LINES_WITHIN_S, so that garbage from many addresses cannot fill a disk with logs.
    """

    def __init__(self) -> None:
        self.by_reason: Counter[Reason] = Counter()
        self._kept: OrderedDict[tuple[Reason, str], _Kept] = OrderedDict()
        self._lines: list[float] = []

    def count(self, refused: Refused, address: str, now: float) -> Telling | None:
        """Note a refusal; return what to log, if this one should be. now: seconds, never going back."""
        self.by_reason[refused.reason] += 1
        key = (refused.reason, address)
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_ADDRESSES:
            self._kept.popitem(last=False)
        kept.count += 1
        if kept.told_at is not None and now - kept.told_at < SAME_EVERY_S:
            return None
        self._lines = [at for at in self._lines if now - at < LINES_WITHIN_S]
        if len(self._lines) >= LINES:
            return None
        self._lines.append(now)
        times, kept.told, kept.told_at = kept.count - kept.told, kept.count, now
        return Telling(refused.reason, address, refused.detail, times)

    def by_address(self) -> dict[tuple[Reason, str], int]:
        """The counts of the addresses refused last, newest last."""
        return {key: kept.count for key, kept in self._kept.items()}
