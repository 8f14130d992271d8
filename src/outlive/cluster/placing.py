"""Writing placements: where a workload goes next, that it is to stop, that it waits, that it is forgotten.

The hands of `courses`, which decides when; here is how each decision is recorded, chosen by `placement`'s rules and
written under the leader's key. Nothing is written at a new generation that `courses` did not prove.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from . import beside, holding, pacing, retrying
from . import records as rec
from .commands import Act
from .failover import Proof
from .generation import first_generation
from .host import Capacity
from .leader_state import Turn
from .mirror import Entry
from .naming import named
from .ordering import waits_for
from .pairing import unpaired, with_copies
from .placement import NOTHING, Choice, choose, takes_room_beside
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
    workload, mirror, at = wanted.workload, turn.state.mirror, turn.state.at
    name = workload.name
    if early := retrying.too_early(turn, wanted):
        wait(turn, name, early, "placement.delayed", turn.course(name).cause)
        return False
    if pacing.is_known_full(turn, name):
        return False
    course = turn.course(name)
    if reason := _order(turn, workload):
        _nowhere(turn, name, placed, reason, proof)
        return False
    if beside.is_unsettled(turn, name):
        return False
    used = turn.used()
    before = placed.record if placed is not None else None
    if before is not None:
        used = without(used, workload, before.host, *takes_room_beside(before))
    disk_hosts = before.disk_hosts if before is not None else ()
    # Where its disks are it must be started, whether or not it failed there.
    bound = disk_hosts if workload.keeps_disks else ()
    company = beside.company(turn, workload)
    if company.only is not None:
        bound = (*bound, company.only[0])
    avoid = {host: why for host, (until, why) in course.avoid.items() if at < until and host not in bound}
    held = holding.held_before(turn, workload)

    def best(used: dict[str, tuple[Capacity, int]], passed_over: dict[str, str]) -> Choice:
        hosts = turn.candidates(used)
        return choose(workload, hosts, {**passed_over, **avoid}, prefer, disk_hosts, company)

    choice = _choose(turn, name, prefer, partial(best, holding.with_held(used, held)))
    if choice is None:
        pacing.remember_full(turn)
        wait(turn, name, pacing.WAITS, "placement.queued", course.cause)
        return False
    if choice.host is None:
        there = best(used, {}).host if held else None
        reason = f"no host can have it: {choice.told()}"
        if there is not None:
            reason = f"the room that it could have is held for {_told(held)}, which go first"
        _nowhere(turn, name, placed, reason, proof)
        return False
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
    turn.set_course(name, waiting="", cause="", after_since=None, after_told=False, held_for="")
    capacity, count = used.get(choice.host, (NOTHING, 0))
    turn.means(name, choice.host, used | {choice.host: (capacity + workload.resources, count + 1)})
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


def _told(held: tuple[holding.Held, ...]) -> str:
    return named([each.workload.name for each in held])


def _choose(turn: Turn, name: str, prefer: str | None, best: Callable[[dict[str, str]], Choice]) -> Choice | None:
    """The best host where it has not failed lately, else one where it may be tried again; None: it waits its turn.

    best: chooses, with some hosts passed over and why.
    """
    crowd = {host: why for host, why in pacing.crowded(turn, name).items() if host != prefer}
    worn = retrying.worn(turn, name)
    choice = Choice(None, {})
    for passed_over in [worn, {}] if worn and retrying.may_try_anywhere(turn, name) else [worn]:
        choice = best({**crowd, **passed_over})
        if choice.host is not None:
            return choice
        if crowd and best(passed_over).host is not None:
            return None
    return choice


def _deaths(turn: Turn, before: rec.PlacementRecord | None) -> int:
    if before is None:
        return 0
    course = turn.course(before.workload)
    return course.host_deaths if course.counted == before.generation else before.host_deaths


def _nowhere(
    turn: Turn, name: str, placed: Entry[rec.PlacementRecord] | None, reason: str, proof: Proof | None
) -> None:
    """It cannot be placed: say so where it stands, and look again when anything changes."""
    course = turn.course(name)
    ended = placed is not None and course.counted == placed.record.generation
    kind = "workload.failed" if course.failures or ended else "workload.waiting"
    wait(turn, name, reason, kind, turn.course(name).cause)
    if placed is None or placed.record.host is None or proof is None:
        return
    deaths, failures = _deaths(turn, placed.record), retrying.failures(turn, placed.record, placed.record.version)
    record = replace(nobodys(placed.record), order=rec.Order.RUN, reason=reason, because=turn.course(name).cause)
    record = replace(record, host_deaths=deaths, failures=failures)
    write_placement(turn, record, placed, ())


def nobodys(record: rec.PlacementRecord) -> rec.PlacementRecord:
    """The placement when nobody acts for it, nor follows; where its disks are stays known."""
    copies = record.copies
    nobody = replace(unpaired(record), host=None, claim=0, boot_id="", heartbeats=0)
    return replace(nobody, next_host=None, took_over=False, copies=copies)


def without(
    used: dict[str, tuple[Capacity, int]], workload: Workload, *hosts: str | None
) -> dict[str, tuple[Capacity, int]]:
    """What is used when the workload is no longer counted on these hosts."""
    left = dict(used)
    for host in hosts:
        if host is not None:
            capacity, count = left.get(host, (workload.resources, 1))
            left[host] = (capacity - workload.resources, count - 1)
    return left


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
