"""What must hold in every run, each rule by its own name; a rule that does not hold ends the run.

Checkers look at the world as it truly is (who acts, what stands in the store, when), not at what the machines
believe. Each is proven able to fail by a test that breaks its rule on purpose. Bounds are in seconds of real
(simulated) time.
"""

from dataclasses import dataclass
from typing import Any

from outlive.cluster import records as rec
from outlive.cluster.node_state import Phase
from outlive.cluster.records import EventRecord
from outlive.cluster.transaction import KeyValue, Transaction
from outlive.cluster.workload import Workload

from .operators import BY_HAND, OPERATOR
from .parts import Parts
from .runtime import Life
from .size import values_in
from .store import Changes


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that did not hold. at_s: when that showed, in real (simulated) seconds."""

    checker: str
    at_s: float
    text: str


class Checker:
    """A rule. It overrides what it needs to hear of; what it returns is what is wrong, None if nothing."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def name(self) -> str:
        """The rule's name, as people and tests know it."""
        letters = "".join(f"_{each.lower()}" if each.isupper() else each for each in type(self).__name__)
        return letters.lstrip("_")

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """A host begins to act, or goes on after a pause."""

    def started(self, host: str, workload: str, generation: int, module: str) -> str | None:
        """A module's process was started."""

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """The store is about to accept this transaction."""

    def changed(self, origin: str, changes: Changes) -> str | None:
        """The store accepted these changes."""

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """A machine recorded an event."""

    def looked(self) -> str | None:
        """Half a second has passed."""

    def ended(self) -> str | None:
        """The run is over."""


class NeverTwo(Checker):
    """At most one host acts for a workload at any moment."""

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """Compare with all that act now."""
        others = {name: g for name, g in self.parts.ledger.acting.get(workload, {}).items() if name != host}
        if not others:
            return None
        told = ", ".join(f"{name} at generation {g}" for name, g in others.items())
        return f"{host} acts for {workload} at generation {generation} while {told} still does"


class ClaimsNeverOverlap(Checker):
    """A placement names a new host only when the one before it has no right to act any more, whether it acts or not."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._ended: set[tuple[str, str, int]] = set()
        self._placed: dict[str, rec.PlacementRecord] = {}

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """Note which hosts have ended which generations."""
        if record.kind in ("workload.stopped", "workload.failed", "workload.lost"):
            self._ended.add((host, record.workload, record.generation))
        return None

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at new placements."""
        for change in changes:
            if not change.key.startswith(rec.PLACEMENTS) or not isinstance(change, KeyValue):
                continue
            placed = _decoded(change)
            if not isinstance(placed, rec.PlacementRecord):
                continue
            before = self._placed.get(placed.workload)
            self._placed[placed.workload] = placed
            if before is None or placed.generation <= before.generation:
                continue
            if before.host not in (None, placed.host) and self._may_act(before):
                return (
                    f"{placed.workload} was placed on {placed.host} at generation {placed.generation} while {before.host} "
                    f"may still act at generation {before.generation}"
                )
        return None

    def _may_act(self, placed: rec.PlacementRecord) -> bool:
        host = self.parts.hosts[placed.host]
        if not host.powered or not host.guard.allows():
            return False
        if host.journal is None or host.journal.incarnation != placed.claim:
            return False
        if (host.name, placed.workload, placed.generation) in self._ended:
            return False
        report = _decoded(self.parts.store.data.get(rec.REPORTS + placed.workload))
        if (
            isinstance(report, rec.ReportRecord)
            and report.generation == placed.generation
            and report.stage in rec.FINAL
        ):
            return False
        if host.agent is None:
            return True
        reign = host.agent.node.reigns.get(placed.workload)
        if reign is not None and reign.generation >= placed.generation:
            return reign.phase is not Phase.ENDED
        return bool(host.agent.node.acted.get(placed.workload, 0) < placed.generation)


ANY = "any host"


class GenerationsOnlyGrow(Checker):
    """A workload's generation never falls, in the store and in what hosts act on; one generation is one host's."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._stored: dict[str, tuple[int, str | None]] = {}
        self._acted: dict[str, tuple[int, str]] = {}

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Look at new placements; what a hand has removed or spoilt may be written again as it can be known."""
        for change in changes:
            if origin == BY_HAND:
                name = rec.name_in(change.key)
                self._stored[name] = (self._stored.get(name, (0, None))[0], ANY)
                continue
            placed = _decoded(change) if change.key.startswith(rec.PLACEMENTS) else None
            if not isinstance(placed, rec.PlacementRecord):
                continue
            newest, host = self._stored.get(placed.workload, (0, None))
            if placed.generation < newest:
                return f"{placed.workload} was placed at generation {placed.generation} after {newest}"
            if placed.generation == newest and host != ANY and placed.host not in (None, host):
                return f"{placed.workload} moved from {host} to {placed.host} within generation {newest}"
            self._stored[placed.workload] = (placed.generation, placed.host)
        return None

    def acts(self, host: str, workload: str, generation: int) -> str | None:
        """Compare with the newest that any host has acted on."""
        newest, by = self._acted.get(workload, (0, ""))
        if generation < newest:
            return f"{host} acts for {workload} at generation {generation}, after {by} did at {newest}"
        if generation == newest and by != host:
            return f"{host} acts for {workload} at generation {generation}, which was {by}'s"
        self._acted[workload] = (generation, host)
        return None


