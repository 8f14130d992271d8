"""The real guest: Debian with PostgreSQL, Redis and QEMU's guest agent, on a disk image of its own.

Made by mmdebstrap from where apt on this machine gets Debian from, configured by `debian_files/configure.sh`, and put
into an image without mounting anything. The image is a pattern: every machine gets a copy. Its kernel and initial
file system are those of the tiny guest. PostgreSQL's client programs are taken from the same packages, so that the
host needs none.
"""

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .initial import APPEND, initial, with_addresses
from .kept import GuestNotMade, guests_folder, kept
from .packages import debian_sources, run

SIZE_MIB = 1536
PACKAGES = ("systemd-sysv", "udev", "dbus", "iproute2", "procps", "postgresql", "redis-server", "qemu-guest-agent")
LEAST_MEMORY_MIB = 384
POSTGRES_PORT, REDIS_PORT = 5432, 6379
MAKING_S = 1800.0

_CONFIGURE = Path(__file__).parent / "debian_files" / "configure.sh"
_CHECKSUMS = "initdb_options = '--data-checksums'\n"
_LEAVE_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True, slots=True)
class DebianGuest:
    """What to boot directly, and with which disk.

    image:  a raw image with one ext4 file system, sparse, never to be written to: machines have copies of it.
    client: a folder with pgbench, psql and pg_amcheck, for `postgres`.
    """

    kernel: Path
    initrd: Path
    image: Path
    client: Path
    append: str = f"{APPEND} root=/dev/vda net.ifnames=0"

    def append_for(self, *addresses: str) -> str:
        """The kernel's command line for a guest with these addresses, as in 10.77.0.150/24, one a network card."""
        return with_addresses(self.append, addresses)

    def copy_image(self, to: Path) -> None:
        """Copy the image for a machine of its own, sparse as it is."""
        run(["cp", "--sparse=always", "--reflink=auto", str(self.image), str(to)], to.parent)


def debian(cache: Path | None = None, *, say: Callable[[str], None] = lambda line: None) -> DebianGuest:
    """Return the real guest, made first if it is not there yet (some 100 MB to download, about a minute).

    cache: the folder to keep it in; None: the project's own.
    say:   is told what takes time, one line each.
    Raises GuestNotMade (id `guest.not-made`), also when this is not root or mmdebstrap is missing.
    """
    cache = cache or guests_folder()
    boot = initial(cache, say)
    recipe = _CONFIGURE.read_bytes() + repr((PACKAGES, SIZE_MIB, _LEAVE_OUT)).encode()
    place = kept(cache, f"debian-{hashlib.sha256(recipe).hexdigest()[:16]}", lambda scratch: _make(scratch, say), say)
    return DebianGuest(boot.kernel, boot.initrd, place / "disk.raw", place / "client")


def _make(scratch: Path, say: Callable[[str], None]) -> None:
    for program, package in (("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")):
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            raise GuestNotMade(
                f"A Debian guest is made with {program}, which is missing.", remedy=f"apt-get install {package}"
            )
    if os.geteuid() != 0:
        raise GuestNotMade("Only root can make a Debian guest.", remedy="run it with sudo")
    root, client, work = scratch / "root", scratch / "client", scratch / "work"
    work.mkdir()
    suite, sources = debian_sources(work, say)
    checksums = work / "createcluster.conf"
    checksums.write_text(_CHECKSUMS)
    say(f"making Debian {suite} with PostgreSQL and Redis (some 100 MB to download)")
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            f"--include={','.join(PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEAVE_OUT),
            '--essential-hook=mkdir -p "$1/etc/postgresql-common"',
            f"--essential-hook=copy-in {shlex.quote(str(checksums))} /etc/postgresql-common",
            f'--customize-hook=sh {shlex.quote(str(_CONFIGURE))} "$1" {shlex.quote(str(client))}',
            suite,
            str(root),
            *sources,
        ],
        work,
        timeout_s=MAKING_S,
    )
    say("putting it into a disk image")
    image = scratch / "disk.raw"
    features = ["-O", "^resize_inode", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-m", "0", "-J", "size=32"]
    run(["mke2fs", "-q", "-t", "ext4", "-L", "guest", *features, "-d", str(root), str(image), f"{SIZE_MIB}M"], work)
    shutil.rmtree(root)
    shutil.rmtree(work)
