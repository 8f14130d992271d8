"""The tiny guest: Debian's cloud kernel, busybox and our counting server, in memory only, booted in seconds.

It is made of two parts that are kept apart: what comes from Debian packages stays as it was first downloaded, until
its folder is removed; the initial file system around it is made anew whenever our own part of it has changed. What
the guest does once it runs is in `guest/init`, `guest/start` and `native/guest/server.c`.
"""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlive.native import find_guest_program

from .archive import Entry, archive, device, file, folder, link
from .kept import guests_folder, kept
from .packages import Kernel, cloud_kernel

SERVER_PORT = 7000
READY = "outlive guest ready"
"""What the guest says on its console once its server listens."""

BASE = "console=ttyS0 quiet panic=0 no_timer_check"
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "virtio_console",
    "virtio_rng",
    "button",
    "evdev",
    "pvpanic_pci",
    "pvpanic_mmio",
)
_FILES = Path(__file__).parent / "tiny_files"


@dataclass(frozen=True, slots=True)
class TinyGuest:
    """What to boot directly. append: the kernel's command line, still without addresses."""

    kernel: Path
    initrd: Path
    append: str = BASE

    def append_for(self, *addresses: str) -> str:
        """The kernel's command line for a guest with these addresses, as in 10.77.0.150/24, one a network card."""
        return f"{self.append} outlive.ip={','.join(addresses)}" if addresses else self.append


def tiny(cache: Path | None = None, *, say: Callable[[str], None] = lambda line: None) -> TinyGuest:
    """Return the tiny guest, made first if it is not there yet (some 30 MB to download, half a minute).

    cache: the folder to keep it in; None: the project's own.
    say:   is told what takes time, one line each.
    Raises GuestNotMade (id `guest.not-made`) when packages cannot be had or this machine's kind is not theirs.
    """
    cache = cache or guests_folder()
    kernel = cloud_kernel(cache, MODULES, say)
    content = archive(_entries(kernel))
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:16]}"

    def make(scratch: Path) -> None:
        say("making the tiny guest's initial file system")
        (scratch / "initrd.gz").write_bytes(gzip.compress(content, 6, mtime=0))

    return TinyGuest(kernel.image, kept(cache, name, make, say) / "initrd.gz")


def _entries(kernel: Kernel) -> Sequence[Entry]:
    server = find_guest_program("outlive-guest-server")
    modules = [path.name for path in kernel.modules]
    return (
        *(folder(name) for name in ("bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "sbin", "sys", "tmp")),
        device("dev/console", 5, 1),
        file("bin/busybox", kernel.busybox.read_bytes(), 0o755),
        link("bin/sh", "busybox"),
        link("init", "bin/busybox"),
        file("bin/outlive-guest-server", server.read_bytes(), 0o755),
        file("etc/inittab", (_FILES / "inittab").read_bytes()),
        file("etc/start", (_FILES / "start").read_bytes(), 0o755),
        file("etc/modules", "".join(f"{name}\n" for name in modules).encode()),
        *(file(f"lib/modules/{path.name}", path.read_bytes()) for path in kernel.modules),
    )
