"""What a bench of virtual machines measures, as values: rows, what of them is held against limits, and the verdict.

Pure: nothing is measured here, and a figure that could not be had is None, never a guess. The invariant: only something
lost, doubled, broken or said by two makes a bench fail; timings are told, whatever they are.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LIMIT_PAUSE_IDLE_MS, LIMIT_PAUSE_4K_MS, LIMIT_P99_PER_MEDIAN = 1.5, 4.0, 3.0
LIMIT_RTT_ONE_MS, LIMIT_RTT_EIGHT_MS = 3.5, 5.0
LEAST_REQUESTS_RATIO = 0.5
LIMIT_FIRST_REPLY_MS = 200.0


@dataclass(frozen=True, slots=True)
class Level:
    """How much memory the guest changes by itself. pages: per epoch of an otherwise idle guest."""

    name: str
    pages: int


IDLE, BUSY, VERY_BUSY = Level("idle", 0), Level("4k pages", 4000), Level("20k pages", 20000)
LEVELS = (IDLE, BUSY, VERY_BUSY)
CLIENTS = (0, 1, 8, 32)
"""How many clients ask, one table row each: one and eight of them pause between requests, 32 do not."""


@dataclass(frozen=True, slots=True)
class Second:
    """What a communication manager told of its last second. epochs, sent_bytes: since the pairing began."""

    at_s: float
    epochs: int
    pause_ms: float
    pause_p99_ms: float
    pages: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Epochs:
    """How replication went over several seconds. pages: per epoch; sent_bytes_per_s: to the standby."""

    pause_ms: float
    pause_p99_ms: float
    pages: float
    epochs_per_s: float
    sent_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processors that each process used, 1.0 for one of them; None where there is none."""

    primary_emulator: float | None = None
    standby_emulator: float | None = None
    primary_comm: float | None = None
    standby_comm: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One machine under one load for some seconds.

    epochs: None for one that nobody follows.
    wrong:  requests that were lost or done twice, and connections that broke.
    """

    level: str
    clients: int
    rtt_ms: float | None
    rtt_p99_ms: float | None
    requests_per_s: float | None
    epochs: Epochs | None
    cpu: Cpu
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class Bulk:
    """How fast one large transfer went, in bytes a second."""

    level: str
    to_guest: float
    from_guest: float


@dataclass(frozen=True, slots=True)
class Run:
    """All that was measured of one machine."""

    windows: tuple[Window, ...]
    bulk: tuple[Bulk, ...]


@dataclass(frozen=True, slots=True)
class PowerCut:
    """One power cut. Times are milliseconds after its beginning; None for what was not seen.

    detected_ms: the standby missed its primary.  won_ms: it won the store.
    adopt_ms:    how long its communication manager then needed until the guest ran.
    running_ms:  the cluster has on record that it runs there, announced; clients may have had answers before.
    first_reply_ms: each connection's first answer after the cut.
    broken:      connections that broke, or whose request nobody ever answered.
    double:      moments at which two hosts spoke.
    """

    primary: str
    successor: str
    detected_ms: float | None
    won_ms: float | None
    adopt_ms: float | None
    running_ms: float | None
    first_reply_ms: tuple[float | None, ...]
    acknowledged: int
    lost: int
    duplicated: int
    broken: int
    double: int

    @property
    def first_reply_median_ms(self) -> float | None:
        """The median over its connections; None when one of them had no answer, or there were none."""
        return middle(self.first_reply_ms) if None not in self.first_reply_ms else None

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled, broken, or said by two."""
        return not (self.lost or self.duplicated or self.broken or self.double)


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole bench: the unprotected machine, the hot one, and the hot one's power cuts.

    unfinished: why there are fewer power cuts than were wanted; '' when all were made.
    """

    unprotected: Run
    hot: Run
    cuts: tuple[PowerCut, ...]
    unfinished: str = ""

    @property
    def clean(self) -> bool:
        """Whether protection cost nothing but time, in power cuts and without any."""
        return all(each.clean for each in self.cuts) and not any(each.wrong for each in self.hot.windows)

    def pairs(self) -> list[tuple[Window | None, Window]]:
        """Each load's window of the unprotected machine and of the hot one."""
        alone = {(each.level, each.clients): each for each in self.unprotected.windows}
        return [(alone.get((each.level, each.clients)), each) for each in self.hot.windows]


def middle(numbers: Iterable[float | None]) -> float | None:
    """The median of those that are known; None when none is."""
    known = [each for each in numbers if each is not None]
    return statistics.median(known) if known else None


def over(seconds: Sequence[Second]) -> Epochs | None:
    """Several seconds as one, by medians; the first is only where counting begins. None where nothing was told."""
    if len(seconds) < 2:
        return None
    first, last, counted = seconds[0], seconds[-1], seconds[1:]
    span_s = last.at_s - first.at_s
    return Epochs(
        statistics.median(each.pause_ms for each in counted),
        statistics.median(each.pause_p99_ms for each in counted),
        statistics.median(each.pages for each in counted),
        (last.epochs - first.epochs) / span_s,
        (last.sent_bytes - first.sent_bytes) / span_s,
    )


