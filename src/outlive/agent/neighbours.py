"""The talk with other hosts over UDP: heartbeats, probes for oneself and for others, module tables.

Heartbeats and what probes bring are told to the machines as events; questions of others are answered here at
once, since the answer decides nothing. What arrives has passed every check of the wire. Nothing here waits or
blocks, and all that is remembered is bounded.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from outlive.cluster.events import Event, HeartbeatReceived, PeerHeard, ProbeAnswered, TableLearned
from outlive.cluster.heartbeat import Heartbeat, ModuleTable
from outlive.cluster.judging import PROBE_VIA, PROBED_AT_ONCE
from outlive.cluster.mirror import Mirror
from outlive.cluster.records import CLAIMS, name_in
from outlive.cluster.repeats import Repeats
from outlive.wire.datagram import (
    Message,
    Probe,
    ProbeAnswer,
    ProbeFor,
    ProbeReport,
    TablePart,
    TableRequest,
    pack,
)
from outlive.wire.endpoint import Address, Counts, Endpoint
from outlive.wire.receiver import Receiver
from outlive.wire.seal import Seal
from outlive.wire.sequence import Sequences, SequenceUnwritable
from outlive.wire.tables import TableAssembler, split

MOST_QUESTIONS = 10 * PROBED_AT_ONCE * (1 + PROBE_VIA)
"""As many as a leader asks in about a second, for as long as an answer counts: those before would be asked in vain."""
TABLES_KEPT = 8
_NONCES = 1 << 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks: what begins every message of this host."""

    cluster: str
    host: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Question:
    """A probe under way: of whom, and for whom if not for this host."""

    target: str
    asked_by: Address | None = None
    nonce: int = 0


