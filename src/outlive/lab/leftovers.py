"""What labs left behind on this machine: those that were begun and of which nothing runs any more.

They cost disk and namespaces, and hold addresses of the lab's network. Nothing is cleared away here.
"""

from . import hosts
from .plan import known, load


def leftovers() -> tuple[list[str], list[str]]:
    """The labs that are up, and those that only left things behind. Raises LabMissing for a plan that is damaged."""
    up: list[str] = []
    left: list[str] = []
    for name in known():
        planned = load(name)
        (up if any(hosts.is_on(planned, host.name) for host in planned.hosts) else left).append(name)
    return up, left
