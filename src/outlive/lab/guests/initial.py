"""What a guest boots: Debian's cloud kernel, and an initial file system of busybox, modules and our first program.

All guests have the same one. It is the whole of the tiny guest; the real one goes on from it to its disk. The part
from Debian packages stays as it was first downloaded, until its folder is removed; the file system around it is
made anew whenever our own part of it has changed.
"""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlive.native import find_guest_program

from .archive import Entry, archive, device, file, folder, link
from .kept import kept
from .packages import Kernel, cloud_kernel

APPEND = "console=ttyS0 quiet panic=0 no_timer_check"
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
_FILES = Path(__file__).parent / "initial"
_FOLDERS = ("bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp")


@dataclass(frozen=True, slots=True)
class Boot:
    """What to boot directly: two files."""

    kernel: Path
    initrd: Path


def initial(cache: Path, say: Callable[[str], None]) -> Boot:
    """Return what every guest boots, made first if it is not there yet. Raises GuestNotMade."""
    kernel = cloud_kernel(cache, MODULES, say)
    content = archive(_entries(kernel))
    name = f"initial-{hashlib.sha256(content).hexdigest()[:16]}"

    def make(scratch: Path) -> None:
        say("making the guests' initial file system")
        (scratch / "initrd.gz").write_bytes(gzip.compress(content, 6, mtime=0))

    return Boot(kernel.image, kept(cache, name, make, say) / "initrd.gz")


def with_addresses(append: str, addresses: Sequence[str]) -> str:
    """A kernel's command line that gives the guest's network cards, in their order, these addresses."""
    return f"{append} outlive.ip={','.join(addresses)}" if addresses else append


def _entries(kernel: Kernel) -> Sequence[Entry]:
    modules = [path.name for path in kernel.modules]
    return (
        *(folder(name) for name in _FOLDERS),
        device("dev/console", 5, 1),
        file("bin/busybox", kernel.busybox.read_bytes(), 0o755),
        link("bin/sh", "busybox"),
        file("init", (_FILES / "init").read_bytes(), 0o755),
        file("bin/outlive-guest-server", find_guest_program("outlive-guest-server").read_bytes(), 0o755),
        file("etc/inittab", (_FILES / "inittab").read_bytes()),
        file("etc/modules", "".join(f"{name}\n" for name in modules).encode()),
        *(file(f"lib/modules/{path.name}", path.read_bytes()) for path in kernel.modules),
    )
