"""What must happen in time, and what must not go on and on. Bounds are in seconds of real (simulated) time.

Most of it is asked for in the calm at a run's end: with nothing going wrong any more, all must be well soon.
"""

from typing import Any

from outlive.cluster import records as rec
from outlive.cluster.affinity import Neighbours, Relations
from outlive.cluster.fence import EndProof
from outlive.cluster.host import Host
from outlive.cluster.judging import TIMELY_S
from outlive.cluster.leader import EXCUSED_S
from outlive.cluster.transaction import KeyValue
from outlive.cluster.workload import Apart, Workload

from .checker import Checker, decoded, runs_whole, spoilt, wanted
from .parts import Parts
from .size import values_in
from .store import Changes

FENCED_S = 8.0
"""What it takes to fence a host once the devices work again, a round of tries that began before among it."""


class LeaderReplaced(Checker):
    """Whenever some host could lead, one that can does, within BOUND_S of the last leader's end or choice.

    A late one that took the office because nobody else would is given GRACE_S more: it has to be offered again first,
    and that once others count as timely.
    """

    BOUND_S = 12.0
    GRACE_S = EXCUSED_S + TIMELY_S

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._able_since: dict[str, float] = {}
        self._led_at = 0.0

    def changed(self, origin: str, changes: Changes) -> str | None:
        """Note when a leader is chosen; that it may be lost in the same breath is not the choosers' fault."""
        for change in changes:
            chosen = isinstance(change, KeyValue) and change.create_revision == change.mod_revision
            if change.key == rec.LEADER and chosen:
                self._led_at = self.parts.agenda.now
        return None

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
        leader = decoded(key)
        # A key that was garbled by hand has a holder all the same.
        if key is not None and (not isinstance(leader, rec.LeaderRecord) or leader.host in able):
            self._led_at = now
        longest = min(self._able_since.values(), default=now)
        waited = now - max(self._led_at, longest)
        if waited > self.BOUND_S + (self.GRACE_S if self._is_excused(leader) else 0.0):
            return f"for {waited:.1f} s nobody leads who can, though one of {', '.join(sorted(able))} could have"
        return None

    def _is_excused(self, leader: object) -> bool:
        host = self.parts.hosts.get(leader.host) if isinstance(leader, rec.LeaderRecord) else None
        return host is not None and host.agent is not None and bool(host.agent.leader.excused)

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
            and self.parts.ways.watches(host.name)
            and self.parts.ways.slow_s < 0.2
            and host.name not in self.parts.slow_ticks
        )