def ratio(part: float | None, whole: float | None) -> float | None:
    """One figure as a share of another; None where either is not known."""
    return part / whole if part is not None and whole else None


def reach(bench: Bench) -> list[dict[str, Any]]:
    """The figures to reach, with what was measured; what was not measured does not hold."""
    found = {(hot.level, hot.clients): (alone, hot) for alone, hot in bench.pairs()}
    rows: list[dict[str, Any]] = []

    def row(what: str, value: float | None, unit: str, limit: float, *, at_least: bool = False) -> None:
        holds = value is not None and (value >= limit if at_least else value <= limit)
        side = "at least" if at_least else "at most"
        rows.append({"what": what, "value": rounded(value), "unit": unit, "limit": limit, "side": side, "holds": holds})

    for level, limit_ms in ((IDLE, LIMIT_PAUSE_IDLE_MS), (BUSY, LIMIT_PAUSE_4K_MS)):
        _, rest = found.get((level.name, 0), (None, None))
        epochs = rest.epochs if rest is not None else None
        row(f"pause, {level.name}, median", epochs.pause_ms if epochs else None, "ms", limit_ms)
        share = ratio(epochs.pause_p99_ms, epochs.pause_ms) if epochs else None
        row(f"pause, {level.name}, p99 to median", share, "", LIMIT_P99_PER_MEDIAN)
    for clients, word, limit_ms in ((1, "one client", LIMIT_RTT_ONE_MS), (8, "eight clients", LIMIT_RTT_EIGHT_MS)):
        _, hot = found.get((IDLE.name, clients), (None, None))
        row(f"round trip, {word}, median", hot.rtt_ms if hot else None, "ms", limit_ms)
    alone, hot = found.get((IDLE.name, 32), (None, None))
    share = ratio(hot.requests_per_s if hot else None, alone.requests_per_s if alone else None)
    row("requests with 32 clients, to unprotected", share, "", LEAST_REQUESTS_RATIO, at_least=True)
    replies = middle(each.first_reply_median_ms for each in bench.cuts)
    row("first reply after a power cut, median", replies, "ms", LIMIT_FIRST_REPLY_MS)
    for what in ("lost", "duplicated", "broken", "double"):
        row(f"{what}, all power cuts", sum(getattr(each, what) for each in bench.cuts) if bench.cuts else None, "", 0)
    return rows


def told(bench: Bench) -> dict[str, Any]:
    """The bench as one object."""
    windows = [
        {
            "guest": hot.level,
            "clients": hot.clients,
            "unprotected": _window(alone) if alone is not None else None,
            "hot": _window(hot),
            "requests_ratio": rounded(ratio(hot.requests_per_s, alone.requests_per_s if alone else None)),
        }
        for alone, hot in bench.pairs()
    ]
    alone_bulk = {each.level: each for each in bench.unprotected.bulk}
    bulk = [
        {
            "guest": each.level,
            "unprotected": _bulk(alone_bulk[each.level]) if each.level in alone_bulk else None,
            "hot": _bulk(each),
        }
        for each in bench.hot.bulk
    ]
    cuts = [
        {**_all_rounded(asdict(each)), "first_reply_ms_median": rounded(each.first_reply_median_ms)}
        for each in bench.cuts
    ]
    medians = {
        name: rounded(middle(getattr(each, name) for each in bench.cuts))
        for name in ("detected_ms", "won_ms", "adopt_ms", "running_ms")
    }
    totals = {
        name: sum(getattr(each, name) for each in bench.cuts)
        for name in ("acknowledged", "lost", "duplicated", "broken", "double")
    }
    first = rounded(middle(each.first_reply_median_ms for each in bench.cuts))
    takeover = {"cuts": len(bench.cuts), **medians, "first_reply_ms_median": first, **totals}
    verdict = {"clean": bench.clean, "unfinished": bench.unfinished}
    return {"rows": windows, "bulk": bulk, "takeover": takeover, "cuts": cuts, **verdict, "reach": reach(bench)}


def rounded(number: float | None) -> float | None:
    """A figure without the digits that mean nothing."""
    return None if number is None else round(number, 3)


def _window(window: Window) -> dict[str, Any]:
    found = asdict(window)
    del found["level"], found["clients"]
    return _all_rounded(found)


def _bulk(bulk: Bulk) -> dict[str, int]:
    return {"to_guest_bytes_per_s": round(bulk.to_guest), "from_guest_bytes_per_s": round(bulk.from_guest)}


def _all_rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _deep_rounded(value) for name, value in values.items()}


def _deep_rounded(value: Any) -> Any:
    match value:
        case float():
            return rounded(value)
        case dict():
            return _all_rounded(value)
        case tuple() | list():
            return [_deep_rounded(each) for each in value]
        case _:
            return value
