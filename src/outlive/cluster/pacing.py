"""How much may begin at once: a host is given only so many workloads that are still on their way up.

After the loss of a site everything is to be placed in the same breath; a host that started it all together would
start all of it slowly. So the more important go first (`courses` looks at them in that order) and the others wait
their turn. A host that is full in this sense is passed over; nothing here says that a workload cannot be placed.
"""

from .leader_state import Turn
from .upcoming import is_upcoming

WAITS = "it waits its turn: the hosts that could have it are starting as many others as they may at once"


def crowded(turn: Turn, besides: str = "", allowed: str | None = None) -> dict[str, str]:
    """The hosts that start as many workloads as they may → why each is passed over.

    besides: one that is about to be placed anew, and is in nobody's way where it never came up, least in its own.
    allowed: a host that is none of them.
    """
    mirror = turn.state.mirror
    crowd = _crowd(turn)
    own, report = mirror.placements.get(besides), mirror.reports.get(besides)
    there = own.record.host if own is not None and is_upcoming(own.record, report) else None
    counts_itself = there in crowd and turn.starting()[there] <= mirror.policies.record.restarts_per_host
    nobodys = {allowed, there if counts_itself else None} & crowd.keys()
    return {host: why for host, why in crowd.items() if host not in nobodys} if nobodys else crowd


def _crowd(turn: Turn) -> dict[str, str]:
    """The same for nobody in particular; kept for the turn, and looked at anew only where something was placed."""
    most, starting = turn.state.mirror.policies.record.restarts_per_host, turn.starting()
    if turn.crowd is None:
        turn.crowd, turn.begun = {}, list(starting)
    while turn.begun:
        host = turn.begun.pop()
        if starting.get(host, 0) >= most:
            turn.crowd[host] = "it is starting as many others as it may at once"
    return turn.crowd
