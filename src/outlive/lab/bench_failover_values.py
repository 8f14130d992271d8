"""What the bench of failovers found, as values: each loss of a host, how times are spread, what was to be reached."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil
from typing import Any

from .timeline import reached

LIMIT_ISSUED_S = 5.0


class LossKind(StrEnum):
    """How a host is lost, in the order in which they take turns."""

    POWER = "power cut"
    SIGSTOP = "SIGSTOP"
    PARTITION = "partition"
    ISOLATION = "isolation"


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss. All times in seconds since it began; None: not seen.

    detected_s: the first verdict that is more than a suspicion; issued_s: another host was told to start the workload;
    first_reply_s: a client was answered after that. wrong: verdicts that were not true, each "host verdict".
    both: when two hosts were seen to act at once, and which.
    """

    kind: LossKind
    primary: str
    successor: str
    detected_s: float | None
    issued_s: float | None
    first_reply_s: float | None
    wrong: tuple[str, ...] = ()
    both: tuple[tuple[float, str], ...] = ()

    def sentence(self) -> str:
        """The loss, for people."""
        issued = f"restart issued after {self.issued_s:.2f} s" if self.issued_s is not None else "no restart seen"
        wrong = f", WRONG: {', '.join(self.wrong)}" if self.wrong else ""
        both = f", TWO ACTED after {self.both[0][0]:.2f} s ({self.both[0][1]})" if self.both else ""
        return f"{self.kind} of {self.primary}, {issued} on {self.successor}{wrong}{both}"


@dataclass(frozen=True, slots=True)
class FailoverBench:
    """All losses.

    lost, duplicated: of what clients were told; None: it could not be counted.  double: looks that saw two hosts act.
    """

    losses: tuple[Loss, ...]
    lost: int | None
    duplicated: int | None
    double: int
    unfinished: str = ""

    @property
    def clean(self) -> bool:
        """Whether no promise was broken."""
        return not any(each.wrong for each in self.losses) and not (self.lost or self.duplicated or self.double)


@dataclass(frozen=True, slots=True)
class Spread:
    """How measured times are spread: half are at most the median, nine of ten at most p90."""

    count: int
    median_s: float | None
    p90_s: float | None
    worst_s: float | None


TIMES = ("detected_s", "issued_s", "first_reply_s")


def spread(times_s: Iterable[float | None]) -> Spread:
    """The spread of those that were seen, by nearest rank."""
    seen = sorted(each for each in times_s if each is not None)
    if not seen:
        return Spread(0, None, None, None)

    def rank(share: float) -> float:
        return round(seen[ceil(share * len(seen)) - 1], 3)

    return Spread(len(seen), rank(0.5), rank(0.9), rank(1.0))


def spreads(bench: FailoverBench) -> dict[str, dict[str, Spread]]:
    """For each kind of loss that there was, and for all together, how each time is spread."""
    groups = {kind.value: [each for each in bench.losses if each.kind is kind] for kind in LossKind}
    groups["all"] = list(bench.losses)
    return {
        name: {time: spread(getattr(each, time) for each in losses) for time in TIMES}
        for name, losses in groups.items()
        if losses
    }


def reach(bench: FailoverBench) -> list[dict[str, Any]]:
    """Each figure that the project set itself, with what was measured."""
    issued = [each.issued_s for each in bench.losses]
    worst = max((each for each in issued if each is not None), default=None) if None not in issued else None
    rows = [
        ("restart issued, worst of all losses", None if worst is None else round(worst, 3), "s", LIMIT_ISSUED_S),
        ("wrong verdicts", sum(len(each.wrong) for each in bench.losses), "", 0),
        ("acknowledged and lost", bench.lost, "", 0),
        ("done twice", bench.duplicated, "", 0),
        ("looks that saw two hosts act", bench.double, "", 0),
    ]
    return [{**row, "side": "at most"} for row in reached(rows)]


def told(bench: FailoverBench) -> dict[str, Any]:
    """The bench as one object."""
    losses = [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(each).items()}
        for each in bench.losses
    ]
    spread_out = {name: {time: asdict(each) for time, each in times.items()} for name, times in spreads(bench).items()}
    verdict = {"clean": bench.clean, "unfinished": bench.unfinished}
    return {"losses": losses, "spreads": spread_out, **verdict, "reach": reach(bench)}
