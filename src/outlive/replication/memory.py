"""Memory that C kernels work on, and lists of page runs: what has an address lives here.

A guest's RAM as this process maps it, buffers and shadows are all `Memory`. A mapping goes away only when nobody
holds a view of it any more, so that no view can ever point to nothing. Pages are 4096 bytes and are counted from
the beginning of the guest's RAM file.
"""

import ctypes
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from outlive.errors import Failed
from outlive.replication.library import KernelFailed, done, pages_library

PAGE_BYTES = 4096

# A page's number has 32 bits in packed frames: 16 TiB less a page.
MOST_PAGES = 2**32 - 1

_RUN = ctypes.c_uint32 * 2
_RUN_BYTES = ctypes.sizeof(_RUN)


class Memory:
    """One mapping: its address and size in bytes, and a `view` of its bytes.

    The view is read-only where the mapping is; reading a page that a guest writes at that moment may give a mix.
    """

    def __init__(self, address: int, size_bytes: int, *, writable: bool, fd: int = -1) -> None:
        """Take over a mapping made by `pages_map`; use `map_file` or `allocate` instead."""
        self.address = address
        self.size_bytes = size_bytes
        self.writable = writable
        self._fd = fd
        held = (ctypes.c_ubyte * size_bytes).from_address(address)
        unmap = weakref.finalize(held, _unmap, address, size_bytes, fd)
        # At exit the kernel unmaps; a thread may still be copying then.
        unmap.atexit = False
        view = memoryview(held).cast("B")
        self.view = view if writable else view.toreadonly()

    @classmethod
    def map_file(cls, path: Path, size_bytes: int, *, writable: bool) -> "Memory":
        """Map a guest's RAM file, shared; `path` may be /proc/PID/fd/N of a memfd.

        Raises KernelFailed where that cannot be, also when the file is shorter than `size_bytes`: a page
        beyond its end would end this process when touched.
        """
        _check_size(size_bytes)
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise KernelFailed("The guest's memory cannot be opened.", cause=str(error)) from error
        try:
            return cls(_map(fd, size_bytes, writable), size_bytes, writable=writable, fd=fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def allocate(cls, size_bytes: int) -> "Memory":
        """Reserve zeroed private memory, rounded up to pages; it costs RAM only where it was written."""
        rounded = max(1, -(-size_bytes // PAGE_BYTES)) * PAGE_BYTES
        _check_size(rounded)
        return cls(_map(-1, rounded, writable=True), rounded, writable=True)

    @property
    def pages(self) -> int:
        """How many pages of 4096 bytes it has."""
        return self.size_bytes // PAGE_BYTES

    @property
    def fd(self) -> int:
        """The file behind it, -1 for private memory; it belongs to this object."""
        return self._fd

    def give_back(self, keep_bytes: int = 0) -> None:
        """Return to the system what private memory holds beyond `keep_bytes`; it reads as zeros from then on."""
        assert self._fd < 0, "a guest's memory is not ours to empty"
        done(pages_library().pages_give_back(self.address, self.size_bytes, keep_bytes), "give memory back")


class Runs:
    """Runs of pages (first page, count), growing, that do not touch or overlap: what a scan found.

    Its room is fixed when made; `for_pages` makes one that any scan of such a RAM fits in. Not for two threads.
    """

    def __init__(self, capacity: int) -> None:
        """Make room for `capacity` runs."""
        assert capacity > 0
        self.capacity = capacity
        self.memory = Memory.allocate(capacity * _RUN_BYTES)
        self.count = 0
        self.pages = 0

    @classmethod
    def for_pages(cls, ram_pages: int) -> "Runs":
        """Return one in which the runs of `ram_pages` pages fit, whichever they are."""
        return cls(ram_pages // 2 + 1)

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]) -> "Runs":
        """Return these runs; for tests, and for seeding all of RAM: `Runs.of([(0, memory.pages)])`."""
        listed = list(runs)
        made = cls(max(1, len(listed)))
        made.set(listed)
        return made

    def set(self, runs: Iterable[tuple[int, int]]) -> None:
        """Hold these runs in place of what was held."""
        listed = list(runs)
        assert len(listed) <= self.capacity
        ends = [0, *(first + count for first, count in listed)]
        assert all(count > 0 and first >= end for (first, count), end in zip(listed, ends, strict=False))
        flat = [number for run in listed for number in run]
        self.memory.view.cast("I")[: len(flat)] = array("I", flat)
        self.count, self.pages = len(listed), sum(count for _, count in listed)

    def clear(self) -> None:
        """Hold nothing."""
        self.count = self.pages = 0

    def add(self, other: "Runs") -> None:
        """Take in another's runs: for pages that were scanned but did not get across."""
        self.set(_union(sorted([*self, *other])))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Go through (first page, count)."""
        numbers = self.memory.view.cast("I")
        for index in range(self.count):
            yield numbers[2 * index], numbers[2 * index + 1]

    def __len__(self) -> int:
        """How many runs it holds; `pages` is how many pages."""
        return self.count


def nonzero(source: Memory, runs: Runs, into: Runs) -> Runs:
    """Leave out the pages that hold only zeros: for the first round of seeding a standby whose RAM is all zeros.

    Holes of a RAM file are passed over without being read, since reading one would allocate it.
    source: the guest's RAM. Returns `into`. Raises KernelFailed when `into` is too small.
    """
    pages = ctypes.c_uint64()
    found = pages_library().pages_nonzero(
        source.address, source.pages, source.fd, runs.memory.address, runs.count,
        into.memory.address, into.capacity, ctypes.byref(pages),
    )  # fmt: skip
    into.count, into.pages = done(found, "look for pages that are not zero"), pages.value
    return into


def _union(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, count in runs:
        if joined and first <= joined[-1][0] + joined[-1][1]:
            before, length = joined[-1]
            joined[-1] = (before, max(length, first + count - before))
        else:
            joined.append((first, count))
    return joined


def _check_size(size_bytes: int) -> None:
    if size_bytes <= 0 or size_bytes % PAGE_BYTES or size_bytes // PAGE_BYTES > MOST_PAGES:
        raise Failed(f"Memory of {size_bytes} bytes cannot be mapped.", cause="it is not whole pages below 16 TiB")


def _map(fd: int, size_bytes: int, writable: bool) -> int:
    address = ctypes.c_void_p()
    done(pages_library().pages_map(fd, size_bytes, int(writable), ctypes.byref(address)), "map memory")
    assert address.value
    return address.value


def _unmap(address: int, size_bytes: int, fd: int) -> None:
    pages_library().pages_unmap(address, size_bytes, int(fd < 0))
    if fd >= 0:
        os.close(fd)
