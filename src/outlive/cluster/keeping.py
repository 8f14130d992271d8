"""A host's own depot, as its node machine sees it: what it shall have, and what it says that it has.

What is wanted follows the store (`copies`); the agent fetches and verifies, and tells what is whole. That statement
goes to the store under this host's claim, and is repeated until the store shows it.
"""

from dataclasses import replace

from .commands import Act
from .copies import kept_on
from .events import Outcome, PackagesHeld, PackageStep, Transacted
from .mirror import Mirror
from .node_state import NodeState, Phase, Turn
from .pushed import DepotRecord
from .records import CLAIMS, DEPOTS, HOSTS, PACKAGES, PLACEMENTS, WORKLOADS, encode, name_in
from .transaction import Put, Transaction, same_incarnation


def notice(turn: Turn, before: Mirror, changed: frozenset[str] | None) -> None:
    """Remember that the depot may have to hold something else, if what has changed in the store concerns it.

    before: the picture before these keys changed; changed: None where it may be anything.
    """
    state = turn.state
    if not state.depot_due and (changed is None or any(_concerns(state, before, key) for key in changed)):
        turn.set(depot_due=True)


def _concerns(state: NodeState, before: Mirror, key: str) -> bool:
    """Whether this host is to have, may drop, or would fetch from elsewhere something else because of a key."""
    if key.startswith((PLACEMENTS, WORKLOADS)):
        name = name_in(key)
        return any(name in picture.there.get(state.me, ()) for picture in (before, state.mirror))
    if key.startswith(DEPOTS):
        was, now = (_held(picture, name_in(key)) for picture in (before, state.mirror))
        ours = {each.pinned.id for each in state.kept.kept} if state.kept is not None else set[str]()
        return not (was.keys() ^ now.keys()).isdisjoint(ours | _held(state.mirror, state.me).keys())
    return key.startswith((PACKAGES, HOSTS))


def _held(mirror: Mirror, host: str) -> dict[str, str]:
    depot = mirror.depots.get(host)
    return depot.record.holds if depot is not None else {}


def follow(turn: Turn) -> None:
    """Have the depot hold what the store wants of it, where that has changed: once a tick, however often it moves."""
    state = turn.state
    mirror = state.mirror
    if not state.depot_due:
        return
    turn.set(depot_due=False)
    if mirror.revision == 0 or not (mirror.packages or mirror.depots):
        return
    wanted = kept_on(mirror, state.me)
    if wanted != state.kept:
        turn.set(kept=wanted)
        turn.do(wanted)


def on_held(turn: Turn, event: PackagesHeld) -> None:
    """The depot says what is in it."""
    turn.set(depot=DepotRecord(turn.state.me, dict(event.holds), dict(event.troubles)))


def report(turn: Turn, in_force: bool) -> None:
    """Tell the store what is in the depot, where its newest picture says otherwise."""
    state = turn.state
    stands = state.mirror.depots.get(state.me)
    if state.depot is None or not in_force or (stands is not None and stands.record == state.depot):
        return
    if stands is None and not state.depot.holds and not state.depot.troubles:
        return
    since = state.depot_asked_at
    if since is not None and state.at - since < state.timing.transact_s * 2:
        return
    if state.mirror.revision < state.depot_revision:
        return
    turn.set(depot_asked_at=state.at)
    own = same_incarnation(CLAIMS + state.me, state.session.incarnation)
    statement = Put(DEPOTS + state.me, encode(state.depot))
    turn.transact(Act.DEPOT, state.me, Transaction((own,), (statement,)))


def on_reported(turn: Turn, event: Transacted) -> None:
    """The statement was written, or has to be tried again."""
    if event.outcome is Outcome.DONE:
        turn.set(depot_asked_at=None, depot_revision=max(event.revision, turn.state.depot_revision))
    elif event.outcome is Outcome.REFUSED:
        # The claim is not what it was; soon again, from a newer picture.
        turn.set(depot_asked_at=turn.state.at - turn.state.timing.transact_s)


def on_step(turn: Turn, event: PackageStep) -> None:
    """Getting a workload's package ready has come a step further: told, as part of what leads to its start."""
    reign = turn.state.reigns.get(event.workload)
    if reign is None or reign.generation != event.generation or reign.phase is not Phase.PREPARING:
        return
    text = f"{event.package}: {event.text}" if event.text else event.package
    cause = turn.note(
        f"package.{event.step}",
        because=reign.because,
        workload=event.workload,
        generation=event.generation,
        host=turn.state.host.name,
        text=text,
    )
    turn.set_reign(replace(reign, because=cause))
