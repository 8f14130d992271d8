"""Writing placements: where a workload goes next, that it is to stop, that it waits, that it is forgotten.

The hands of `courses`, which decides when; here is how each decision is recorded, chosen by `placement`'s rules and
written under the leader's key. Nothing is written at a new generation that `courses` did not prove.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from . import beside, holding, pacing, retrying, waiting
from . import records as rec
from .affinity import Company
from .commands import Act
from .failover import Proof
from .generation import first_generation
from .leader_state import Turn
from .mirror import Entry
from .naming import named
from .ordering import waits_for
from .pairing import unpaired, with_copies
from .placement import Used, takes_room_beside
from .ranking import View
from .transaction import Compare, Delete, Put, same_incarnation, unchanged
from .workload import OnAfterLimit, Workload


def place(
    turn: Turn,
    wanted: rec.WorkloadRecord,
    placed: Entry[rec.PlacementRecord] | None,
    proof: Proof | None,
    prefer: str | None = None,
    kind: str = "workload.placed",
    resume_at: str = "",
) -> bool:
    """Choose a host and write the next generation, or say why it has to wait. resume_at: as in the record."""
    workload, mirror = wanted.workload, turn.state.mirror
    name = workload.name
    if waiting.is_asleep(turn, name):
        return True
    if early := retrying.too_early(turn, wanted):
        wait(turn, name, early, "placement.delayed", turn.course(name).cause)
        waiting.sleep(turn, name, turn.course(name).elsewhere_at)
        return True
    if waiting.is_spent(turn):
        turn.put_off.add(name)
        return False
    if reason := _order(turn, workload):
        waiting.sleep(turn, name, _overdue_at(turn, workload))
        return _nowhere(turn, name, placed, reason, proof)
    if beside.is_unsettled(turn, name):
        return False
    course, before = turn.course(name), placed.record if placed is not None else None
    company = beside.company(turn, workload)
    choice = _choose(turn, workload, before, prefer, company)
    if choice.host is None:
        return _in_vain(turn, workload, placed, proof, choice)
    generation = placed.record.generation + 1 if placed else first_generation(mirror)
    text = proof.reason if proof else ""
    cause = turn.note(kind, workload=name, generation=generation, host=choice.host, because=course.cause, text=text)
    claim = mirror.claims[choice.host].incarnation
    holder = mirror.claims[choice.host].record
    record = rec.PlacementRecord(
        workload=name,
        generation=generation,
        host=choice.host,
        claim=claim,
        version=wanted.version,
        operation=placed.record.operation if placed else None,
        reason=text,
        because=cause,
        pairing=before.pairing if before is not None else 0,
        disk_hosts=(choice.host,) if workload.keeps_disks or workload.is_hot else (),
        copies=with_copies(before, *before.disk_hosts) if before is not None else (),
        resume_at=resume_at,
        host_deaths=_deaths(turn, before),
        failures=retrying.failures(turn, before, wanted.version),
        boot_id=holder.boot_id,
        heartbeats=holder.heartbeats,
    )
    record = replace(record, copies=tuple(each for each in record.copies if each != choice.host))
    turn.set_course(name, waiting="", cause="", after_since=None, after_told=False, held_for="", in_vain=0)
    waiting.forget(turn, name)
    turn.means(workload, choice.host, rooms(before))
    stands = (same_incarnation(rec.CLAIMS + choice.host, claim), *beside.still(turn, name))
    write_placement(turn, record, placed, stands)
    return False


def _order(turn: Turn, workload: Workload) -> str:
    """Why others must run before it is started; '' when it may begin, in order or because that took too long."""
    name, at = workload.name, turn.state.at
    reason, since = waits_for(turn.state.mirror, name), turn.course(name).after_since
    if reason is None:
        return ""
    if since is None:
        turn.set_course(name, after_since=at)
        return reason
    if at - since < workload.after_limit_s:
        return reason
    told = f"{reason} after {workload.after_limit_s:g} s"
    starts = workload.on_after_limit is OnAfterLimit.START
    if not turn.course(name).after_told:
        text = f"{told}; it is started without" if starts else f"{told}; it waits on"
        cause = turn.note("order.overdue", workload=name, text=text, because=turn.course(name).cause)
        turn.set_course(name, after_told=True, cause=cause)
    return "" if starts else told


def _overdue_at(turn: Turn, workload: Workload) -> float:
    """When it has waited for the others for as long as it is to; or when to make sure that it still has to."""
    at, since = turn.state.at, turn.course(workload.name).after_since
    overdue_at = (at if since is None else since) + workload.after_limit_s
    soon_s = waiting.LOOK_AGAIN_S if waiting.is_watched(turn, workload.name) else waiting.MAKE_SURE_S
    return min(overdue_at, at + soon_s) if overdue_at > at else at + soon_s


def _told(held: tuple[holding.Held, ...]) -> str:
    return named([each.workload.name for each in held])


@dataclass(frozen=True, slots=True)
class _Found:
    """Where it goes; or why it goes nowhere.

    queued: it only waits its turn.  held: for room that is held for others.  bound: for others to have a place.
    again_at: when it may be tried where it may not be now.
    """

    host: str | None
    why: str = ""
    queued: bool = False
    held: bool = False
    bound: bool = False
    again_at: tuple[float, ...] = ()


def _choose(
    turn: Turn, workload: Workload, before: rec.PlacementRecord | None, prefer: str | None, company: Company
) -> _Found:
    """The best host where it has not failed lately, else one where it may be tried again."""
    name, course, at = workload.name, turn.course(workload.name), turn.state.at
    disk_hosts = before.disk_hosts if before is not None else ()
    # Where its disks are it must be started, whether or not it failed there.
    bound = {*(disk_hosts if workload.keeps_disks else ()), company.only[0] if company.only is not None else None}
    kept_from = {host: until for host, (until, _) in course.avoid.items() if at < until and host not in bound}
    avoid = {host: course.avoid[host][1] for host in kept_from}
    crowd = pacing.crowded(turn, name, prefer)
    worn = retrying.worn(turn, name)
    held = holding.held_before(turn, workload)
    hosts, free = room_for(turn, workload, rooms(before), held), room_for(turn, workload, rooms(before))
    looks = [worn, {}] if worn and retrying.may_try_anywhere(turn, name) else [worn]
    passed_over: Mapping[str, str] = {}
    for also in looks:
        passed_over = {**also, **avoid} if also or avoid else avoid
        there = hosts.choose(workload, {**crowd, **passed_over} if crowd else passed_over, prefer, disk_hosts, company)
        if there.host is not None or there.waits:
            return _Found(there.host, f"no host can have it: {there.waits}", bound=True)
        if crowd and hosts.choose(workload, passed_over, prefer, disk_hosts, company).host is not None:
            return _Found(None, pacing.WAITS, queued=True)
    if held and free.choose(workload, passed_over, prefer, disk_hosts, company).host is not None:
        return _Found(None, f"the room that it could have is held for {_told(held)}, which go first", held=True)
    again_at = (*kept_from.values(), *((course.next_try_at,) if worn else ()))
    why = free.why_none(workload, passed_over, disk_hosts, company)
    return _Found(None, f"no host can have it: {why}", again_at=again_at)


def _in_vain(
    turn: Turn, workload: Workload, placed: Entry[rec.PlacementRecord] | None, proof: Proof | None, found: _Found
) -> bool:
    """Say why it has no place, and let it sleep until that may have changed."""
    name, again_at = workload.name, list(found.again_at)
    if found.held or waiting.is_watched(turn, name):
        again_at.append(turn.state.at + waiting.LOOK_AGAIN_S)
    waiting.found_none(turn, name, None if found.bound else workload.resources, *again_at)
    if found.queued:
        wait(turn, name, found.why, "placement.queued", turn.course(name).cause)
        return True
    return _nowhere(turn, name, placed, found.why, proof)


def rooms(placed: rec.PlacementRecord | None) -> tuple[str, ...]:
    """Where a workload takes room that it would leave if it were placed anew."""
    hosts = (placed.host, *takes_room_beside(placed)) if placed is not None else ()
    return tuple(host for host in hosts if host is not None)


def room_for(turn: Turn, workload: Workload, leaves: Iterable[str | None], held: Iterable[holding.Held] = ()) -> View:
    """The hosts as this workload finds them: without what it uses there itself, and with what is held for others."""
    changed: dict[str, Used] = {}
    for host in leaves:
        if host is not None:
            used, count = changed.get(host) or turn.used().get(host, (workload.resources, 1))
            changed[host] = (used - workload.resources, count - 1)
    for each in held:
        used, count = changed.get(each.host) or turn.used_on(each.host)
        changed[each.host] = (used + each.workload.resources, count)
    return turn.ranking().seen(changed)


def _deaths(turn: Turn, before: rec.PlacementRecord | None) -> int:
    if before is None:
        return 0
    course = turn.course(before.workload)
    return course.host_deaths if course.counted == before.generation else before.host_deaths


def _nowhere(
    turn: Turn, name: str, placed: Entry[rec.PlacementRecord] | None, reason: str, proof: Proof | None
) -> bool:
    """It sleeps without a place: say so where it stands; True when that needs no write."""
    course = turn.course(name)
    ended = placed is not None and course.counted == placed.record.generation
    kind = "workload.failed" if course.failures or ended else "workload.waiting"
    wait(turn, name, reason, kind, turn.course(name).cause)
    if placed is None or placed.record.host is None or proof is None:
        return True
    deaths, failures = _deaths(turn, placed.record), retrying.failures(turn, placed.record, placed.record.version)
    record = replace(nobodys(placed.record), order=rec.Order.RUN, reason=reason, because=turn.course(name).cause)
    record = replace(record, host_deaths=deaths, failures=failures)
    waiting.expect(turn, record)
    write_placement(turn, record, placed, ())
    return False


def nobodys(record: rec.PlacementRecord) -> rec.PlacementRecord:
    """The placement when nobody acts for it, nor follows; where its disks are stays known."""
    copies = record.copies
    nobody = replace(unpaired(record), host=None, claim=0, boot_id="", heartbeats=0, stuck="")
    return replace(nobody, next_host=None, took_over=False, copies=copies)


def wait(turn: Turn, name: str, reason: str, kind: str, because: str = "") -> None:
    """Record the reason for waiting, once for each different one."""
    if turn.course(name).waiting == reason:
        return
    cause = turn.note(kind, workload=name, text=reason, because=because)
    turn.set_course(name, waiting=reason, cause=cause)


def order_stop(
    turn: Turn, placed: Entry[rec.PlacementRecord], reason: str, because: str, next_host: str | None = None
) -> None:
    """Have the host that a placement names stop the workload; next_host: where it is to go then."""
    record = replace(placed.record, order=rec.Order.STOP, reason=reason, because=because, next_host=next_host)
    write_placement(turn, record, placed, ())


def write_placement(
    turn: Turn,
    record: rec.PlacementRecord,
    placed: Entry[rec.PlacementRecord] | None,
    more: tuple[Compare, ...],
) -> None:
    """Put a placement in the place of the one that was looked at; `more` must hold besides."""
    key = rec.PLACEMENTS + record.workload
    stood = unchanged(key, placed.mod_revision if placed is not None else 0)
    turn.write(Act.PLACE, key, (stood, *more), (Put(key, rec.encode(record)),), record.because)


def forget(
    turn: Turn,
    name: str,
    wanted: Entry[rec.WorkloadRecord],
    placed: Entry[rec.PlacementRecord] | None,
) -> None:
    """It was removed and nobody acts for it: nothing of it stays."""
    compares = (
        unchanged(rec.WORKLOADS + name, wanted.mod_revision),
        unchanged(rec.PLACEMENTS + name, placed.mod_revision if placed else 0),
    )
    cause = turn.note("workload.removed", workload=name, because=wanted.record.because)
    turn.write(
        Act.FORGET,
        rec.PLACEMENTS + name,
        compares,
        tuple(Delete(room + name) for room in (rec.WORKLOADS, rec.PLACEMENTS, rec.REPORTS, rec.STANDBYS)),
        cause,
    )
    if name in turn.state.courses:
        turn.set(courses=turn.state.courses.delete(name))
