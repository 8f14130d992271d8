"""How a cluster and its workloads stand, in one verdict for people: protected, at risk, or unknown, and what to do.

What `outlive status` ends with is decided here, from the picture of the store alone, so that every host says the same.
Nothing here changes anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from . import records as rec
from .admission import Losable, losable
from .affinity import ALONE, Company, Neighbours
from .beginning import way_out
from .beside import neighbours, relations_in
from .heartbeat import Flags
from .host import Capacity
from .lease import silent_for_s
from .mirror import Mirror
from .ordering import waits_for
from .pairs import gone_for_good
from .placement import NOTHING, Candidate, choose, choose_standby, usage
from .policies import AdmissionMode, Freeze
from .proofs import confirm, is_proven, is_replaced, needs_fence, needs_word, unfenced
from .rollout import runs_from, told, why_changed
from .signs import NOTHING_SEEN
from .timing import Timing
from .workload import Workload

FAILING_OVER = "failing over"


class Standing(StrEnum):
    """PROTECTED: it runs, and would go on if its host died. AT_RISK: one of both does not hold."""

    PROTECTED = "protected"
    AT_RISK = "at risk"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WorkloadOutlook:
    """One workload: its state in a word, where it is, and how it stands. revision: of what was asked of it.

    package: the version of its package that it runs from; rollout: how a change of that stands, in words.
    """

    name: str
    state: str
    host: str | None
    generation: int
    standing: Standing
    reason: str
    remedy: str
    could_go_to: tuple[str, ...]
    revision: int = 0
    package: str = ""
    rollout: str = ""


@dataclass(frozen=True, slots=True)
class HostOutlook:
    """One host as the leader last judged it. maintenance: '' for none, else how far it is, in a word."""

    name: str
    site: str
    address: str
    verdict: str
    claim: bool
    leads: bool
    workloads: tuple[str, ...]
    evidence: dict[str, str]
    maintenance: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The whole cluster. sentence: the last line of `status`.

    failures_absorbed: so many hosts may die at once, whichever they are; losable: the same, and what it comes from.
    """

    cluster: str
    leader: str | None
    standing: Standing
    sentence: str
    failures_absorbed: int
    losable: Losable
    hosts: tuple[HostOutlook, ...]
    workloads: tuple[WorkloadOutlook, ...]
    bad_records: dict[str, str]
    frozen: Freeze | None = None


def look(mirror: Mirror, *, store_reachable: bool, at: float, lost: Losable | None = None) -> Outlook:
    """Say how everything stands.

    store_reachable: the picture is of now; otherwise every standing is unknown.
    at: seconds on the watcher's clock, by which a leader that renews nothing is told before its claim has ended.
    lost: what is known of how many hosts may be lost; None: it is counted.
    """
    lost = lost if lost is not None else losable(mirror)
    hosts = of_hosts(mirror, sorted(mirror.hosts), store_reachable=store_reachable)
    workloads = of_workloads(mirror, sorted(mirror.workloads), store_reachable=store_reachable)
    standing, sentence = _verdict(mirror, hosts, workloads, store_reachable, at)
    if standing is Standing.PROTECTED and (short := _too_few(mirror, lost)):
        standing, sentence = Standing.AT_RISK, short
    return Outlook(
        cluster=mirror.cluster.record.id if mirror.cluster else "",
        leader=mirror.leader.record.host if mirror.leader else None,
        standing=standing,
        sentence=sentence,
        failures_absorbed=lost.hosts,
        losable=lost,
        hosts=hosts,
        workloads=workloads,
        bad_records={key: problem for key, (_, problem) in sorted(mirror.bad.items())},
        frozen=mirror.policies.record.frozen,
    )


def of_hosts(mirror: Mirror, names: Iterable[str], *, store_reachable: bool) -> tuple[HostOutlook, ...]:
    """Say how these hosts stand, which are all in the picture."""
    hosts = tuple(_host(mirror, name) for name in names)
    return hosts if store_reachable else tuple(replace(each, verdict="unknown") for each in hosts)


