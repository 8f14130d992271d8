"""What the leader would decide if hosts died now: its very machine, run on a copy of the picture. Nothing is written.

The hosts' claims are over and they are silent; all else stays as it is. The machine is ticked, what it writes goes into
the copy at once, and hosts that live do at once as they are told: so the order is that of the real decisions, their
times are not. Where a proof by a fence is asked for, it counts as given. When the leader is among the lost, another
decides, who has what is in the store, and not what the lost one remembered of past failures.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from immutables import Map
from msgspec import structs

from . import beside, leader
from . import records as rec
from .commands import Act, Command, RecordEvent, Transact
from .events import Outcome, StoreMoved, Tick, Transacted
from .fence import FenceState
from .heartbeat import Flags, Heartbeat, ModuleTable
from .leader_state import LeaderState
from .mirror import Entry, Mirror, changed
from .pairing import succeeded
from .signs import Sightings, Signs
from .transaction import Delete, KeyValue, Put
from .workload import OnAfterLimit

LONG_S = 1_000.0
"""For how long the lost hosts have been silent, and without a claim."""
STEP_S = 1.05
"""From one look at everything to the next."""
MOST_ROUNDS = 60
MOST_ANSWERS = 200
"""How often, within one moment, what was decided may lead to more being decided."""


class Kind(StrEnum):
    """What a decision does with a workload."""

    TAKEN_OVER = "taken over"
    PLACED = "placed"
    FOLLOWED = "followed"
    STOPPED = "stopped"
    WAITS = "waits"


@dataclass(frozen=True, slots=True)
class Decision:
    """One placement that was decided. host: where it goes, or who follows it. why: as it would be recorded."""

    kind: Kind
    workload: str
    host: str | None
    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A workload that would be without a place, and why."""

    workload: str
    reason: str


@dataclass(frozen=True, slots=True)
class Foretold:
    """What would happen. leader: who would decide.

    decisions: in their order; commands: the very ones that the leader machine returned, verdicts left out.
    without: the more important first. whole: all was decided; otherwise the time was over before.
    """

    lost: tuple[str, ...]
    leader: str | None
    decisions: tuple[Decision, ...]
    commands: tuple[Command, ...]
    without: tuple[Unplaced, ...]
    whole: bool


def foretell(state: LeaderState, lost: frozenset[str], *, go_on: Callable[[], bool] = lambda: True) -> Foretold:
    """Say what the leader would decide if these hosts died now, all at once.

    state: the leader machine of whoever asks; best that of the leader, which has heard every host.
    go_on: asked before each round; when it says no, what is known by then is told. Raises nothing.
    """
    mirror = state.mirror
    living = [name for name in sorted(mirror.hosts) if name not in lost and mirror.claimed(name) is not None]
    leads = mirror.leader.record.host if mirror.leader is not None else None
    if not living:
        nobody = Foretold(tuple(sorted(lost)), None, (), (), (), True)
        return replace(nobody, without=_without(state, mirror, frozenset(), "there is no host left"))
    me = leads if leads in living else (state.me if state.me in living else living[0])
    run = _Run(_supposed(state, me or living[0], lost, same=me == leads == state.me), lost, frozenset(living))
    whole = run.to_the_end(go_on)
    commands = tuple(each for each in run.commands if _is_decision(each))
    without = _without(run.state, run.state.mirror, frozenset(living))
    return Foretold(tuple(sorted(lost)), me, tuple(run.decisions), commands, without, whole)


def _is_decision(command: Command) -> bool:
    return isinstance(command, RecordEvent) or (
        isinstance(command, Transact) and command.purpose.act is not Act.VERDICT
    )


def _supposed(state: LeaderState, me: str, lost: frozenset[str], *, same: bool) -> LeaderState:
    """The machine in office, with the hosts gone. same: it is the leader's own, which goes on leading."""
    mirror, at = state.mirror, state.at
    verdicts = state.verdicts if same else Map({name: each.record.verdict for name, each in mirror.verdicts.items()})
    claim = mirror.claimed(me)
    return structs.replace(
        state,
        me=me,
        run=claim.record.run if claim is not None else state.run,
        mirror=_without_hosts(mirror, me, lost, at),
        office_since=at - LONG_S,
        listening_since=at - LONG_S,
        ticked_at=None,
        looked_at=0.0,
        isolated="",
        unguarded="",
        roster=tuple(sorted(mirror.hosts)),
        wary=None,
        verdicts=verdicts,
        verdict_causes=state.verdict_causes if same else Map(),
        courses=state.courses if same else Map(),
        in_flight=Map(),
        beside=Map(),
        settling=Map(),
        meant=Map(),
        followed=Map(),
        restless=state.restless.union(state.waiting),
        waiting=Map(),
        offers=None,
        methods=(),
        pursuits=Map(),
    )


