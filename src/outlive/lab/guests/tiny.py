"""The tiny guest: a kernel, busybox and our counting server, in memory only, booted in seconds.

What it does once it runs is in `initial/init` and native/guest/server.c.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .initial import APPEND, initial, with_addresses
from .kept import guests_folder

SERVER_PORT = 7000
READY = "outlive guest ready"
"""What the guest says on its console once its server listens."""


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """What to boot directly. append: the kernel's command line, still without addresses."""

    kernel: Path
    initrd: Path
    append: str = APPEND

    def append_for(self, *addresses: str) -> str:
        """The kernel's command line for a guest with these addresses, as in 10.77.0.150/24, one a network card."""
        return with_addresses(self.append, addresses)


def tiny(cache: Path | None = None, *, say: Callable[[str], None] = lambda line: None) -> TinyGuest:
    """Return the tiny guest, made first if it is not there yet (some 30 MB to download).

    cache: the folder to keep it in; None: the project's own.
    say:   is told what takes time, one line each.
    Raises GuestNotMade (id `guest.not-made`) when packages cannot be had or this machine's kind is not theirs.
    """
    boot = initial(cache or guests_folder(), say)
    return TinyGuest(boot.kernel, boot.initrd)