class NoDeadWhileSlotFresh(Checker):
    """No leader calls a host dead whose slot it can read and has seen change, or could have, lately."""

    def recorded(self, host: str, record: EventRecord) -> str | None:
        """Look at each verdict."""
        if record.kind != f"verdict.{rec.Verdict.DEAD}":
            return None
        agent, timing = self.parts.hosts[host].agent, self.parts.setup.timing
        if agent is None:
            return None
        seen_at = agent.slot_seen_at.get(record.host)
        if seen_at is not None and agent.clock() - seen_at < timing.slot_stale_s:
            return f"{host} called {record.host} dead {agent.clock() - seen_at:.2f} s after its slot changed"
        return None


class LeaderReplaced(Checker):
    """Whenever some host could lead, one that can does, within BOUND_S."""

    BOUND_S = 12.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._able_since: dict[str, float] = {}
        self._led_at = 0.0

    def looked(self) -> str | None:
        """Compare who leads with who could."""
        now = self.parts.agenda.now
        able = {name for name, host in self.parts.hosts.items() if self._is_able(host)}
        for name in self.parts.hosts:
            if name not in able:
                self._able_since.pop(name, None)
            else:
                self._able_since.setdefault(name, now)
        key = self.parts.store.data.get(rec.LEADER)
        leader = _decoded(key)
        # A key that was garbled by hand has a holder all the same.
        if key is not None and (not isinstance(leader, rec.LeaderRecord) or leader.host in able):
            self._led_at = now
        longest = min(self._able_since.values(), default=now)
        waited = now - max(self._led_at, longest)
        if waited > self.BOUND_S:
            return f"for {waited:.1f} s nobody leads who can, though one of {', '.join(sorted(able))} could all the while"
        return None

    def _is_able(self, host: Any) -> bool:
        agent = host.agent
        return bool(
            host.powered
            and not host.paused
            and host.guard.running
            and agent is not None
            and agent.gate.is_open
            and not agent.node.isolated
            and self.parts.ways.both(host.name)
            and self.parts.ways.slow_s < 0.2
        )


class LeadersWriteInTheirTerm(Checker):
    """Placements and verdicts are written by the host that holds the leader's key at that moment, and by nobody else."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._holder = "nobody"

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Note who takes the key; what hands write over it changes no term."""
        for change in changes:
            if change.key == rec.LEADER:
                if not isinstance(change, KeyValue):
                    self._holder = "nobody"
                elif change.create_revision == change.mod_revision:
                    self._holder = origin
        return None

    def writes(self, origin: str, transaction: Transaction) -> str | None:
        """Look at who writes what only leaders write."""
        if origin in (OPERATOR, BY_HAND):
            return None
        for write in transaction.writes:
            if write.key.startswith((rec.PLACEMENTS, rec.VERDICTS)) and self._holder != origin:
                return f"{origin} wrote {write.key} while {self._holder} led"
        return None


class PlaceableRunsAgain(Checker):
    """Once the world is calm, every workload that some host could have runs, whole, on one host, within the bound."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        timing = parts.setup.timing
        stop_s = max(
            (module.stop_grace_s for each in parts.setup.workloads for module in each.workload.modules), default=0.0
        )
        self.bound_s = max(timing.retry_most_s, timing.exclude_s) + timing.claim_surely_over_s() + stop_s + 10.0
        self._wrong_since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Compare what should run with what does."""
        now, calm_at = self.parts.agenda.now, self.parts.setup.calm_at_s
        if now < calm_at:
            return None
        for each in self.parts.setup.workloads:
            name = each.workload.name
            if each.broken or not wanted(self.parts, name) or runs_whole(self.parts, name):
                self._wrong_since.pop(name, None)
                continue
            if self._unreadable(name) or not self._placeable(each.workload):
                self._wrong_since.pop(name, None)
                continue
            since = self._wrong_since.setdefault(name, now)
            if now - since > self.bound_s:
                return f"{name} does not run {now - since:.1f} s after the world became calm, though a host could have it"
        return None

    def _unreadable(self, workload: str) -> bool:
        """Written over by hand, and nobody remembers: then it is said, and a person has to write it anew."""
        value = self.parts.store.data.get(rec.PLACEMENTS + workload)
        return value is not None and _decoded(value) is None

    def _placeable(self, workload: Workload) -> bool:
        used: dict[str, Any] = {}
        for each in self.parts.setup.workloads:
            if each.workload.name == workload.name:
                continue
            placed = _decoded(self.parts.store.data.get(rec.PLACEMENTS + each.workload.name))
            if isinstance(placed, rec.PlacementRecord) and placed.host is not None:
                used.setdefault(placed.host, []).append(each.workload.resources)
        for name, host in self.parts.hosts.items():
            member = _decoded(self.parts.store.data.get(rec.HOSTS + name))
            if not host.powered or not isinstance(member, rec.Host) or member.maintenance:
                continue
            rules = workload.placement
            allowed = (
                (not rules.hosts or name in rules.hosts)
                and (not rules.sites or member.site in rules.sites)
                and all(member.labels.get(label) == value for label, value in rules.labels.items())
                and (workload.data_on is None or workload.data_on in member.datastores)
            )
            free = member.capacity
            for need in used.get(name, ()):
                free = free - need
            if allowed and workload.resources.fits_in(free):
                return True
        return False