def _without_hosts(mirror: Mirror, me: str, lost: frozenset[str], at: float) -> Mirror:
    """The picture with the claims of these hosts over for long, and proven to be."""
    claims, fences = mirror.claims, mirror.fences
    for name in sorted(lost):
        if (seen := claims.get(name)) is None:
            continue
        ago = at - LONG_S
        claims = claims.set(name, replace(seen, present=False, observed_at=ago, older_observed_at=ago))
        proof = rec.FenceRecord(name, seen.incarnation, FenceState.PROVEN, "what if", "what if")
        fences = fences.set(name, Entry(proof, mirror.revision, mirror.revision))
    created = mirror.leader.create_revision if mirror.leader is not None else mirror.revision
    office = Entry(rec.LeaderRecord(me), created, mirror.revision)
    return replace(mirror, claims=claims, fences=fences, leader=office, began_at=at - LONG_S)


class _Run:
    """The machine at work on the copy, moment by moment."""

    def __init__(self, state: LeaderState, lost: frozenset[str], living: frozenset[str]) -> None:
        self.state = state
        self.commands: list[Command] = []
        self.decisions: list[Decision] = []
        self._lost = lost
        self._living = living
        self._picture = state.mirror
        self._revision = state.mirror.revision
        self._seen_at = state.at
        self._signs = {name: _sign(state, name) for name in state.mirror.hosts if name not in lost}

    def to_the_end(self, go_on: Callable[[], bool]) -> bool:
        """Let it decide until nothing is left that time alone would change; False when it was to end before."""
        self._take_over()
        timing, quiet = self.state.timing, 0
        patience = [timing.hold_room_s + timing.take_over_s + timing.dead_s]
        for _ in range(MOST_ROUNDS):
            if not go_on():
                return False
            if self._round():
                quiet, wait_s = 0, STEP_S
            elif quiet < len(patience):
                wait_s, quiet = patience[quiet], quiet + 1
                if limit_s := self._order_limit_s():
                    patience = [patience[0], limit_s]
            else:
                return True
            self._pass(wait_s)
        return False

    def _order_limit_s(self) -> float:
        """How long the last of those waits that are started without the others in the end."""
        mirror = self.state.mirror
        waiting = (entry.record for name, entry in mirror.workloads.items() if self._is_missing(name))
        limits = [each.workload.after_limit_s for each in waiting if each.workload.on_after_limit is OnAfterLimit.START]
        return max(limits, default=0.0)

    def _is_missing(self, name: str) -> bool:
        entry, placed = self.state.mirror.workloads[name], self.state.mirror.placements.get(name)
        return entry.record.desired is rec.Desired.RUNNING and (placed is None or placed.record.host is None)

    def _take_over(self) -> None:
        """Standbys that live go on at once: that is between the two hosts, and no leader's to decide."""
        writes: list[Put | Delete] = []
        for name, entry in sorted(self.state.mirror.placements.items()):
            placed = entry.record
            if placed.host not in self._lost or not placed.paired or placed.order is rec.Order.STOP:
                continue
            claim = self.state.mirror.claimed(placed.standby or "")
            if placed.standby not in self._living or claim is None or claim.incarnation != placed.standby_claim:
                continue
            reason = f"its standby took over from {placed.host}"
            taken = succeeded(
                placed, self.state.mirror, claim.record.host, placed.standby_claim, reason, placed.because
            )
            self.decisions.append(Decision(Kind.TAKEN_OVER, name, taken.host, taken.generation, reason))
            writes.append(Put(rec.PLACEMENTS + name, rec.encode(taken)))
        self._answer(self._write(writes))

    def _round(self) -> bool:
        """One look at everything, and all that follows from it at once; whether anything was decided."""
        before = len(self.decisions)
        self._look_alive()
        self._step(Tick(self.state.at))
        return len(self.decisions) > before

    def _step(self, event: Tick | StoreMoved) -> None:
        for _ in range(MOST_ANSWERS):
            self.state, commands = leader.step(self.state, event)
            self.commands += commands
            asked = [each for each in commands if isinstance(each, Transact)]
            if not asked:
                return
            for each in asked:
                self._note(each)
            keys = self._write(chain.from_iterable(each.transaction.writes for each in asked))
            for each in asked:
                done = Transacted(self.state.at, each.purpose, self.state.at, Outcome.DONE, self._revision)
                self.state, more = leader.step(self.state, done)
                self.commands += more
            keys |= self._reported(keys)
            event = StoreMoved(self.state.at, self._picture, frozenset(keys))

    def _write(self, writes: Iterable[Put | Delete]) -> set[str]:
        """Put it into the copy: nobody else writes meanwhile, so that every comparison holds."""
        picture = self.state.mirror
        self._revision = picture.revision + 1
        changes: list[KeyValue | Delete] = []
        for write in writes:
            if isinstance(write, Delete):
                changes.append(write)
                continue
            changes.append(KeyValue(write.key, write.value, self._revision, self._revision))
        self._picture = changed(picture, self._revision, changes, self.state.at)
        return {each.key for each in changes}

    def _reported(self, keys: set[str]) -> set[str]:
        """Have the hosts do as these keys tell them, and say so; the keys of what they say."""
        reports: list[KeyValue | Delete] = []
        revision = self._picture.revision + 1
        for name in sorted(rec.name_in(key) for key in keys if key.startswith(rec.PLACEMENTS)):
            entry = self._picture.placements.get(name)
            if entry is None or entry.record.host not in self._living:
                continue
            placed = entry.record
            stage = rec.Stage.RUNNING if placed.order is rec.Order.RUN else rec.Stage.STOPPED
            report = rec.ReportRecord(
                name, placed.generation, placed.host or "", placed.claim, stage, because=placed.because
            )
            reports.append(KeyValue(rec.REPORTS + name, rec.encode(report), revision, revision))
        if reports:
            self._picture = changed(self._picture, revision, reports, self.state.at)
        return {each.key for each in reports}

    def _answer(self, keys: set[str]) -> None:
        """Let the machine see what was written that it did not decide."""
        if keys:
            keys |= self._reported(keys)
            self._step(StoreMoved(self.state.at, self._picture, frozenset(keys)))

    def _note(self, asked: Transact) -> None:
        """What a transaction decides for a workload, for people."""
        for write in asked.transaction.writes:
            if not isinstance(write, Put) or not write.key.startswith(rec.PLACEMENTS):
                continue
            after = rec.decode(write.key, write.value)
            entry = self.state.mirror.placements.get(rec.name_in(write.key))
            if isinstance(after, rec.PlacementRecord) and (told := _told(entry.record if entry else None, after)):
                self.decisions.append(told)

    def _pass(self, seconds: float) -> None:
        self.state = structs.replace(self.state, at=self.state.at + seconds, ticked_at=None)

    def _look_alive(self) -> None:
        """However much time passes in the copy, who is not lost is heard as before, and renews its claim."""
        at, by = self.state.at, self.state.at - self._seen_at
        claims = self.state.mirror.claims
        for name, seen in claims.items():
            if seen.present:
                claims = claims.set(name, replace(seen, observed_at=at))
        signs = Sightings(Map({name: _later(sign, by) for name, sign in self._signs.items()}))
        self.state = structs.replace(self.state, signs=signs, mirror=replace(self.state.mirror, claims=claims))


