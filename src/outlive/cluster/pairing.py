"""The primary's side of a pair: it seeds a standby, hands over, moves, or goes on alone, as the store decides.

Which pairing stands is the placement's to say, and its number only grows: whoever sees a newer one knows that nobody
can take over by an older one any more, and that is all that lets held output out. Both hosts of a pair change the
placement by comparing its very revision, so that of two that lost each other one wins (DESIGN: hot arbitration). When
the store does not answer, nothing follows: output stays held.
"""

from dataclasses import replace
from typing import Any

from . import records as rec
from .commands import Act, GoAlone, HandOver, MigrateTo, Pair
from .events import Migrated, MigrationFailed, Outcome, Paired, PeerLost, Transacted
from .heartbeat import ModuleStatus
from .mirror import Entry, Mirror
from .node_state import Link, Phase, Reign, Turn
from .transaction import Put, Transaction, same_incarnation, unchanged
from .workload import Kind

COPIES_KEPT = 4


def follow(turn: Turn, may_act: bool) -> None:
    """Make the pairings of what runs here follow the store, and ask it to arbitrate where one must be left."""
    for name, reign in sorted(turn.state.reigns.items()):
        if reign.workload.kind is not Kind.VM or reign.phase not in (Phase.ACTIVE, Phase.STOPPING):
            continue
        entry = turn.state.mirror.placements.get(name)
        if entry is None or not _is_of(entry.record, reign, turn.state.me):
            continue
        _leave_older(turn, reign, entry.record)
        if may_act and reign.phase is Phase.ACTIVE:
            _pair(turn, turn.state.reigns[name], entry.record)
            _hand_over(turn, turn.state.reigns[name], entry.record)
            _mind_failed(turn, turn.state.reigns[name], entry.record)
        if may_act:
            _arbitrate(turn, turn.state.reigns[name], entry)


def _is_of(placed: rec.PlacementRecord, reign: Reign, me: str) -> bool:
    return placed.generation == reign.generation and placed.host == me and placed.claim == reign.claim


def _set_link(turn: Turn, reign: Reign, **changes: Any) -> None:
    turn.set_reign(replace(reign, link=replace(reign.link, **changes)))


def _leave_older(turn: Turn, reign: Reign, placed: rec.PlacementRecord) -> None:
    """The store has moved on to a newer pairing: nobody takes over by the one before."""
    if placed.pairing > reign.link.pairing:
        _left(turn, reign, placed.pairing, placed.because)
    elif reign.link.adopted and not reign.link.told:
        # Nobody can be whole in a pairing that was never begun here: whatever it is in is an older one.
        _set_link(turn, reign, adopted=False)
        turn.do(GoAlone(placed.workload, reign.generation, placed.pairing, placed.because))
    elif placed.paired and reign.link.whole and not reign.link.told_whole:
        _protected(turn, reign)


def _left(turn: Turn, reign: Reign, pairing: int, because: str) -> None:
    """Every pairing below this one is over: what was held for it may go."""
    name, link = reign.workload.name, reign.link
    if link.lost:
        because = turn.note(
            "workload.unprotected",
            workload=name,
            generation=reign.generation,
            text=link.lost,
            because=link.lost_because,
        )
    turn.set_reign(replace(reign, link=Link(pairing=pairing)))
    turn.save()
    # One that was lost without having been told anything has lost its manager: it gets another one now.
    if link.told or link.adopted or link.lost:
        turn.do(GoAlone(name, reign.generation, pairing, because))


def _protected(turn: Turn, reign: Reign) -> None:
    name = reign.workload.name
    turn.note("workload.protected", workload=name, generation=reign.generation, because=reign.because)
    _set_link(turn, reign, told_whole=True)


def _pair(turn: Turn, reign: Reign, placed: rec.PlacementRecord) -> None:
    """Have the standby seeded, or the migration begun, once the other host says where it listens."""
    link = reign.link
    other = placed.standby or placed.moving_to
    begun = link.told and not link.adopted
    if other is None or begun or link.pairing != placed.pairing or placed.order is rec.Order.STOP:
        return
    entry = turn.state.mirror.standbys.get(placed.workload)
    if entry is None or not all(status is ModuleStatus.RUNNING for status in reign.statuses.values()):
        return
    there = entry.record
    claim = placed.standby_claim if placed.standby is not None else placed.moving_claim
    fits = (there.generation, there.pairing, there.host, there.claim) == (
        placed.generation, placed.pairing, other, claim,
    )  # fmt: skip
    if not fits or there.stage not in rec.REACHABLE:
        return
    _set_link(turn, reign, told=True, adopted=False)
    turn.save()
    kind = Pair if placed.standby is not None else MigrateTo
    about = (placed.workload, placed.generation, placed.pairing, other, there.address, there.port)
    turn.do(kind(*about, there.because))


