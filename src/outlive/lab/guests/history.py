"""What clients recorded, and what it proves: whether an answer was lost, a request done twice, a connection broken.

Records are of `outlive-guest-clients` (native/guest/clients.c), whose head tells their form. Everything here is pure:
from a record's text to values, and from values to a verdict. Times are nanoseconds of the boot clock.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

IN_FLIGHT_MS = 20.0
"""How long after a power cut answers may still arrive that had left before it."""

_NS_PER_MS, _NS_PER_S = 1e6, 1e9


@dataclass(frozen=True, slots=True)
class Answer:
    """One request that was answered. number: the connection's count of requests; value: what the server counted."""

    connection: int
    number: int
    sent_ns: int
    received_ns: int
    value: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """One request of which nobody knows whether it was done."""

    connection: int
    number: int
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Seen:
    """How many of a connection's requests the server said that it has done."""

    connection: int
    count: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class History:
    """One record. ended_ns: None while it still grows, or when the clients were killed."""

    connections: frozenset[int] = frozenset()
    answers: tuple[Answer, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()
    broken: tuple[int, ...] = ()
    seen: tuple[Seen, ...] = ()
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a record proves. Times in milliseconds; None where there were no answers.

    lost:       acknowledged requests that the server forgot: it counts fewer, or told the same number twice.
    duplicated: requests that were done more than once.
    unanswered: requests that were under way at the end or at a break.
    unverified: connections of which the server's own count is not known at the end.
    failed:     requests that the server answered it could not do.
    longest_gap_ms: the longest that a connection waited for its next answer.
    """

    answered: int
    lost: int
    duplicated: int
    broken_connections: int
    unanswered: int
    unverified: int
    failed: int
    requests_per_s: float
    rtt_median_ms: float | None
    rtt_p99_ms: float | None
    longest_gap_ms: float | None

    @property
    def clean(self) -> bool:
        """Whether nothing at all went wrong, as far as clients can know."""
        return not (self.lost or self.duplicated or self.broken_connections or self.unverified or self.failed)


def parse(text: str) -> History:
    """Read a record; a last line that is not whole yet is left out. Raises ValueError for what is none."""
    connections: set[int] = set()
    answers: list[Answer] = []
    unanswered: list[Unanswered] = []
    broken: list[int] = []
    seen: list[Seen] = []
    ended_ns = None
    for line in text[: text.rfind("\n") + 1].splitlines():
        kind, *words = line.split()
        fields = [int(word) for word in words]
        match kind, fields:
            case "r", [connection, number, sent_ns, received_ns, value]:
                answers.append(Answer(connection, number, sent_ns, received_ns, value))
            case "c", [connection, _, _]:
                connections.add(connection)
            case "s", [connection, count, _, at_ns]:
                seen.append(Seen(connection, count, at_ns))
            case "u", [connection, number, sent_ns]:
                unanswered.append(Unanswered(connection, number, sent_ns))
            case "b", [connection, _, _]:
                broken.append(connection)
            case "e", [at_ns]:
                ended_ns = at_ns
            case _:
                raise ValueError(f"no line of a record: {line!r}")
    return History(frozenset(connections), tuple(answers), tuple(unanswered), tuple(broken), tuple(seen), ended_ns)


def judge(history: History, *, counts: bool = True, alone: bool = True) -> Outcome:
    """Say what a history proves.

    counts: whether the requests were such that count (inc, dw); of others only times and breaks are told.
    alone:  whether nobody else counted meanwhile, so that a number that nobody was told was given away twice.
    """
    answers = history.answers
    round_trips = sorted((each.received_ns - each.sent_ns) / _NS_PER_MS for each in answers)
    lost, duplicated, unverified = _by_count(history) if counts else (0, 0, 0)
    if counts:
        told_twice, skipped = _by_value(history)
        lost = max(lost, told_twice)
        duplicated = max(duplicated, skipped) if alone else duplicated
    span_ns = max((each.received_ns for each in answers), default=0) - min(
        (each.sent_ns for each in answers), default=0
    )
    gaps = gaps_ms(history)
    return Outcome(
        answered=len(answers),
        lost=lost,
        duplicated=duplicated,
        broken_connections=len(history.broken),
        unanswered=len(history.unanswered),
        unverified=unverified,
        failed=sum(1 for each in answers if each.value == 0) if counts else 0,
        requests_per_s=len(answers) / span_ns * _NS_PER_S if span_ns else 0.0,
        rtt_median_ms=median(round_trips) if round_trips else None,
        rtt_p99_ms=percentile(round_trips, 0.99),
        longest_gap_ms=max(gaps, default=None),
    )


def _by_count(history: History) -> tuple[int, int, int]:
    """Lost, duplicated and unverified, by the server's count for each connection before and after."""
    lost = duplicated = unverified = 0
    answered = Counter(each.connection for each in history.answers if each.value)
    asked = answered + Counter(each.connection for each in history.unanswered)
    for connection in history.connections:
        told = [each.count for each in history.seen if each.connection == connection]
        if len(told) < 2:
            unverified += 1
            continue
        done = told[-1] - told[0]
        lost += max(0, answered[connection] - done)
        duplicated += max(0, done - asked[connection])
    return lost, duplicated, unverified


def _by_value(history: History) -> tuple[int, int]:
    """How many numbers were told again, and how many nobody was told although nobody may still wait for them."""
    told = Counter(each.value for each in history.answers if each.value)
    twice = sum(times - 1 for times in told.values())
    missing = max(told) - min(told) + 1 - len(told) if told else 0
    failed = sum(1 for each in history.answers if each.value == 0)
    return twice, max(0, missing - len(history.unanswered) - failed)


def gaps_ms(history: History) -> list[float]:
    """Every wait from one answer to the next on the same connection, and those that the record's end cut short."""
    gaps: list[float] = []
    for connection in history.connections:
        at_ns = [each.received_ns for each in history.answers if each.connection == connection]
        gaps += [(after - before) / _NS_PER_MS for before, after in pairwise(at_ns)]
    if history.ended_ns is not None:
        gaps += [(history.ended_ns - each.sent_ns) / _NS_PER_MS for each in history.unanswered]
    return gaps


def first_replies_ms(history: History, at_ns: int, *, in_flight_ms: float = IN_FLIGHT_MS) -> list[float | None]:
    """How long after an instant, such as a power cut, each connection had its first answer; None where none came.

    Answers within `in_flight_ms` of it are held to have left before.
    """
    since_ns = at_ns + int(in_flight_ms * _NS_PER_MS)
    first: dict[int, int] = {}
    for each in history.answers:
        if each.received_ns > since_ns:
            first[each.connection] = min(each.received_ns, first.get(each.connection, each.received_ns))
    return [
        (first[connection] - at_ns) / _NS_PER_MS if connection in first else None
        for connection in sorted(history.connections)
    ]


def between(history: History, from_ns: int, until_ns: int) -> History:
    """The answers to what was sent within this time; for times only, since counts are of the whole."""
    return replace(history, answers=tuple(each for each in history.answers if from_ns <= each.sent_ns < until_ns))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all is not above; None when there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def together(histories: Iterable[History]) -> History:
    """Several programs' records as one, as if each connection had been of one program."""
    made = History(ended_ns=0)
    for history in histories:
        shift = max(made.connections, default=-1) + 1
        ended = None if made.ended_ns is None or history.ended_ns is None else max(made.ended_ns, history.ended_ns)
        made = History(
            made.connections | {each + shift for each in history.connections},
            made.answers + tuple(replace(each, connection=each.connection + shift) for each in history.answers),
            made.unanswered + tuple(replace(each, connection=each.connection + shift) for each in history.unanswered),
            made.broken + tuple(each + shift for each in history.broken),
            made.seen + tuple(replace(each, connection=each.connection + shift) for each in history.seen),
            ended,
        )
    return made
