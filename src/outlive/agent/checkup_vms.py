"""Checks of what virtual machines need of a host: the emulator, its acceleration and user, tracked memory, room for it.

None of them keeps a host from running services, so what is missing is a warning.
"""

import os
import re
import shutil
from pathlib import Path

from structlog.testing import capture_logs

from outlive.config.agent_file import AgentConfig
from outlive.errors import OutliveError
from outlive.runtime.accounts import UserUnknown, account
from outlive.runtime.vm import host
from outlive.runtime.vm.host import Acceleration

from .finding import Finding, ok, warning

AGE_OF_TRACKING = (6, 7)
SMALL_BYTES = 1 << 30
MIB = 1 << 20


async def emulator() -> Finding:
    """Whether there is a QEMU, and whether the processor helps it."""
    try:
        with capture_logs():  # what it has to say is the finding
            facts = await host.find()
    except OutliveError as error:
        return warning("vm.emulator", f"virtual machines cannot run here: {error.cause or error}", error.remedy)
    if facts.acceleration is Acceleration.TCG:
        return warning(
            "vm.emulator",
            f"QEMU {facts.qemu_version} without KVM: guests run many times slower",
            "switch the processor's virtualization on in its firmware, and load kvm_intel or kvm_amd",
        )
    return ok("vm.emulator", f"QEMU {facts.qemu_version} with KVM")


def tools() -> Finding:
    """What disks are made with, and machines with UEFI are booted by."""
    if shutil.which("qemu-img") is None:
        return warning("vm.tools", "qemu-img is missing: no warm machine can run here", "apt-get install qemu-utils")
    return ok("vm.tools", "qemu-img is there")


async def user() -> Finding:
    """Whether emulators can run as a user of their own."""
    try:
        await account(host.USER)
    except (UserUnknown, OSError):
        return warning(
            "vm.user",
            f"there is no user {host.USER}: emulators run as root",
            f"make it: useradd --system --no-create-home --shell /usr/sbin/nologin {host.USER}",
        )
    return ok("vm.user", f"emulators run as {host.USER} where everything is open to it")


def tracking() -> Finding:
    """Whether the kernel tells which pages a guest wrote."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < AGE_OF_TRACKING:
        return warning(
            "vm.tracking",
            f"Linux {release} does not track a guest's pages: warm and hot machines compare all memory, which is slow",
            "use Linux 6.7 or later on hosts of warm and hot machines",
        )
    return ok("vm.tracking", "the kernel tells which pages a guest wrote")


def memory(config: AgentConfig) -> Finding:
    """Whether the memory of warm and hot machines has a place that is memory."""
    folder = config.ram_folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if _type_of(there) != "tmpfs":
        return warning(
            "vm.memory",
            f"{folder} is not in memory but on a disk",
            "set ram_folder to a folder in /dev/shm, or mount a tmpfs",
        )
    room = os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    if free < SMALL_BYTES:
        return warning(
            "vm.memory", f"{folder} has only {free // MIB} MiB left", "enlarge it: mount -o remount,size=90% /dev/shm"
        )
    return ok("vm.memory", f"{folder} has {free // MIB} MiB for warm and hot machines")


def _type_of(path: Path) -> str:
    """The kind of file system that a path is on."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4]
        if (str(path) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, rest.split()[0]
    return kind
