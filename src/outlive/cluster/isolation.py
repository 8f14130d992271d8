"""Whether a host is cut off: it hears no peer, and probes to all of them stay unanswered.

Silence alone proves nothing when the others have lost their claims too: then this host is alone, not isolated. With
just two hosts both would think so of themselves; there the leader stays, and the other yields. A host that outlives all
others is not isolated either, or it would stop what only it can run. Sources: US 9,558,070 (isolated hosts told from
partitioned ones), vSphere's isolation response.
"""

from .commands import DeclareIsolated, Probe
from .freezing import frozen
from .lease import silent_for_s
from .node_state import NodeState, Turn
from .reigns import stop_isolated
from .repeats import Repeats
from .session import in_force


def heard(turn: Turn, host: str) -> None:
    """A peer gave a sign of life; this host's own heartbeats, which it also sends to itself, are none."""
    if host == turn.state.me:
        return
    turn.set(heard=turn.state.heard.set(host, turn.state.at))
    if turn.state.isolated:
        _declare(turn, isolated=False)


def heard_again(turn: Turn, repeats: Repeats) -> None:
    """Peers gave signs of life that brought no news."""
    before = turn.state.repeats
    turn.set(repeats=repeats)
    if turn.state.isolated and repeats.latest_at() > before.latest_at():
        _declare(turn, isolated=False)


def watch(turn: Turn) -> None:
    """On every tick: probe silent peers, and say whether this host is isolated."""
    _mind_own_lag(turn)
    state, others = turn.state, turn.state.peers
    if not state.isolated and _hears_any(state):
        return
    if state.isolated and _store_answers(turn) and all(state.mirror.claimed(name) is None for name in others):
        _declare(turn, isolated=False)
    silent_s = state.at - max((_heard_at(state, name) for name in others), default=0.0)
    silent_s = min(silent_s, state.at - state.listening_since)
    if not others or silent_s < state.timing.isolation_s / 2:
        return
    if state.at - state.probed_at >= state.timing.probe_s:
        turn.set(probed_at=state.at)
        for name in others:
            turn.do(Probe(name))
    if silent_s >= state.timing.isolation_s and not turn.state.isolated and _others_act(turn, others):
        _declare(turn, isolated=True)


def _hears_any(state: NodeState) -> bool:
    """Whether some peer was heard so lately that nothing else needs to be looked at; most are, so one is found soon."""
    half_s = state.timing.isolation_s / 2
    return any(state.at - _heard_at(state, name) < half_s for name in state.peers)


def _heard_at(state: NodeState, host: str) -> float:
    repeated = state.repeats.of(host)
    return max(state.heard.get(host, 0.0), repeated[1] if repeated is not None else 0.0)


def _mind_own_lag(turn: Turn) -> None:
    """After a late tick, count the silence from now: what peers said meanwhile may be waiting unread."""
    state = turn.state
    late = state.ticked_at is not None and state.at - state.ticked_at > state.timing.lag_s
    turn.set(ticked_at=state.at, listening_since=state.at if late else state.listening_since)


def _store_answers(turn: Turn) -> bool:
    return turn.state.at - turn.state.session.reached_at < turn.state.timing.renew_s * 3


def _others_act(turn: Turn, others: tuple[str, ...]) -> bool:
    """Whether others go on renewing their claims unheard. A claim may stand for a while after its host's death."""
    state = turn.state
    if not _store_answers(turn):
        return True
    claims = [claim for name in others if (claim := state.mirror.claimed(name)) is not None]
    acting = [claim for claim in claims if silent_for_s(claim, state.at) < state.timing.renew_s * 3]
    leader = state.mirror.leader
    leads = leader is not None and leader.record.host == state.host.name and in_force(turn)
    return len(acting) > (1 if leads else 0)


def _declare(turn: Turn, *, isolated: bool) -> None:
    turn.set(isolated=isolated)
    kind = "host.isolated" if isolated else "host.rejoined"
    cause = turn.note(kind, host=turn.state.host.name)
    turn.do(DeclareIsolated(isolated))
    if isolated and not frozen(turn.state.mirror):
        stop_isolated(turn, cause)


def on_policies(turn: Turn) -> None:
    """The policies are others: what a host that is cut off stops by these, and did not by those before, stops now."""
    if turn.state.isolated and not frozen(turn.state.mirror):
        stop_isolated(turn, "")