class Neighbours:
    """One host's side of the talk. `tell` takes the events; `open_with` gives it its socket."""

    def __init__(
        self,
        identity: Identity,
        seal: Seal,
        sequences: Sequences,
        tell: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._seal = seal
        self._sequences = sequences
        self._tell = tell
        self._clock = clock
        self._endpoint: Endpoint | None = None
        self._mirror = Mirror()
        self._questions: OrderedDict[int, _Question] = OrderedDict()
        self._tables: OrderedDict[bytes, ModuleTable] = OrderedDict()
        self._assembler = TableAssembler()
        self._out_of_numbers = False
        self.heartbeats_sent = 0
        self.receiver = Receiver(seal, identity.host)

    def open_with(self, endpoint: Endpoint) -> None:
        """Speak through `endpoint`, whose messages are handed to `heard`."""
        self._endpoint = endpoint

    @property
    def sequence(self) -> int:
        """The newest sequence that this host used."""
        return self._sequences.last

    def counts(self) -> Counts:
        """Datagrams since this agent began."""
        return self._endpoint.counts if self._endpoint is not None else Counts()

    def repeats(self) -> Repeats | None:
        """What peers repeated, if there was anything since this was last asked."""
        return self.receiver.senders.shown()

    def know(self, mirror: Mirror, at: float, changed: frozenset[str] | None = None) -> None:
        """Take the members' addresses from the picture, and refuse what is older than their claims say.

        changed: the keys that moved since the picture before; None: any may have.
        """
        claims = (key for key in changed if key.startswith(CLAIMS)) if changed is not None else ()
        for host in mirror.claims if changed is None else map(name_in, claims):
            seen, known = mirror.claims.get(host), self._mirror.claims.get(host)
            if seen is not None and (known is None or known.record is not seen.record):
                self.receiver.raise_floor(host, seen.record.heartbeats, at)
        if mirror.hosts is not self._mirror.hosts:
            for host in self._mirror.hosts:
                if host not in mirror.hosts:
                    self.receiver.forget(host)
        self._mirror = mirror

    def show(self, table: ModuleTable) -> None:
        """Answer requests for this module table from now on, and for a few before it."""
        digest = table.digest()
        self._tables[digest] = table
        self._tables.move_to_end(digest)
        while len(self._tables) > TABLES_KEPT:
            self._tables.popitem(last=False)

    def send_heartbeat(self, heartbeat: Heartbeat, to: tuple[str, ...]) -> None:
        """Send one sign of life to each of these hosts."""
        sequence = self._number()
        if sequence is None or self._endpoint is None:
            return
        heartbeat = replace(heartbeat, sequence=sequence)
        datagram = pack(heartbeat, self._seal)
        for host in to:
            if host == self._identity.host:
                self._tell(HeartbeatReceived(self._clock(), heartbeat))
            elif address := self._address(host):
                self._endpoint.send(datagram, address)
                self.heartbeats_sent += 1

    def numbered(self, heartbeat: Heartbeat) -> Heartbeat | None:
        """The heartbeat with the next sequence, for a slot; None when no number can be had."""
        sequence = self._number()
        return None if sequence is None else replace(heartbeat, sequence=sequence)

    def probe(self, target: str, via: str | None) -> None:
        """Ask `target` for a sign of life, directly or through `via`."""
        nonce = self._ask(_Question(target))
        if via is None:
            self._say(target, lambda sequence: self._probe(sequence, nonce, target, self._identity.host))
        else:
            self._say(via, lambda sequence: ProbeFor(*self._head(sequence), nonce, target))

    def request_table(self, host: str, digest: bytes) -> None:
        """Ask a host for its module table of this digest."""
        if host == self._identity.host:
            if (own := self._tables.get(digest)) is not None:
                self._tell(TableLearned(self._clock(), host, own))
            return
        self._say(host, lambda sequence: TableRequest(*self._head(sequence), digest))

    def heard(self, message: Message, source: Address, at: float) -> None:
        """Deal with one message that the receiver accepted."""
        if type(message) is Heartbeat:
            self._tell(HeartbeatReceived(at, message))
            return
        self._tell(PeerHeard(at, message.host))
        match message:
            case Probe(target=target, nonce=nonce, asker=asker) if target == self._identity.host:
                self._reply(source, lambda sequence: ProbeAnswer(*self._head(sequence), nonce, asker))
            case ProbeAnswer(nonce=nonce):
                self._answered(message, nonce, at)
            case ProbeFor(nonce=nonce, target=target) if target != self._identity.host:
                own = self._ask(_Question(target, source, nonce))
                self._say(target, lambda sequence: self._probe(sequence, own, target, message.host))
            case ProbeReport(nonce=nonce, target=target, answered=True):
                question = self._questions.get(nonce)
                if question is not None and question.target == target and question.asked_by is None:
                    self._tell(ProbeAnswered(at, target, message.host))
            case TableRequest(digest=digest):
                self._send_table(digest, source)
            case TablePart():
                self._take_part(message, at)
            case _:
                pass

    def _answered(self, message: ProbeAnswer, nonce: int, at: float) -> None:
        question = self._questions.get(nonce)
        if question is None or question.target != message.host:
            return
        if question.asked_by is None:
            self._tell(ProbeAnswered(at, message.host, self._identity.host))
            return
        del self._questions[nonce]
        self._reply(
            question.asked_by,
            lambda sequence: ProbeReport(*self._head(sequence), question.nonce, question.target, True),
        )

    def _take_part(self, part: TablePart, at: float) -> None:
        table = self._assembler.add(part.host, part.digest, part.part, part.parts, part.modules)
        if table is not None:
            self._tell(TableLearned(at, part.host, table))

    def _send_table(self, digest: bytes, to: Address) -> None:
        table = self._tables.get(digest)
        if table is None:
            return
        parts = split(table)
        for number, modules in enumerate(parts):
            self._reply(
                to,
                lambda sequence, number=number, modules=modules: TablePart(  # type: ignore[misc]
                    *self._head(sequence), digest, number, len(parts), modules
                ),
            )

    def _ask(self, question: _Question) -> int:
        nonce = random.randrange(_NONCES)
        self._questions[nonce] = question
        while len(self._questions) > MOST_QUESTIONS:
            self._questions.popitem(last=False)
        return nonce

    def _probe(self, sequence: int, nonce: int, target: str, asker: str) -> Probe:
        return Probe(*self._head(sequence), nonce, target, asker)

    def _head(self, sequence: int) -> tuple[str, str, str, int]:
        return (self._identity.cluster, self._identity.host, self._identity.boot_id, sequence)

    def _say(self, host: str, message: Callable[[int], Message]) -> None:
        if address := self._address(host):
            self._reply(address, message)

    def _reply(self, to: Address, message: Callable[[int], Message]) -> None:
        sequence = self._number()
        if sequence is not None and self._endpoint is not None:
            self._endpoint.send(pack(message(sequence), self._seal), to)

    def _address(self, host: str) -> Address | None:
        entry = self._mirror.hosts.get(host)
        return None if entry is None else Address(entry.record.address, entry.record.port)

    def _number(self) -> int | None:
        try:
            number = self._sequences.next()
        except SequenceUnwritable as error:
            if not self._out_of_numbers:
                log.error("heartbeats.stopped", reason=str(error), remedy=error.remedy)
            self._out_of_numbers = True
            return None
        self._out_of_numbers = False
        return number
