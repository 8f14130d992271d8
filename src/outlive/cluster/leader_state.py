"""What a host's leader machine remembers, in office or not, and the turn in which it changes.

Whatever must survive a change of leader stands in the store; here is only what can be gathered again: signs of
life, verdicts, and the course of each workload (failures, avoided hosts, restorations under way).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from immutables import Map

from . import records as rec
from .affinity import NO_RELATIONS, Relations
from .commands import Act
from .fence import FenceMethod, Pursuit
from .mirror import Mirror
from .placement import UNUSED, Candidate, Used, candidates
from .ranking import Ranking
from .signs import Sightings
from .supervision import Attempts
from .tally import EMPTY, Tally, tally
from .timing import Timing
from .transaction import Compare, Delete, Put, Transaction, same_incarnation
from .turn import BaseTurn
from .workload import Workload

if TYPE_CHECKING:
    from .holding import Held
    from .waiting import Offer, Waits


@dataclass(frozen=True, slots=True)
class Course:
    """How a workload fares under this leader. Times in seconds on the leader's clock.

    failures: in a row, by its own fault; counted: the generation whose end was last counted.
    failed_on: where; next_try_at: not there before; elsewhere_at: nowhere before; delayed: how that is told.
    failed_version: the workload's version that failed. suspected: its waiting is for what befell its hosts.
    host_deaths: what its next placement shall say of them.
    avoid: host → (until, why), after a forced failover.
    begun_at: since when its present generation is known; moved_at: when it was last asked to leave a host.
    asked_stop_at: when a forced failover's stop was ordered. settled_at: since when it runs whole.
    waiting: the reason last recorded for not being placed; drain: the same for not leaving a host in maintenance.
    move: the operation that was last asked for it there.
    stayed, stayed_at: how often in a row it could go nowhere, and when that was found last.
    cause: id of the latest event in its course.
    take_over_since: since when its standby is waited for. avoid_standby: host → until when it
    is to be the last choice as a standby.
    standby: the one last seen to follow; paired_since: since when it is whole.
    pairings: standbys chosen in a row, none of which lasted; pair_next_at: no new one before.
    unprotected: the reason last recorded for having none.
    trial_since: since when this generation is watched as a trial of another version of its package; starting_since:
    since when its modules are started.  rollout_waits: the reason last recorded for a change that has to wait.
    after_since: since when it waits for those it comes after; after_told: that it was told that it is too long.
    held_for, held_since: for which step on its way to a new place room is held for it, and since when.
    in_vain: how often in a row no host could have it.
    """

    failures: int = 0
    counted: int = 0
    next_try_at: float = 0.0
    elsewhere_at: float = 0.0
    failed_on: frozenset[str] = frozenset()
    failed_version: int = 0
    delayed: str = ""
    suspected: bool = False
    host_deaths: int = 0
    begun_at: float = 0.0
    moved_at: float | None = None
    drain: str = ""
    move: str = ""
    stayed: int = 0
    stayed_at: float | None = None
    avoid: "Map[str, tuple[float, str]]" = Map()
    modules: "Map[str, Attempts]" = Map()
    generation: int = 0
    asked_stop_at: float | None = None
    settled_at: float | None = None
    waiting: str = ""
    cause: str = ""
    take_over_since: float | None = None
    avoid_standby: "Map[str, float]" = Map()
    standby: str | None = None
    pairings: int = 0
    pair_next_at: float = 0.0
    paired_since: float | None = None
    unprotected: str = ""
    trial_since: float | None = None
    starting_since: float | None = None
    rollout_waits: str = ""
    after_since: float | None = None
    after_told: bool = False
    held_for: str = ""
    held_since: float = 0.0
    in_vain: int = 0


FRESH = Course()


class LeaderState(msgspec.Struct, frozen=True):
    """Everything that one host's leader machine knows.

    office_since: when this host was first seen to lead; None: it does not.
    in_flight: key → until when a write to it counts as under way. beside: the subject of a write → all keys of it.
    settling: key → the revision that the mirror must reach before the key is decided on again.
    late_ticks: how many came late, without the time in between to find anybody dead; late_at: when the last one did.
    isolated, unguarded, deaf: why this host must not lead; empty: it may.  late: why another should rather, and
    excused: that no other does; at excused_until that is tried again.  leaderless_since: since when nobody leads.
    deaf_since: since when its picture of the store shows nothing of its own renewals, which the store answers.
    won: the revision at which this host last took the office, as the store answered.
    roster: all registered hosts, by name. wary: those to judge at every tick; the others only once they have repeated
    nothing for too long; None: all.
    restless: workloads to look at on every tick; passed: those that are looked at last, since a turn that had to
    end before it came to others had them first. meant: where workloads were just placed that the mirror may not show;
    followed: the same of their standbys.
    methods: the ways to fence that this host's agent has. pursuits: hosts that are being fenced; tries: how many were
    begun. freed: workload → the generation whose run lock was taken from its host.
    relations: which workloads are related to which, as last looked at. tally: what all placements sum up to.
    offered, taken: what the hosts offered, and which workloads had or wanted a place, at the last look at all; None:
    nobody waited for more of it.
    roomier_at: when they last came to offer more.
    drains_due: hosts in maintenance are to be looked at in the next tick; drained_up_to: the one looked at last.
    copies_due: the same of packages. chosen_on: the picture that their keepers were last chosen on; unchosen: those
    whose keepers have yet to be looked at on that one; chosen_up_to: the one looked at last.
    waiting: who waits for a place, and for what; offers: what the hosts had to give when that was last looked at;
    stirred: something has changed since that may have given them more.
    """

    me: str
    timing: Timing
    run: str = ""
    at: float = 0.0
    issued: int = 0
    mirror: Mirror = Mirror()
    office_since: float | None = None
    campaigned_at: float | None = None
    listening_since: float = 0.0
    ticked_at: float | None = None
    looked_at: float = 0.0
    looked_up_to: str = ""
    isolated: str = ""
    unguarded: str = ""
    deaf: str = ""
    late: str = ""
    excused: bool = False
    excused_until: float = 0.0
    late_ticks: int = 0
    late_at: float = -math.inf
    leaderless_since: float | None = None
    deaf_since: float | None = None
    won: int = 0
    signs: Sightings = Sightings()
    roster: tuple[str, ...] = ()
    wary: frozenset[str] | None = None
    verdicts: "Map[str, rec.Verdict]" = Map()
    verdict_causes: "Map[str, str]" = Map()
    courses: "Map[str, Course]" = Map()
    in_flight: "Map[str, float]" = Map()
    beside: "Map[str, frozenset[str]]" = Map()
    settling: "Map[str, int]" = Map()
    meant: "Map[str, str]" = Map()
    followed: "Map[str, str]" = Map()
    restless: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    protected: tuple[tuple[str, int, str], ...] = ()
    protected_at: float = 0.0
    methods: tuple[FenceMethod, ...] = ()
    pursuits: "Map[str, Pursuit]" = Map()
    tries: int = 0
    freed: "Map[str, int]" = Map()
    relations: Relations = NO_RELATIONS
    tally: Tally = EMPTY
    offered: frozenset[tuple[str, int]] | None = None
    taken: frozenset[str] = frozenset()
    roomier_at: float = 0.0
    drains_due: bool = False
    drained_up_to: str = ""
    copies_due: bool = False
    chosen_on: tuple[object, ...] = ()
    unchosen: tuple[str, ...] = ()
    chosen_up_to: str = ""
    waiting: "Map[str, Waits]" = Map()
    offers: "Mapping[str, Offer] | None" = None
    stirred: bool = False


class Turn(BaseTurn[LeaderState]):
    """One event being dealt with by the leader machine.

    told: how many verdicts were written in it; probed: how many hosts; placed: how many workloads.
    crowd: hosts that start as many workloads as they may; begun: hosts where that may have changed since.
    in_vain: who found no place in it; put_off: who was to wait for another turn, since this one had done enough.
    """

    prefix = "l"
    told = 0
    probed = 0

    def __init__(self, state: LeaderState) -> None:
        super().__init__(state)
        self._used: dict[str, Used] | None = None
        self._starting: dict[str, int] | None = None
        self._ranking: tuple[Mirror, Sightings, Map[str, rec.Verdict], Ranking] | None = None
        self.placed = 0
        self.crowd: dict[str, str] | None = None
        self.begun: list[str] = []
        self.in_vain: set[str] = set()
        self.put_off: set[str] = set()
        self._alive: list[str] = []
        self._roster: Iterator[str] | None = None
        self.pending: list[tuple[int, str]] | None = None
        self.held: tuple[Held, ...] | None = None

    def first_alive(self, count: int, besides: str) -> list[str]:
        """The first hosts by name that are alive, without this one and another. They are looked for once in a turn."""
        state = self.state
        roster = self._roster = iter(state.roster) if self._roster is None else self._roster
        while True:
            self._alive = [name for name in self._alive if state.verdicts.get(name) is rec.Verdict.ALIVE]
            found = [name for name in self._alive if name not in (besides, state.me)]
            more = next(roster, None) if len(found) < count else None
            if more is None:
                return found[:count]
            self._alive.append(more)

    def course(self, workload: str) -> Course:
        """The course of a workload, a fresh one if it has none."""
        return self.state.courses.get(workload, FRESH)

    def set_course(self, workload: str, **changes: Any) -> None:
        """Change fields of a workload's course."""
        self.set(courses=self.state.courses.set(workload, replace(self.course(workload), **changes)))

    def is_busy(self, key: str) -> bool:
        """Whether a write to `key` is outstanding, or not yet seen in the mirror."""
        if self.state.at < self.state.in_flight.get(key, 0.0):
            return True
        return self.state.settling.get(key, 0) > self.state.mirror.revision

    def tally(self) -> Tally:
        """What all placements of the newest picture sum up to."""
        if not self.state.tally.is_of(self.state.mirror):
            self.set(tally=tally(self.state.mirror))
        return self.state.tally

    def _under_way(self, written: "Map[str, str]") -> dict[str, str]:
        return {name: host for name, host in written.items() if self.is_busy(rec.PLACEMENTS + name)}

    def used(self) -> dict[str, Used]:
        """What is used on each host, with what was just placed there and is not in the mirror yet. To be read only."""
        if self._used is None:
            meant, followed = self._under_way(self.state.meant), self._under_way(self.state.followed)
            self._used = self.tally().used_with(meant, followed)
        return self._used

    def used_on(self, host: str) -> Used:
        """The same on one host."""
        return self.used().get(host, UNUSED)

    def ranking(self) -> Ranking:
        """All registered hosts, with what is used on each. Made once in a turn, but for when more of them is known."""
        state, known = self.state, self._ranking
        seen = (state.mirror, state.signs, state.verdicts)
        if known is not None and all(one is other for one, other in zip(known, seen, strict=False)):
            return known[3]
        hosts = Ranking(candidates(*seen, self.used()))
        self._ranking = (*seen, hosts)
        return hosts

    def candidates(self) -> list[Candidate]:
        """The same hosts, in a list by name."""
        return list(self.ranking().hosts.values())

    def starting(self) -> dict[str, int]:
        """How many workloads are on their way up on each host, with those that were just placed there."""
        if self._starting is None:
            self._starting = self.tally().starting_with(self._under_way(self.state.meant))
        return self._starting

    def _use(self, workload: Workload, host: str, by: int = 1) -> None:
        capacity, count = self.used_on(host)
        taken = capacity + workload.resources if by > 0 else capacity - workload.resources
        self.used()[host] = (taken, count + by)
        if self._ranking is not None:
            self._ranking[3].use(host, self.used()[host])

    def means(self, workload: Workload, host: str, leaves: Iterable[str]) -> None:
        """A workload is being placed: the next one in the same breath finds its room taken, and what it leaves free."""
        for left in leaves:
            self._use(workload, left, -1)
        self._use(workload, host)
        self.placed += 1
        self.begun.append(host)
        if self._starting is not None:
            self._starting[host] = self._starting.get(host, 0) + 1
        followed, name = self.state.followed, workload.name
        self.set(
            meant=self.state.meant.set(name, host), followed=followed.delete(name) if name in followed else followed
        )

    def means_standby(self, workload: Workload, host: str) -> None:
        """The same for its standby, or the target of its migration."""
        self._use(workload, host)
        meant = self.state.meant
        self.set(
            followed=self.state.followed.set(workload.name, host),
            meant=meant.delete(workload.name) if workload.name in meant else meant,
        )

    def write(
        self,
        act: Act,
        key: str,
        compares: tuple[Compare, ...],
        writes: tuple[Put | Delete, ...],
        because: str = "",
    ) -> None:
        """Write as the leader: nothing happens unless this host still leads. One write to a key at a time.

        key: what it is about; that one, and all that is written with it, is busy until the picture shows it.
        """
        leader = self.state.mirror.leader
        if leader is None:
            return
        office = same_incarnation(rec.LEADER, leader.create_revision)
        until = self.state.at + self.state.timing.transact_s * 2
        keys = frozenset({key, *(each.key for each in writes)})
        self.set(
            in_flight=self.state.in_flight.update(dict.fromkeys(keys, until)),
            beside=self.state.beside.set(key, keys) if len(keys) > 1 else self.state.beside,
        )
        self.transact(act, key, Transaction((office, *compares), writes), because=because)
