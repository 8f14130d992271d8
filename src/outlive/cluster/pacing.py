"""How much may begin at once: a host is given only so many workloads that are still on their way up.

After the loss of a site everything is to be placed in the same breath; a host that started it all together would
start all of it slowly. So the more important go first (`courses` looks at them in that order) and the others wait
their turn. A host that is full in this sense is passed over; nothing here says that a workload cannot be placed.
"""

from . import records as rec
from .leader_state import Turn
from .upcoming import is_upcoming

WAITS = "it waits its turn: the hosts that could have it are starting as many others as they may at once"


def crowded(turn: Turn, besides: str = "") -> dict[str, str]:
    """The hosts that start as many workloads as they may → why each is passed over.

    besides: one that is about to be placed anew, and is in nobody's way where it never came up, least in its own.
    """
    mirror = turn.state.mirror
    most = mirror.policies.record.restarts_per_host
    own, report = mirror.placements.get(besides), mirror.reports.get(besides)
    there = own.record.host if own is not None and is_upcoming(own.record, report) else None
    counts = {host: count - (host == there) for host, count in turn.starting().items()}
    return {host: f"it is starting {count} others already" for host, count in counts.items() if count >= most}


def is_known_full(turn: Turn, name: str) -> bool:
    """Whether a workload was told to wait its turn, and no host has come free since."""
    if turn.course(name).waiting != WAITS or turn.looks_at_all:
        return False
    return _free(turn) <= turn.state.free


def remember_full(turn: Turn) -> None:
    """Somebody waits: until a host comes free there is no need to ask again at every tick."""
    turn.set(free=_free(turn))


def _free(turn: Turn) -> frozenset[str]:
    """The hosts that may be given more; found once for all that wait, until something is placed."""
    if turn.free is None or turn.free[0] != turn.placed:
        full = crowded(turn)
        free = frozenset(host for host in turn.state.mirror.hosts if host not in full and _listens(turn, host))
        turn.free = (turn.placed, free)
    return turn.free[1]


def _listens(turn: Turn, host: str) -> bool:
    newest = turn.state.signs.get(host).newest()
    return newest is not None and turn.state.verdicts.get(host) is rec.Verdict.ALIVE