def _sign(state: LeaderState, name: str) -> Signs:
    """What was heard of a host; or what the store says of one that this observer never heard, but is alive."""
    known, claim = state.signs.get(name), state.mirror.claimed(name)
    if known.newest() is not None or claim is None:
        return known
    verdict = state.mirror.verdicts.get(name)
    if verdict is not None and verdict.record.verdict is not rec.Verdict.ALIVE:
        return known
    flags = Flags.STORE_REACHABLE
    if state.mirror.hosts[name].record.datastores:
        flags |= Flags.DATASTORE_REACHABLE
    cluster = state.mirror.cluster.record.id if state.mirror.cluster is not None else ""
    boot_id, table = claim.record.boot_id, ModuleTable().digest()
    beat = Heartbeat(cluster, name, boot_id, 1, flags, 0.0, claim.incarnation, table)
    return Signs(heartbeat=beat, heartbeat_at=state.at)


def _later(sign: Signs, seconds: float) -> Signs:
    """The same signs, seen later."""

    def later(at: float | None) -> float | None:
        return None if at is None else at + seconds

    return structs.replace(
        sign, heartbeat_at=later(sign.heartbeat_at), slot_at=later(sign.slot_at), answered_at=later(sign.answered_at)
    )


def _told(before: rec.PlacementRecord | None, after: rec.PlacementRecord) -> Decision | None:
    """What a new placement does; None for what changes nothing for people."""
    follower = after.standby or after.moving_to
    if after.host is None:
        kind, host = Kind.WAITS, None
    elif after.order is rec.Order.STOP:
        kind, host = Kind.STOPPED, after.host
    elif before is None or after.generation > before.generation:
        kind, host = Kind.PLACED, after.host
    elif follower is not None and follower != (before.standby or before.moving_to):
        kind, host = Kind.FOLLOWED, follower
    else:
        return None
    return Decision(kind, after.workload, host, after.generation, after.reason)


def _without(state: LeaderState, mirror: Mirror, living: frozenset[str], why: str = "") -> tuple[Unplaced, ...]:
    known = beside.relations_in(mirror)
    found = []
    for name, entry in mirror.workloads.items():
        placed, course = mirror.placements.get(name), state.courses.get(name)
        if entry.record.desired is not rec.Desired.RUNNING or (placed is not None and placed.record.host in living):
            continue
        reason = why or (course.waiting if course is not None else "")
        reason = reason or (placed.record.reason if placed is not None else "") or "it has not been placed yet"
        found.append((-known.important(entry.record.workload), name, reason))
    return tuple(Unplaced(name, reason) for _, name, reason in sorted(found))
