"""A frozen cluster: nothing is done that nobody asked for, until an operator lets it act by itself again.

Frozen are failovers, placements of what waits, restorations of modules, the choice of standbys, and what hosts do by
themselves when they are cut off. Verdicts go on, and what an operator asks for is done: applying, starting, stopping,
removing, moving, failing over by name, maintenance. Claims and guards go on too, or two could act; and so do the two
hosts of a pair, since a primary that lost its standby says nothing more until one of them has won.
"""

from . import records as rec
from .mirror import Mirror

UNREADABLE = "the policies cannot be read, and may say that the cluster is frozen; `outlive unfreeze` writes them anew"


def frozen(mirror: Mirror) -> str:
    """Why nothing is done by itself; '' while the cluster is not frozen.

    Policies that cannot be read count as they last were; where nobody remembers that, as frozen.
    """
    if are_unknown(mirror):
        return UNREADABLE
    freeze = mirror.policies.record.frozen
    if freeze is None:
        return ""
    return f"the cluster is frozen by {freeze.by}" + (f": {freeze.reason}" if freeze.reason else "")


def are_unknown(mirror: Mirror) -> bool:
    """Whether policies stand in the store that nobody can read, and this host never could."""
    return rec.POLICIES in mirror.bad and mirror.policies.mod_revision == 0


def asked_for(mirror: Mirror, record: rec.PlacementRecord) -> bool:
    """Whether nobody acts for it because an operator wished so, and placing it is his wish too."""
    operation = mirror.operations.get(record.operation or "")
    running = operation is not None and operation.record.state is rec.OperationState.RUNNING
    return running or record.order is rec.Order.STOP
