"""A host's node machine in conversation: `>>` what it is told, `<<` what it asks for.

Signs of life, the journal and the claim's renewals are left out: they are not what such a conversation is about.
"""

from collections.abc import Iterable
from dataclasses import replace

from outlive.cluster import mirror, node
from outlive.cluster import records as rec
from outlive.cluster.commands import (
    Act,
    Command,
    KeepAlive,
    RecordEvent,
    SaveJournal,
    SendHeartbeat,
    SetDeadline,
    Transact,
    WriteSlot,
)
from outlive.cluster.events import AgentStarted, Event, LeaseGranted, Outcome, StoreMoved, Tick, Transacted
from outlive.cluster.timing import Timing
from outlive.cluster.transaction import KeyValue
from outlive.cluster.workload import Workload

from .small_world import host

LEASE = 77
CLAIM = 5
QUIET = (SendHeartbeat, WriteSlot, SaveJournal, SetDeadline, KeepAlive)
OF_THE_CLAIM = (Act.REGISTER, Act.RENEW, Act.REPORT)


class Playbook:
    """Host b, with a claim of incarnation CLAIM; `lines` is what was said."""

    def __init__(self, workload: Workload) -> None:
        self.at = 100.0
        self.lines: list[str] = []
        self.asked: list[Transact] = []
        self.revision = 10
        self._mirror = mirror.Mirror()
        self.state = node.start(host("b"), "b" * 32, "c" * 16, Timing())
        wanted = rec.WorkloadRecord(workload)
        claim = rec.ClaimRecord("b", "b" * 32, "run", LEASE, 1)
        kept = ((rec.CLAIMS + "b", claim, CLAIM), (rec.WORKLOADS + workload.name, wanted, 6))
        values = [KeyValue(key, rec.encode(record), revision, revision) for key, record, revision in kept]
        picture = mirror.snapshot(self._mirror, self.revision, values, self.at)
        self._mirror = picture
        self._step(AgentStarted(self.at, "run", None, {}, 0.0, mirror.Mirror()))
        self._step(LeaseGranted(self.at, LEASE))
        registered = next(each.purpose for each in self.asked if each.purpose.act is Act.REGISTER)
        self._step(Transacted(self.at, registered, self.at, Outcome.DONE, CLAIM))
        self._step(StoreMoved(self.at, picture))
        self.lines.clear()

    def _step(self, event: Event) -> None:
        self.state, commands = node.step(self.state, event)
        for command in commands:
            self._hear(command)

    def _hear(self, command: Command) -> None:
        if isinstance(command, Transact):
            self.asked.append(command)
            if command.purpose.act not in OF_THE_CLAIM:
                self.lines.append(f"<< {command.purpose.act}")
        elif isinstance(command, RecordEvent):
            return
        elif not isinstance(command, QUIET):
            self.lines.append(f"<< {_told(command)}")

    def hears(self, event: Event) -> None:
        """Something happens."""
        self.lines.append(f">> {_told(event)}")
        self._step(replace(event, at=self.at))

    def stands(self, *records: rec.PlacementRecord | rec.StandbyRecord, say: str = "") -> None:
        """The store says this now."""
        self.revision += 1
        rooms = {rec.PlacementRecord: rec.PLACEMENTS, rec.StandbyRecord: rec.STANDBYS}
        keys = [rooms[type(each)] + each.workload for each in records]
        values = [KeyValue(key, rec.encode(each), 9, self.revision) for key, each in zip(keys, records, strict=True)]
        self._mirror = mirror.changed(self._mirror, self.revision, values, self.at)
        self.lines.append(f">> store: {say}")
        self._step(StoreMoved(self.at, self._mirror, frozenset(keys)))

    def answers(self, outcome: Outcome) -> None:
        """The store answers what was asked of it last."""
        purpose = [each.purpose for each in self.asked if each.purpose.act not in OF_THE_CLAIM][-1]
        self.revision += outcome is Outcome.DONE
        self.lines.append(f">> {purpose.act} {outcome}")
        self._step(Transacted(self.at, purpose, self.at, outcome, self.revision))

    def passes(self, seconds: float) -> None:
        """Time passes, and the claim is renewed all along."""
        self.lines.append(f">> {seconds:g} s pass")
        for _ in range(round(seconds / 0.1)):
            self.at += 0.1
            self._step(Tick(self.at))
            renewals = [each for each in self.asked if each.purpose.act is Act.RENEW]
            for each in renewals[-1:]:
                self._step(Transacted(self.at, each.purpose, self.at - 0.01, Outcome.DONE, self.revision))

    def wrote(self) -> rec.PlacementRecord:
        """The placement that it last asked the store for."""
        asked = [each for each in self.asked if each.purpose.act not in OF_THE_CLAIM][-1]
        record = rec.decode(asked.transaction.writes[0].key, getattr(asked.transaction.writes[0], "value", b""))
        assert isinstance(record, rec.PlacementRecord)
        return record


def _told(said: Event | Command) -> str:
    names: Iterable[str] = ("generation", "pairing", "to_generation", "address")
    about = [f"{name}={getattr(said, name)}" for name in names if getattr(said, name, None)]
    return " ".join([type(said).__name__, *about])