class PlaceableRunsAgain(Checker):
    """Once the world is calm, every workload that some host could have runs, whole, on one host, within the bound."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        timing = parts.setup.timing
        stop_s = max(
            (module.stop_grace_s for each in parts.setup.workloads for module in each.workload.modules), default=0.0
        )
        self.bound_s = max(timing.retry_most_s, timing.exclude_s) + timing.claim_surely_over_s() + stop_s + 10.0
        if parts.setup.policies.proof_of_end is EndProof.FENCE:
            self.bound_s += FENCED_S
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
            # What nobody remembers is told, and a person has to write it anew.
            if spoilt(self.parts, rec.PLACEMENTS + name) or not self._placeable(each.workload):
                self._wrong_since.pop(name, None)
                continue
            since = self._wrong_since.setdefault(name, now)
            if now - since > self.bound_s:
                return f"{name} does not run {now - since:.1f} s after all became calm, though a host could have it"
        return None

    def _placeable(self, workload: Workload) -> bool:
        own = decoded(self.parts.store.data.get(rec.PLACEMENTS + workload.name))
        # Where the disks are that nobody remembers, a person has to say.
        if workload.keeps_disks and own is None and self._was_placed(workload.name):
            return False
        disks = own.disk_hosts if isinstance(own, rec.PlacementRecord) and workload.keeps_disks else ()
        if any(not runs_whole(self.parts, before) for before in workload.after):
            return False
        return any(not disks or name in disks for name in able_hosts(self.parts, workload))

    def _was_placed(self, workload: str) -> bool:
        return rec.REPORTS + workload in self.parts.store.data or bool(self.parts.ledger.acting.get(workload))


def neighbours(parts: Parts) -> Neighbours:
    """Who has what place in truth."""

    def where(name: str) -> rec.PlacementRecord | None:
        placed = decoded(parts.store.data.get(rec.PLACEMENTS + name))
        return placed if isinstance(placed, rec.PlacementRecord) and rec.WORKLOADS + name in parts.store.data else None

    def host(name: str) -> Host | None:
        return parts.hosts[name].member()  # type: ignore[no-any-return]

    workloads = {each.workload.name: each.workload for each in parts.setup.workloads}
    return Neighbours(Relations(workloads), workloads, lambda name: wanted(parts, name), where, host)


def able_hosts(parts: Parts, workload: Workload, *, standby: bool = False) -> list[str]:
    """The hosts that could have it by its rules and by what all other workloads, and their standbys, take."""
    company = neighbours(parts).company(workload, standby=standby)
    if company.waits:
        return []
    used: dict[str, Any] = {}
    for each in parts.setup.workloads:
        placed = decoded(parts.store.data.get(rec.PLACEMENTS + each.workload.name))
        if each.workload.name != workload.name and isinstance(placed, rec.PlacementRecord):
            for taken in filter(None, (placed.host, placed.standby, placed.moving_to)):
                used.setdefault(taken, []).append(each.workload.resources)
    able, rules = [], workload.placement
    for name, host in parts.hosts.items():
        member = decoded(parts.store.data.get(rec.HOSTS + name))
        kept_empty = decoded(parts.store.data.get(rec.MAINTENANCE + name)) is not None
        if not host.powered or not isinstance(member, Host) or kept_empty:
            continue
        allowed = (
            (not rules.hosts or name in rules.hosts)
            and (not rules.sites or member.site in rules.sites)
            and all(member.labels.get(label) == value for label, value in rules.labels.items())
        )
        free = member.capacity
        for need in used.get(name, ()):
            free = free - need
        if allowed and workload.resources.fits_in(free) and company.refusal(member) is None:
            able.append(name)
    return able


class PairableIsPaired(Checker):
    """Once the world is calm, a hot machine that runs, and that some host could follow, is paired within the bound."""

    BOUND_S = 25.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._wrong_since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Compare who could be paired with who is."""
        now, hosts = self.parts.agenda.now, self.parts.hosts
        if now < self.parts.setup.calm_at_s:
            return None
        for each in self.parts.setup.workloads:
            name = each.workload.name
            placed = decoded(self.parts.store.data.get(rec.PLACEMENTS + name)) if each.workload.is_hot else None
            fine = not isinstance(placed, rec.PlacementRecord) or placed.paired or not runs_whole(self.parts, name)
            if fine or each.broken or not isinstance(placed, rec.PlacementRecord) or placed.host is None:
                self._wrong_since.pop(name, None)
                continue
            here = hosts[placed.host].member()
            others = [
                host
                for host in able_hosts(self.parts, each.workload, standby=True)
                if host != placed.host
                and (each.workload.placement.apart is Apart.HOST or hosts[host].member().site != here.site)
            ]
            if not others:
                self._wrong_since.pop(name, None)
            elif now - self._wrong_since.setdefault(name, now) > self.BOUND_S:
                return f"{name} on {placed.host} is not paired, though {' or '.join(others)} could follow it"
        return None


class PairedGoesOn(Checker):
    """A paired machine whose primary lost its power goes on at its standby, if that can, within BOUND_S."""

    BOUND_S = 2.5

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._since: dict[str, tuple[int, float]] = {}

    def looked(self) -> str | None:
        """Look at each placement whose primary is without power."""
        now = self.parts.agenda.now
        for each in self.parts.setup.workloads:
            name = each.workload.name
            placed = decoded(self.parts.store.data.get(rec.PLACEMENTS + name)) if each.workload.is_hot else None
            if not isinstance(placed, rec.PlacementRecord) or not self._is_due(placed):
                self._since.pop(name, None)
                continue
            generation, since = self._since.get(name, (placed.generation, now))
            if generation != placed.generation:
                since = now
            self._since[name] = (placed.generation, since)
            if now - since > self.BOUND_S:
                return f"{placed.standby} has not gone on with {name} of {placed.host} after {now - since:.1f} s"
        return None

    def _is_due(self, placed: rec.PlacementRecord) -> bool:
        if not placed.paired or placed.order is rec.Order.STOP or placed.host is None or placed.standby is None:
            return False
        standby = self.parts.hosts[placed.standby]
        follower = standby.guests.followers.get(placed.workload) if standby.powered else None
        claim = self.parts.store.data.get(rec.CLAIMS + placed.standby)
        return bool(
            not self.parts.hosts[placed.host].powered
            and follower is not None
            and (follower.generation, follower.pairing) == (placed.generation, placed.pairing)
            and follower.gate.is_open
            and not standby.paused
            and standby.guard.running
            and standby.agent is not None
            and standby.agent.gate.is_open
            and standby.agent.begun
            and not standby.agent.node.isolated
            and standby.agent.node.session.incarnation == placed.standby_claim
            and claim is not None
            and claim.create_revision == placed.standby_claim
            and self.parts.ways.both(standby.name)
            and self.parts.ways.watches(standby.name)
            and self.parts.ways.slow_s < 0.2
        )


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
            if not hosts or wanted(self.parts, name) or spoilt(self.parts, rec.WORKLOADS + name):
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