def of_workloads(mirror: Mirror, names: Iterable[str], *, store_reachable: bool) -> tuple[WorkloadOutlook, ...]:
    """Say how these workloads stand, which are all in the picture."""
    around = neighbours(mirror, relations_in(mirror))
    workloads = tuple(
        replace(_workload(mirror, name, around), revision=mirror.workloads[name].mod_revision) for name in names
    )
    if store_reachable:
        return workloads
    why = "the store does not answer; this is how it was"
    return tuple(replace(each, standing=Standing.UNKNOWN, reason=why, remedy="") for each in workloads)


def _host(mirror: Mirror, name: str) -> HostOutlook:
    entry, verdict, leader = mirror.hosts[name].record, mirror.verdicts.get(name), mirror.leader
    return HostOutlook(
        name=name,
        site=entry.site,
        address=entry.address,
        verdict=verdict.record.verdict if verdict else "unknown",
        claim=mirror.claimed(name) is not None,
        leads=leader is not None and leader.record.host == name,
        workloads=mirror.placed_on(name),
        evidence=verdict.record.evidence if verdict else {},
        maintenance=_maintenance(mirror, name),
    )


def _maintenance(mirror: Mirror, host: str) -> str:
    wish = mirror.maintenance.get(host)
    if wish is None:
        return ""
    if wish.record.phase is rec.MaintenancePhase.RETURNING:
        return "returning"
    placements = [entry.record for entry in mirror.placements.values()]
    there = any(host in (placed.host, placed.standby, placed.moving_to) for placed in placements)
    return "draining" if there else "empty"


def _workload(mirror: Mirror, name: str, around: Neighbours) -> WorkloadOutlook:
    wanted, placed, report = mirror.workloads[name].record, mirror.placements.get(name), mirror.reports.get(name)
    host = placed.record.host if placed else None
    generation = placed.record.generation if placed else 0
    state, why = "waiting", placed.record.reason if placed else "it has not been placed yet"
    if placed and host is not None:
        mine = report is not None and report.record.generation == generation and report.record.host == host
        state = report.record.stage.value if report is not None and mine else "placed"
        why = report.record.reason if report is not None and mine else ""
        verdict = mirror.verdicts.get(host)
        if verdict is not None and verdict.record.verdict is rec.Verdict.DEAD:
            state, why = FAILING_OVER, _dead(mirror, placed.record, host)
        elif mirror.claimed(host) is not None and mirror.holder(host, placed.record.claim) is None:
            state, why = FAILING_OVER, _ended(mirror, placed.record, host)
        elif verdict is not None and verdict.record.verdict is not rec.Verdict.ALIVE:
            state = f"{state}, {host} {verdict.record.verdict}"
        elif placed.record.version != wanted.version:
            state, why = "changing", f"{why_changed(wanted)}, so it is started anew"
    elif wanted.desired is rec.Desired.RUNNING:
        why = waits_for(mirror, name) or why
    # Whom it is placed with may go elsewhere too, and it with them.
    company = replace(around.company(wanted.workload), only=None, waits="")
    others = tuple(sorted(set(eligible(mirror, wanted.workload, company)) - {host}))
    if wanted.desired is not rec.Desired.RUNNING:
        if host is None:
            state = "stopped" if wanted.desired is rec.Desired.STOPPED else "removed"
        remedy = ""
        if placed is not None and _is_stuck(placed.record):
            why, remedy = placed.record.stuck, way_out(mirror, placed.record)
        stopped = WorkloadOutlook(name, state, host, generation, Standing.STOPPED, why, remedy, others)
        return replace(stopped, package=runs_from(wanted, placed.record if placed else None))
    standing, reason, remedy = _stands(state, host, why, others)
    if wanted.workload.is_hot and placed is not None and host is not None and state == rec.Stage.RUNNING:
        standby = around.company(wanted.workload, standby=True)
        standing, reason, remedy = _stands_hot(mirror, wanted.workload, placed.record, standby)
    if placed is not None and _is_stuck(placed.record):
        standing, reason, remedy = Standing.AT_RISK, placed.record.stuck, way_out(mirror, placed.record)
    if placed is not None and state == FAILING_OVER and (asks := _asks_for_a_word(mirror, placed.record)):
        remedy = asks
    change = told(wanted)
    return WorkloadOutlook(
        name,
        state,
        host,
        generation,
        standing,
        "; ".join(filter(None, (reason, change))),
        remedy,
        others,
        package=runs_from(wanted, placed.record if placed else None),
        rollout=change,
    )


