"""The lab's sentinel: a small process that clears a lab up when its owner is gone.

A demo or a test owns its lab: when it is killed, even with -9, its end of a pipe closes, and the sentinel takes the
lab down. A lab made by `outlive lab up` has no owner and stays until `outlive lab down`.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from outlive.cluster.timing import Timing

from .lab import Lab, Progress
from .plan import SQLITE, LabMissing

STOP_S = 30.0


@contextmanager
def owned_lab(
    name: str, count: int, sites: int, progress: Progress, timing: Timing | None = None, store: str = SQLITE
) -> Iterator[Lab]:
    """A lab that ends with this block, and with this process whatever ends it."""
    sentinel = subprocess.Popen(
        [sys.executable, "-m", "outlive.lab.sentinel", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    lab: Lab | None = None
    try:
        lab = Lab.up(name, count, sites, progress, timing, store)
        yield lab
    finally:
        if lab is not None:
            lab.down()
        if sentinel.stdin is not None:
            sentinel.stdin.close()
        sentinel.wait(STOP_S)


def main() -> None:
    """Wait for the owner's end, then take the lab down if it is still there."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    with suppress(LabMissing):
        Lab.open(sys.argv[1]).down()


if __name__ == "__main__":
    main()
