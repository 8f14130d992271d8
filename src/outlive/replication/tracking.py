"""Which pages a guest wrote since we last asked: by the kernel's own tracking, or by comparing.

`WriteTracker` asks the kernel about another process's mapping, where that process registered it for tracking
(`libpagewatch.so`, preloaded into QEMU, says where it is). `CompareTracker` keeps a second copy of all RAM and
compares: for kernels before 6.7. Both promise: a page written after a protecting scan began to look at it is told
by the next one; copying a page from `source` after the scan that told it never misses a write for good.
Tracking sees writes through that one mapping only; writes by others to the RAM file are missed.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outlive.errors import Failed
from outlive.replication.library import KernelFailed, done, pages_library
from outlive.replication.memory import PAGE_BYTES, Memory, Runs


@dataclass(frozen=True, slots=True)
class Region:
    """Where a process mapped its guest's RAM: an address in that process, and bytes."""

    start: int
    size_bytes: int


class TrackingFailed(Failed):
    """The kernel does not track this process's memory, or it ended."""

    id = "replication.tracking"


class Tracker(Protocol):
    """What trackers promise. is_cheap: a scan costs by the pages that were written, not by all that there are."""

    is_cheap: bool

    @property
    def source(self) -> Memory:
        """Where to copy the told pages from: RAM itself, or the comparer's copy."""

    def scan(self, runs: Runs, *, protect: bool = True) -> Runs:
        """Put into `runs`, and return, the pages written since the last protecting scan.

        protect: begin anew for those pages; False only looks. The first scan tells all that may have
        been written before. Raises TrackingFailed.
        """

    def close(self) -> None:
        """Let go of the process."""


class WriteTracker:
    """Tells written pages by the kernel's tracking of one mapping of a process (kernel 6.7 or newer)."""

    is_cheap = True

    def __init__(self, pid: int, region: Region, memory: Memory) -> None:
        """Open it; memory: this process's own mapping of the same RAM.

        Raises TrackingFailed where the process is gone or the mapping is not registered for tracking.
        """
        assert region.size_bytes == memory.size_bytes
        self._region = region
        self._memory = memory
        try:
            self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TrackingFailed(f"The memory of process {pid} cannot be watched.", cause=str(error)) from error
        try:
            self.scan(Runs.for_pages(memory.pages), protect=False)
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Memory:
        """The RAM itself."""
        return self._memory

    def scan(self, runs: Runs, *, protect: bool = True) -> Runs:
        """See Tracker. About 0.3 ms for a thousand pages."""
        pages = ctypes.c_uint64()
        found = pages_library().pages_scan(
            self._pagemap, self._region.start, self._memory.pages, int(protect),
            runs.memory.address, runs.capacity, ctypes.byref(pages),
        )  # fmt: skip
        return _told(runs, found, pages.value)

    def close(self) -> None:
        """Let go of the process."""
        if self._pagemap >= 0:
            os.close(self._pagemap)
            self._pagemap = -1


class CompareTracker:
    """Tells written pages by comparing all RAM with a copy; costs as much memory again, and 120 ms a GiB."""

    is_cheap = False

    def __init__(self, memory: Memory) -> None:
        """Begin with a copy of zeros: the first scan tells every page that is not zero."""
        self._memory = memory
        self._copy = Memory.allocate(memory.size_bytes)

    @property
    def source(self) -> Memory:
        """The copy: what was found is what is shipped, whatever the guest does meanwhile."""
        return self._copy

    def scan(self, runs: Runs, *, protect: bool = True) -> Runs:
        """See Tracker."""
        pages = ctypes.c_uint64()
        found = pages_library().pages_compare(
            self._memory.address, self._copy.address, self._memory.pages, self._memory.fd, int(protect),
            runs.memory.address, runs.capacity, ctypes.byref(pages),
        )  # fmt: skip
        return _told(runs, found, pages.value)

    def close(self) -> None:
        """Nothing to let go of; the copy goes with this object."""


def read_pagewatch(path: Path, size_bytes: int) -> Region | None:
    """Return where the preloaded library found the RAM of exactly this size, None while it did not yet.

    Raises TrackingFailed when it wrote that it could not register it.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise TrackingFailed("What the page watch wrote cannot be read.", cause=str(error)) from error
    for line in lines:
        if line.startswith("failed: "):
            raise TrackingFailed(
                "The guest's memory cannot be watched for writes.", cause=line.removeprefix("failed: ")
            )
        start, _, size = line.partition(" ")
        try:
            region = Region(int(start, 16), int(size, 16))
        except ValueError as error:
            raise TrackingFailed("What the page watch wrote cannot be understood.", cause=line[:100]) from error
        if region.size_bytes == size_bytes and region.start % PAGE_BYTES == 0:
            return region
    return None


def _told(runs: Runs, found: int, pages: int) -> Runs:
    try:
        runs.count, runs.pages = done(found, "tell which pages a guest wrote"), pages
    except KernelFailed as error:
        runs.clear()
        raise TrackingFailed(error.sentence, cause=error.cause) from error
    return runs