def _is_stuck(placed: rec.PlacementRecord) -> bool:
    return placed.host is not None and placed.order is rec.Order.STOP and bool(placed.stuck)


def _dead(mirror: Mirror, placed: rec.PlacementRecord, host: str) -> str:
    """Why what was on a dead host is not elsewhere yet."""
    if not _lacks_proof(mirror, placed) or mirror.claimed(host) is not None:
        return f"{host} is dead"
    return unfenced(mirror, placed, rec.Verdict.DEAD, replaced=is_replaced(placed, mirror, NOTHING_SEEN))


def _ended(mirror: Mirror, placed: rec.PlacementRecord, host: str) -> str:
    """Why what a host had under a former claim is not begun anew yet."""
    if _lacks_proof(mirror, placed) and is_replaced(placed, mirror, NOTHING_SEEN):
        return unfenced(mirror, placed, rec.Verdict.ALIVE, replaced=True)
    return f"the claim that {host} had it under has ended"


def _lacks_proof(mirror: Mirror, placed: rec.PlacementRecord) -> bool:
    return needs_fence(mirror) and not is_proven(mirror, placed.host or "", placed.claim, placed.boot_id)


def _asks_for_a_word(mirror: Mirror, placed: rec.PlacementRecord) -> str:
    """What a person is to do where nothing else proves that the host has ended; '' for nothing."""
    host = placed.host or ""
    if not _lacks_proof(mirror, placed):
        return ""
    if is_replaced(placed, mirror, NOTHING_SEEN):
        return f"make sure that the machine that was {host} before is off, then `{confirm(host)}`"
    return f"make sure that {host} is off, then `{confirm(host)}`" if needs_word(mirror, host, placed.claim) else ""


def _stands(state: str, host: str | None, why: str, others: tuple[str, ...]) -> tuple[Standing, str, str]:
    if host is None:
        return Standing.AT_RISK, why, "add a host that can have it, or lessen what it asks for"
    if state != rec.Stage.RUNNING:
        return Standing.AT_RISK, why or f"it is {state}", "wait a moment; `outlive why` tells what led here"
    if not others:
        return (
            Standing.AT_RISK,
            f"no other host could take it over if {host} died",
            "add a host that meets its rules and has room",
        )
    return Standing.PROTECTED, "", ""


def _stands_hot(
    mirror: Mirror, workload: Workload, placed: rec.PlacementRecord, company: Company
) -> tuple[Standing, str, str]:
    """A hot machine that runs is protected while a standby that can take over follows it."""
    if placed.standby is not None and placed.paired:
        gone = gone_for_good(mirror, placed)
        verdict = mirror.verdicts.get(placed.standby)
        if gone is None and (verdict is None or verdict.record.verdict is rec.Verdict.ALIVE):
            return Standing.PROTECTED, f"a standby follows on {placed.standby}", ""
        why = gone or f"{placed.standby} is {verdict.record.verdict if verdict is not None else 'unknown'}"
        return Standing.AT_RISK, f"its standby may not be able to take over: {why}", "wait a moment, look again"
    if placed.standby is not None:
        return (
            Standing.AT_RISK,
            f"unprotected until its standby on {placed.standby} holds a whole copy",
            "wait a moment; `outlive why` tells what led here",
        )
    used = usage(mirror)
    hosts = [candidate(mirror, name, workload, used) for name in sorted(mirror.hosts)]
    choice = choose_standby(workload, hosts, placed, company=company)
    if choice.host is None:
        reason = f"unprotected, no host can be its standby: {choice.told()}"
        return Standing.AT_RISK, reason, "add a host that meets its rules and has room"
    return Standing.AT_RISK, "unprotected, a standby is about to be chosen", "wait a moment, look again"


