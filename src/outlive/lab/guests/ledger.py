"""What pgbench's clients were told, against what the database has: was a commit lost, or is one there twice?

Each client of a run writes 1, 2, 3, … into the table `ledger`, each number a transaction of its own, and goes on to the
next only when that was committed. pgbench logs every transaction that ended well. Everything here is pure.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .history import percentile

LEDGER_SCRIPT = """\\set number :number + 1
INSERT INTO ledger (run, client, number) VALUES (:run, :client_id, :number);
"""
"""What pgbench does, as the first of its scripts; `number` begins at 0 and `run` is given to it."""

_LEDGER = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction that a client knows to be committed. at_us: microseconds since 1970, when it was told."""

    client: int
    script: int
    took_us: int
    at_us: int


@dataclass(frozen=True, slots=True)
class LedgerOutcome:
    """How a run ended. Times in milliseconds; None where nothing was committed.

    acknowledged: numbers of the ledger that clients were told to be committed.
    lost:         those of them that the database does not have.
    duplicated:   numbers that it has more than once.
    foreign:      numbers that no client can have written, as far beyond the last one acknowledged as they are.
    broken_connections: clients that had to give up.
    complaints:   what is wrong with the database itself; empty when it is clean.
    """

    transactions: int
    acknowledged: int
    lost: int
    duplicated: int
    foreign: int
    broken_connections: int
    complaints: tuple[str, ...]
    transactions_per_s: float
    latency_median_ms: float | None
    latency_p99_ms: float | None
    longest_gap_ms: float | None

    @property
    def clean(self) -> bool:
        """Whether every commit that a client saw is there once, and the database is whole."""
        return not (self.lost or self.duplicated or self.foreign or self.complaints)


def parse_log(text: str) -> list[Transaction]:
    """Read a log of pgbench's, a transaction each line; what failed and a last line that is not whole are left out."""
    found: list[Transaction] = []
    for line in text[: text.rfind("\n") + 1].splitlines():
        words = line.split()
        if len(words) >= 6 and all(word.isdigit() for word in words[:6]):
            client, _, took_us, script, at_s, rest_us = (int(word) for word in words[:6])
            found.append(Transaction(client, script, took_us, at_s * 1_000_000 + rest_us))
    return found


def judge_ledger(
    told: Iterable[Transaction],
    rows: Iterable[tuple[int, int]],
    *,
    broken_connections: int = 0,
    complaints: Iterable[str] = (),
) -> LedgerOutcome:
    """Compare what clients were told with the database's rows (client, number) of the same run."""
    transactions = sorted(told, key=lambda each: each.at_us)
    there = Counter(rows)
    acknowledged = Counter(each.client for each in transactions if each.script == _LEDGER)
    lost = sum(
        1 for client, count in acknowledged.items() for number in range(1, count + 1) if (client, number) not in there
    )
    # One more than acknowledged may be there: committed, but the client was not told any more.
    foreign = sum(1 for client, number in there if not 1 <= number <= acknowledged[client] + 1)
    took_ms = sorted(each.took_us / 1000 for each in transactions)
    span_s = (transactions[-1].at_us - transactions[0].at_us) / 1e6 if transactions else 0.0
    gaps_ms = [(after.at_us - before.at_us) / 1000 for before, after in pairwise(transactions)]
    return LedgerOutcome(
        transactions=len(transactions),
        acknowledged=acknowledged.total(),
        lost=lost,
        duplicated=sum(times - 1 for times in there.values()),
        foreign=foreign,
        broken_connections=broken_connections,
        complaints=tuple(complaints),
        transactions_per_s=len(transactions) / span_s if span_s else 0.0,
        latency_median_ms=median(took_ms) if took_ms else None,
        latency_p99_ms=percentile(took_ms, 0.99),
        longest_gap_ms=max(gaps_ms, default=None),
    )
