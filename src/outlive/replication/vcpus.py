"""How busy a guest is: the processor time of its virtual processors' threads, as the host's scheduler counts it.

A pause costs a guest that waits for work nothing, and one that computes all of it: epochs may come the denser the
less a guest has to do. What follows from it is `pace`'s. Where the kernel does not count, a guest counts as busy.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from outlive.replication.link import boot_s

_MOST_BYTES = 128


class Vcpus:
    """The threads of one emulator that run its guest; one thread of ours uses this."""

    def __init__(self, pid: int, threads: Sequence[int]) -> None:
        """pid: of the emulator. threads: the ids of its virtual processors' threads."""
        self._counters: list[int] = []
        self._used_s: list[float] = []
        self._began = 0.0
        with suppress(OSError):
            for thread in dict.fromkeys(threads):
                self._counters.append(os.open(f"/proc/{pid}/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC))
        self.begin()

    def begin(self) -> None:
        """The guest runs from now on."""
        self._began, self._used_s = boot_s(), self._read_s()

    def busy_share(self) -> float:
        """The part of the time since `begin` that its busiest processor computed, from 0 to 1."""
        spent_s = boot_s() - self._began
        used_s = self._read_s()
        if not used_s or len(used_s) != len(self._used_s) or spent_s <= 0:
            return 1.0
        most_s = max(after - before for before, after in zip(self._used_s, used_s, strict=True))
        return min(1.0, max(0.0, most_s / spent_s))

    def close(self) -> None:
        """Let go of the threads."""
        for counter in self._counters:
            os.close(counter)
        self._counters = []

    def _read_s(self) -> list[float]:
        try:
            # The first of three numbers (proc(5), schedstat): nanoseconds on a processor.
            return [int(os.pread(each, _MOST_BYTES, 0).split()[0]) / 1e9 for each in self._counters]
        except (OSError, ValueError, IndexError):
            return []
