"""What happened in a run, in the order in which it happened, for people.

Faults as they were done, and what the machines recorded (`EventRecord`) with its cause. Kept as values;
written out only when somebody reads it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from outlive.cluster.records import EventRecord


@dataclass(frozen=True, slots=True)
class Entry:
    """at_s: real (simulated) seconds since the run began. A fault has text only, a record has `record`."""

    at_s: float
    text: str = ""
    record: EventRecord | None = None


class Timeline:
    """All entries of a run. on_record: called with each record."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.on_record: Callable[[EventRecord], None] | None = None

    def happened(self, at_s: float, text: str) -> None:
        """The world did something."""
        self.entries.append(Entry(at_s, text))

    def recorded(self, at_s: float, record: EventRecord) -> None:
        """A machine recorded an event."""
        self.entries.append(Entry(at_s, record=record))
        if self.on_record is not None:
            self.on_record(record)


def line(entry: Entry) -> str:
    """One entry in words: when, who says so, what, about what, why."""
    if entry.record is None:
        return f"{entry.at_s:9.3f}  {'world':<6} {entry.text}"
    record = entry.record
    about = [
        f"{name}={value}"
        for name, value in (
            ("host", record.host),
            ("workload", record.workload),
            ("generation", record.generation),
            ("module", record.module),
        )
        if value
    ]
    words = [record.kind, *about]
    if record.text:
        words.append(f"({record.text})")
    if record.because:
        words.append(f"<- {record.because}")
    return f"{entry.at_s:9.3f}  {record.by:<6} {' '.join(words)}  [{record.id}]"


def written(entries: list[Entry], most: int | None = None) -> str:
    """The entries as lines; with `most` only the last so many."""
    shown = entries if most is None else entries[-most:]
    left_out = len(entries) - len(shown)
    head = [f"           ({left_out} earlier entries left out)"] if left_out else []
    return "\n".join(head + [line(entry) for entry in shown])
