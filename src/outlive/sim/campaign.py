"""Many seeds, on several processors: each seed is one world, and the same wherever and with whatever it is run.

This is the only file of the simulator that knows of real time and of processes; it measures and shares out, and
decides nothing.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from outlive.errors import UsageInvalid

from .chance import FAULTS_S, draw
from .faults import Fault
from .shrink import shrink
from .timeline import written
from .world import World

CHUNK = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. violation: (checker, at_s, text), None if all held; told: its faults and timeline.

    faults: the numbers of those that were done, of `planned` that its plan has.
    """

    seed: int
    simulated_s: float
    violation: tuple[str, float, str] | None = None
    told: str = ""
    faults: tuple[int, ...] = ()
    planned: int = 0


def world(
    seed: int, hosts: int, faults_s: float = FAULTS_S, only: Sequence[int] | None = None
) -> tuple[World, dict[int, Fault], int]:
    """The world of a seed, before its first moment; its faults by number, and how many its plan has.

    only: the numbers of the faults to do, from 0; None: all. Raises UsageInvalid for a number that no fault of it has.
    """
    random = Random(seed)
    setup, plan = draw(random, hosts, faults_s)
    numbers = range(len(plan)) if only is None else sorted(set(only))
    beyond = [number for number in numbers if not 0 <= number < len(plan)]
    if beyond:
        raise UsageInvalid(f"Seed {seed} of {hosts} hosts has no fault {beyond[0]}; the last is {len(plan) - 1}.")
    faults = {number: plan[number] for number in numbers}
    return World(setup, faults.values(), random), faults, len(plan)


def run_seed(
    seed: int, hosts: int, faults_s: float = FAULTS_S, only: Sequence[int] | None = None, *, tell: bool = False
) -> Outcome:
    """Run one seed to its end or its first violation, with all its faults or only those of these numbers.

    tell: have the timeline told also where nothing was broken.
    """
    there, faults, planned = world(seed, hosts, faults_s, only)
    result = there.run()
    wrong = result.violation
    if wrong is None:
        return Outcome(seed, result.simulated_s, told=written(result.timeline.entries) if tell else "")
    told = "\n".join(
        (
            f"seed {seed}, {hosts} hosts: {wrong.checker} at {wrong.at_s:.3f} s: {wrong.text}",
            f"{len(faults)} of its {planned} faults were planned:",
            *(f"  {number:3}  {fault}" for number, fault in faults.items()),
            "What happened, times in seconds, `<-` names the cause:",
            written(result.timeline.entries),
        )
    )
    violation = (wrong.checker, wrong.at_s, wrong.text)
    return Outcome(seed, result.simulated_s, violation, told, tuple(faults), planned)


def smallest(
    broken: Outcome, hosts: int, faults_s: float = FAULTS_S, tried: Callable[[int, int], None] = lambda *_: None
) -> Outcome:
    """The same seed with as few of its faults as break the same rule. tried: told how many were run, and are left."""
    assert broken.violation is not None
    (rule, _, _), best, runs = broken.violation, broken, 0

    def breaks(places: Sequence[int]) -> bool:
        nonlocal best, runs
        runs += 1
        found = run_seed(broken.seed, hosts, faults_s, [broken.faults[place] for place in places])
        same = found.violation is not None and found.violation[0] == rule
        if same:
            best = found
        tried(runs, len(best.faults))
        return same

    shrink(len(broken.faults), breaks)
    return best


def run_seeds(first: int, count: int, hosts: int, jobs: int, faults_s: float = FAULTS_S) -> Iterator[Outcome]:
    """Run `count` seeds from `first`, on `jobs` processes; outcomes come as they are ready."""
    run = partial(run_seed, hosts=hosts, faults_s=faults_s)
    seeds = range(first, first + count)
    if jobs == 1 or count == 1:
        yield from map(run, seeds)
        return
    # spawn: a forked process would share whatever threads and files the caller has.
    with multiprocessing.get_context("spawn").Pool(min(jobs, count), _ignore_interrupts) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=CHUNK)


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def processors() -> int:
    """How many processes are worth having."""
    return len(os.sched_getaffinity(0))


class Stopwatch:
    """Real seconds since it was made."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()

    def reads_s(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._began_at
