"""A bench of virtual machines: a hot one beside an unprotected one, in one lab on this machine, in one run.

The hot machine is measured first, since it shows how fast the guest must change memory for as many pages in an epoch
as are wanted; the unprotected one then does just the same. Each has the lab for itself while it is measured. Then the
hot one's hosts lose their power, again and again.
"""

from dataclasses import replace

from . import machines, ready
from .bench_cuts import power_cuts
from .bench_measure import Effort, Progress, forget, measure, start
from .bench_values import BUSY, IDLE, LEVELS, Bench, Run
from .guests.tiny import tiny
from .lab import Lab
from .plan import NETWORK_4

HOSTS, READY_S = 3, 30.0
WHOLE = Effort(window_s=6.0, bulk_bytes=64 << 20, levels=LEVELS)
QUICK = Effort(window_s=3.5, bulk_bytes=8 << 20, levels=(IDLE, BUSY))

HOT = machines.Wish(name="hot", protection="hot", disk_on="local")
TO_CUT = replace(HOT, name="to-cut")
UNPROTECTED = machines.Wish(
    name="unprotected",
    address=f"{NETWORK_4}.151",
    mac="52:54:00:77:00:97",
    disk_on="local",
    # It has a local disk, as the hot one has, and so must stay where that is.
    more='[placement]\nhosts = ["a"]\n',
)


def play(lab: Lab, effort: Effort, cuts: int, progress: Progress, board: str = "pc") -> Bench:
    """Measure both machines in a lab of three hosts that is up. Raises Failed when one does not get going.

    board: of all machines, `pc` or `q35`.
    """
    guest = tiny(say=progress)
    progress("waiting for a leader")
    ready.until_ready(lab, READY_S)
    rates: dict[str, int] = {}
    runs: list[Run] = []
    for kind, wish in (("hot", HOT), ("unprotected", UNPROTECTED)):
        progress(f"starting the {kind} machine")
        subject = start(lab, replace(wish, type=board), guest, rates)
        runs.append(measure(subject, effort, progress))
        forget(subject)
    hot, unprotected = runs
    if not cuts:
        return Bench(unprotected, hot, ())
    progress("starting a hot machine whose hosts lose their power")
    subject = start(lab, replace(TO_CUT, type=board), guest, rates)
    return Bench(unprotected, hot, *power_cuts(subject, cuts, progress))