class StoppedStaysDown(Checker):
    """Once the world is calm, what was stopped or removed, or cannot be placed, does not run after the bound."""

    BOUND_S = 20.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._wrong_since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Compare what acts with what is wanted."""
        now, calm_at = self.parts.agenda.now, self.parts.setup.calm_at_s
        if now < calm_at:
            return None
        for name, hosts in self.parts.ledger.acting.items():
            if not hosts or wanted(self.parts, name):
                self._wrong_since.pop(name, None)
            elif now - self._wrong_since.setdefault(name, now) > self.BOUND_S:
                return f"{', '.join(hosts)} still acts for {name}, which is not meant to run"
        return None


class NoRestartStorm(Checker):
    """No module is started more than MOST times in any WINDOW_S seconds; at the end of the calm, not at all."""

    MOST = 30
    WINDOW_S = 20.0
    QUIET_S = 5.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._starts: dict[tuple[str, str], list[float]] = {}
        self._broken = {each.workload.name for each in parts.setup.workloads if each.broken}

    def started(self, host: str, workload: str, generation: int, module: str) -> str | None:
        """Count."""
        now = self.parts.agenda.now
        starts = self._starts.setdefault((workload, module), [])
        starts.append(now)
        while starts[0] < now - self.WINDOW_S:
            del starts[0]
        if len(starts) > self.MOST:
            return f"module {module} of {workload} was started {len(starts)} times within {self.WINDOW_S:g} s"
        setup = self.parts.setup
        if now > setup.end_s - self.QUIET_S and setup.calm_at_s < setup.end_s and workload not in self._broken:
            return f"module {module} of {workload} is still being started at the end of the calm"
        return None


class StateStaysBounded(Checker):
    """What a machine remembers does not grow with time, only with hosts, workloads and operations."""

    MOST_EACH = 220

    def ended(self) -> str | None:
        """Count all values in both machines' states, but for the picture of the store, which is the store's size."""
        setup = self.parts.setup
        things = len(setup.hosts) + sum(1 + len(each.workload.modules) for each in setup.workloads)
        for name, host in self.parts.hosts.items():
            if host.agent is None:
                continue
            for machine, state in (("node", host.agent.node), ("leader", host.agent.leader)):
                count = values_in(state, leave_out=("mirror",))
                if count > self.MOST_EACH * things:
                    return f"the {machine} machine of {name} remembers {count} values of {things} things"
        return None


ALL: tuple[type[Checker], ...] = (
    NeverTwo,
    ClaimsNeverOverlap,
    GenerationsOnlyGrow,
    NoDeadWhileSlotFresh,
    LeaderReplaced,
    LeadersWriteInTheirTerm,
    PlaceableRunsAgain,
    StoppedStaysDown,
    NoRestartStorm,
    StateStaysBounded,
)


def _decoded(value: object) -> rec.Record | None:
    if not isinstance(value, KeyValue):
        return None
    try:
        return rec.decode(value.key, value.value)
    except rec.BadRecord:
        return None


def wanted(parts: Parts, workload: str) -> bool:
    """Whether the store says that it shall run."""
    record = _decoded(parts.store.data.get(rec.WORKLOADS + workload))
    return isinstance(record, rec.WorkloadRecord) and record.desired is rec.Desired.RUNNING


def runs_whole(parts: Parts, workload: str) -> bool:
    """Whether all its modules run, on one host."""
    acting = parts.ledger.acting.get(workload, {})
    if len(acting) != 1:
        return False
    program = parts.hosts[next(iter(acting))].runtime.programs.get(workload)
    if program is None:
        return False
    lives = [
        program.processes[module.name].life if module.name in program.processes else Life.GONE
        for module in program.workload.modules
    ]
    return all(life is Life.RUNNING for life in lives)