def _hand_over(turn: Turn, reign: Reign, placed: rec.PlacementRecord) -> None:
    """A planned move: complete a last epoch; if nobody takes it in time, go on."""
    link, at = reign.link, turn.state.at
    if placed.hand_over and link.whole and link.handing_since is None and not link.lost:
        _set_link(turn, reign, handing_since=at)
        about = {"workload": placed.workload, "generation": reign.generation}
        cause = turn.note("machine.handed_over", because=placed.because, **about)
        turn.do(HandOver(placed.workload, reign.generation, link.pairing, cause))
    elif link.handing_since is not None and at - link.handing_since >= turn.state.timing.hand_over_s:
        _lose(turn, reign, f"{placed.standby} did not take over what was handed to it", placed.because)


def _mind_failed(turn: Turn, reign: Reign, placed: rec.PlacementRecord) -> None:
    """A machine that failed is its standby's to go on with; only when that does not is it restored here."""
    link, at = reign.link, turn.state.at
    if all(status is not ModuleStatus.FAILED for status in reign.statuses.values()):
        if link.failed_since is not None:
            _set_link(turn, reign, failed_since=None)
        return
    if link.failed_since is None:
        _set_link(turn, reign, failed_since=at)
        return
    followed = placed.standby is not None or placed.moving_to is not None
    if followed and at - link.failed_since >= turn.state.timing.take_over_s:
        _lose(turn, reign, reign.reason, reign.because)


def _lose(turn: Turn, reign: Reign, reason: str, because: str) -> None:
    """This pairing must be left; the store is asked to."""
    if reign.link.lost:
        return
    cause = turn.note(
        "pair.lost", workload=reign.workload.name, generation=reign.generation, text=reason, because=because
    )
    _set_link(turn, reign, lost=reason or "it was lost", lost_because=cause, asked_at=None)


def _current(turn: Turn, workload: str, generation: int, pairing: int) -> Reign | None:
    """The reign that an event is about, if it is in that pairing still."""
    reign = turn.state.reigns.get(workload)
    if reign is None or reign.generation != generation or reign.phase not in (Phase.ACTIVE, Phase.STOPPING):
        return None
    link = reign.link
    if link.adopted and 0 < pairing < link.pairing:
        # It speaks of a pairing that is over: the agent before this one died before it could tell it so.
        turn.do(GoAlone(workload, generation, link.pairing, reign.because))
    # A manager that ended while no agent ran cannot say which pairing it was in.
    return reign if pairing in (0, link.pairing) else None


def on_paired(turn: Turn, event: Paired) -> None:
    """The standby holds a whole epoch."""
    reign = _current(turn, event.workload, event.generation, event.pairing)
    if reign is not None and not reign.link.whole:
        _set_link(turn, reign, whole=True, asked_at=None)


def on_peer_lost(turn: Turn, event: PeerLost | MigrationFailed) -> None:
    """The other end is silent, or the migration failed."""
    reign = _current(turn, event.workload, event.generation, event.pairing)
    # What it handed over it leaves to the standby for a while, which loses the link in the same moment.
    if reign is not None and reign.link.handing_since is None:
        _lose(turn, reign, event.reason, reign.because)


def on_migrated(turn: Turn, event: Migrated) -> None:
    """All of it is at the target."""
    reign = _current(turn, event.workload, event.generation, event.pairing)
    if reign is not None and not reign.link.complete:
        turn.note(
            "machine.sent", because=reign.because, workload=event.workload, generation=event.generation,
            text=f"all of it is at its target; it has stood still for {event.stood_still_ms:.0f} ms",
        )  # fmt: skip
        _set_link(turn, reign, complete=True, asked_at=None)


