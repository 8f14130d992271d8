"""Many seeds, on several processors: each seed is one world, and the same wherever and with whatever it is run.

This is the only file of the simulator that knows of real time and of processes; it measures and shares out, and
decides nothing.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from .chance import FAULTS_S, draw
from .faults import Fault
from .setup import Setup
from .timeline import written
from .world import Result, World

CHUNK = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. violation: (checker, at_s, text), None if all held; told: its faults and timeline."""

    seed: int
    simulated_s: float
    violation: tuple[str, float, str] | None = None
    told: str = ""


def world(seed: int, hosts: int, faults_s: float = FAULTS_S) -> tuple[World, Setup, tuple[Fault, ...]]:
    """The world of a seed, before its first moment."""
    random = Random(seed)
    setup, faults = draw(random, hosts, faults_s)
    return World(setup, faults, random), setup, faults


def run_seed(seed: int, hosts: int, faults_s: float = FAULTS_S) -> Outcome:
    """Run one seed to its end or its first violation."""
    there, _, faults = world(seed, hosts, faults_s)
    result = there.run()
    if result.violation is None:
        return Outcome(seed, result.simulated_s)
    wrong = result.violation
    return Outcome(
        seed, result.simulated_s, (wrong.checker, wrong.at_s, wrong.text), _told(seed, hosts, faults, result)
    )


def _told(seed: int, hosts: int, faults: tuple[Fault, ...], result: Result) -> str:
    wrong = result.violation
    assert wrong is not None
    return "\n".join(
        (
            f"seed {seed}, {hosts} hosts: {wrong.checker} at {wrong.at_s:.3f} s: {wrong.text}",
            f"{len(faults)} faults were planned. What happened, times in seconds, `<-` names the cause:",
            written(result.timeline.entries),
        )
    )


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
