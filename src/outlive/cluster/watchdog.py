"""How long a hardware watchdog may wait: the arithmetic that puts its reset before anybody else begins.

The guard gives the device a sign at `f` only if a device that hears nothing more resets the host in time:

    f + timeout · (1 + DEVICE_DRIFT)  ≤  deadline + guard_late

So whatever becomes of the guard, the host is reset before `deadline + guard_late`, from when on others may act. For
a healthy host's signs never to stop, that must hold of each moment between two renewals, a few of which may be late.
"""

from .timing import Timing

DEVICE_DRIFT = 0.02
LATE_RENEWALS = 2
"""So many renewals in a row may fail before a host that recovers would have gone without a sign for too long."""


def longest_timeout_s(timing: Timing) -> int:
    """The longest timeout, in whole seconds, with which a healthy host keeps its watchdog fed; under 1: none is."""
    room_s = timing.claim_ttl_s + timing.guard_late_s - (1 + LATE_RENEWALS) * timing.renew_s
    return int(room_s / (1 + DEVICE_DRIFT))