def _arbitrate(turn: Turn, reign: Reign, entry: Entry[rec.PlacementRecord]) -> None:
    """Ask for what is due; again when the picture is newer, or after a while without an answer."""
    link, state, placed = reign.link, turn.state, entry.record
    if link.pairing != placed.pairing:
        return
    fresh = link.asked_at is None or link.asked_revision != entry.mod_revision
    if not fresh and state.at - (link.asked_at or 0.0) < state.timing.renew_s * 2:
        return
    if link.lost:
        act, record = Act.ALONE, _alone(placed, state.me, link)
    elif reign.phase is not Phase.ACTIVE or placed.order is rec.Order.STOP:
        return
    elif link.complete and placed.moving_to is not None:
        act, record = Act.MOVED, _moved(placed, state.mirror, reign.because)
    elif link.whole and placed.standby is not None and not placed.paired:
        hosts = (state.me, placed.standby) if placed.disk_hosts else ()
        act, record = Act.PAIRED, replace(placed, paired=True, disk_hosts=hosts)
    else:
        return
    key = rec.PLACEMENTS + placed.workload
    compares = [
        unchanged(key, entry.mod_revision),
        same_incarnation(rec.CLAIMS + state.me, reign.claim),
    ]
    if act is Act.MOVED and placed.moving_to is not None:
        compares.append(same_incarnation(rec.CLAIMS + placed.moving_to, placed.moving_claim))
    _set_link(turn, reign, asked_at=state.at, asked_revision=entry.mod_revision)
    asked = Transaction(tuple(compares), (Put(key, rec.encode(record)),))
    turn.transact(act, placed.workload, asked, number=link.pairing, because=record.because)


def _alone(placed: rec.PlacementRecord, me: str, link: Link) -> rec.PlacementRecord:
    return replace(
        unpaired(placed),
        disk_hosts=(me,) if placed.disk_hosts else (),
        reason=placed.reason if placed.order is rec.Order.STOP else f"it goes on alone: {link.lost}",
        because=link.lost_because,
    )


def unpaired(placed: rec.PlacementRecord) -> rec.PlacementRecord:
    """The placement with nobody who follows, and every pairing up to its present one over; its disks are its host's."""
    followers = [each for each in (placed.standby, placed.moving_to) if each is not None]
    return replace(
        placed,
        standby=None,
        standby_claim=0,
        pairing=placed.pairing + 1,
        paired=False,
        hand_over=False,
        moving_to=None,
        moving_claim=0,
        copies=with_copies(placed, *followers),
    )


def with_copies(placed: rec.PlacementRecord, *hosts: str) -> tuple[str, ...]:
    """The hosts with older copies of its disks, when these have come to be; the newest first, and only so many."""
    if not placed.disk_hosts:
        return placed.copies
    return (*hosts, *(each for each in placed.copies if each not in hosts))[:COPIES_KEPT]


def _moved(placed: rec.PlacementRecord, mirror: Mirror, because: str) -> rec.PlacementRecord:
    there = placed.moving_to or ""
    return succeeded(placed, mirror, there, placed.moving_claim, f"it moved live from {placed.host}", because)


def succeeded(
    placed: rec.PlacementRecord, mirror: Mirror, host: str, claim: int, reason: str, because: str
) -> rec.PlacementRecord:
    """The next generation, which goes on at `host` where the one before it stopped."""
    holder = mirror.holder(host, claim)
    return replace(
        placed,
        generation=placed.generation + 1,
        host=host,
        claim=claim,
        boot_id=holder.boot_id if holder is not None else "",
        heartbeats=holder.heartbeats if holder is not None else 0,
        stuck="",
        restores={},
        next_host=None,
        standby=None,
        standby_claim=0,
        paired=False,
        took_over=True,
        hand_over=False,
        disk_hosts=(host,) if placed.disk_hosts else (),
        copies=with_copies(placed, placed.host or host),
        resume_at="",
        moving_to=None,
        moving_claim=0,
        reason=reason,
        because=because,
    )


def on_transacted(turn: Turn, event: Transacted) -> None:
    """The store has arbitrated. What it refused is looked at again with the newest picture."""
    name, act = event.purpose.subject, event.purpose.act
    reign = turn.state.reigns.get(name)
    stale = reign is None or reign.link.pairing != event.purpose.number
    if stale or reign is None or event.outcome is not Outcome.DONE:
        return
    if act is Act.PAIRED and not reign.link.told_whole:
        _protected(turn, reign)
    elif act is Act.ALONE:
        _left(turn, reign, reign.link.pairing + 1, reign.link.lost_because)
