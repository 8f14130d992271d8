"""A tracker of a guest that writes what a test says: the same few pages between any two looks."""

from outlive.replication.memory import Memory, Runs
from outlive.replication.tracking import TrackingFailed


class Written:
    """pages: how many are written. fails_at: which scan, counted from 1, the kernel refuses."""

    is_cheap = True

    def __init__(self, memory: Memory) -> None:
        self.source = memory
        self.pages = 3
        self.fails_at = -1
        self.scans = 0

    def scan(self, runs: Runs, *, protect: bool = True) -> Runs:
        self.scans += 1
        if self.scans == self.fails_at:
            raise TrackingFailed("The kernel does not say.")
        told = Runs.of([(0, self.pages)])
        runs.count, runs.pages = told.count, told.pages
        runs.memory.view[: len(told.memory.view)] = told.memory.view
        return runs

    def close(self) -> None: ...
