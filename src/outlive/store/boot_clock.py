"""The clock that leases on this machine are counted by.

The time since the kernel started, suspends included, is the same for every process and network namespace of
the machine; it comes with the id of that start, because the count begins anew with each. Nothing else reads
the time for leases.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class BootClock:
    """A time that only means something together with `boot_id`. `now_ns` may be called from any thread."""

    boot_id: str
    now_ns: Callable[[], int]


def kernel_boot_clock() -> BootClock:
    """The machine's own boot clock."""
    return BootClock(_BOOT_ID.read_text(encoding="ascii").strip(), boot_time_ns)


def boot_time_ns() -> int:
    """Nanoseconds since the kernel started, counting the time that the machine was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_time_s() -> float:
    """Seconds since the kernel started, counting the time that the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