def eligible(mirror: Mirror, workload: Workload, company: Company = ALONE) -> list[str]:
    """The hosts that could have the workload by what the store says of them. company: what others make of each."""
    placed = mirror.placements.get(workload.name)
    disk_hosts = placed.record.disk_hosts if placed is not None else ()
    used = usage(mirror)
    found = []
    for name in sorted(mirror.hosts):
        there = candidate(mirror, name, workload, used)
        if choose(workload, [there], {}, disk_hosts=disk_hosts, company=company).host is not None:
            found.append(name)
    return found


def candidate(mirror: Mirror, name: str, workload: Workload, used: dict[str, tuple[Capacity, int]]) -> Candidate:
    """A host as the store knows it; what the workload uses there itself is not in its way."""
    verdict, placed = mirror.verdicts.get(name), mirror.placements.get(workload.name)
    capacity, count = used.get(name, (NOTHING, 0))
    own = (placed.record.host, placed.record.standby, placed.record.moving_to) if placed is not None else ()
    return Candidate(
        host=mirror.hosts[name].record,
        verdict=verdict.record.verdict if verdict else rec.Verdict.SUSPECT,
        claimed=mirror.claimed(name) is not None,
        flags=Flags.DATASTORE_REACHABLE,
        used=capacity - workload.resources if name in own else capacity,
        workloads=count,
        maintenance=mirror.in_maintenance(name),
    )


def _too_few(mirror: Mirror, lost: Losable) -> str:
    """The sentence for fewer hosts to lose than the policy asks for; '' when there are enough, or none is asked for."""
    policy = mirror.policies.record.admission
    if policy.mode is AdmissionMode.OFF or lost.hosts >= policy.can_lose_hosts or not lost.without:
        return ""
    first = lost.without[0]
    without = f"without {' and '.join(lost.worst)} " if lost.worst else ""
    return (
        f"At risk: it can lose {lost.hosts} of its hosts, and is to lose {policy.can_lose_hosts}: {without}"
        f"{first.workload} would have no place ({first.reason}). Do: add a host, or lessen what workloads ask for."
    )


def _verdict(
    mirror: Mirror,
    hosts: tuple[HostOutlook, ...],
    workloads: tuple[WorkloadOutlook, ...],
    store_reachable: bool,
    at: float,
) -> tuple[Standing, str]:
    if not store_reachable:
        return Standing.UNKNOWN, "Unknown: the store does not answer. Do: look at `outlive doctor` on this host."
    if mirror.leader is None:
        return Standing.AT_RISK, "At risk: the cluster has no leader at present. Do: wait a few seconds, look again."
    leads, timing = mirror.leader.record.host, mirror.cluster.record.timing if mirror.cluster else Timing()
    claim = mirror.claimed(leads)
    if claim is not None and silent_for_s(claim, at) > timing.dead_s:
        silent = f"the leader {leads} has been silent for {silent_for_s(claim, at):.0f} s"
        return Standing.AT_RISK, f"At risk: {silent}. Do: wait a few seconds for another to lead, look again."
    for key, (_, problem) in sorted(mirror.bad.items()):
        return (
            Standing.AT_RISK,
            f"At risk: the record {key} cannot be read ({problem}). Do: write it again or remove it.",
        )
    if frozen := mirror.policies.record.frozen:
        why = f" ({frozen.reason})" if frozen.reason else ""
        told = f"the cluster is frozen by {frozen.by}{why}, so that nothing is failed over or restored"
        return Standing.AT_RISK, f"At risk: {told}. Do: `outlive unfreeze`."
    for each in workloads:
        if each.standing is Standing.AT_RISK:
            return Standing.AT_RISK, f"At risk: {each.name}: {each.reason}. Do: {each.remedy}."
    for host in hosts:
        if host.verdict != rec.Verdict.ALIVE:
            return Standing.AT_RISK, f"At risk: host {host.name} is {host.verdict}. Do: look after {host.name}."
    if not workloads:
        return Standing.PROTECTED, "Nothing to protect yet. Do: `outlive run` or `outlive apply FILE`."
    followed = [each for each in workloads if each.standing is Standing.PROTECTED and each.reason]
    if len(followed) == 1:
        return Standing.PROTECTED, f"Protected: {followed[0].reason}."
    return Standing.PROTECTED, "Protected."
