"""Checks of the machine itself: what its kernel, programs and rights allow. They hold before anything is installed.

Where something can be tried, it is tried, in a control group, namespace or folder of its own that is gone afterwards;
nothing else of the machine is changed.
"""

import ctypes
import errno
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from outlive import __version__, native, spawn
from outlive.fence.guard import Guard, Hello, Listener
from outlive.network.address import VirtualAddress
from outlive.network.held import ADDRESS_TAG
from outlive.network.kernel_addresses import KernelAddresses
from outlive.runtime import cgroup

from .finding import Finding, failed, ok, warning

AGE_OF_CGROUP_FREEZE, AGE_OF_CGROUP_KILL, AGE_OF_ADDRESS_TAGS = (5, 2), (5, 14), (5, 18)
KILLED_WITHIN_S = 5.0
RUN_S = 5.0
CLONE_NEWNET = 0x40000000
STEP_S = 0.05


def root() -> Finding:
    """Root's rights."""
    if os.geteuid() == 0:
        return ok("root", "run as root")
    return failed("root", f"run as user {os.geteuid()}; most checks need root too", "run it with sudo")


def kernel() -> Finding:
    """What its version promises; what is essential is also tried by the other checks."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < AGE_OF_CGROUP_FREEZE:
        return failed("kernel", f"Linux {release}, too old", "use Linux 5.14 or later; Debian 12 has 6.1")
    if version < AGE_OF_CGROUP_KILL:
        return warning("kernel", f"Linux {release}: without cgroup.kill, killing is slower", "use 5.14 or later")
    if version < AGE_OF_ADDRESS_TAGS:
        return warning("kernel", f"Linux {release}: addresses cannot be tagged as ours", "use 5.18 or later")
    return ok("kernel", f"Linux {release}")


def boot_clock() -> Finding:
    """The clock that every deadline is counted on."""
    resolution_s = time.clock_getres(time.CLOCK_BOOTTIME)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    time.sleep(0.01)
    passed_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before) / 1e9
    if passed_s <= 0 or resolution_s > 0.01:
        return failed("boot-clock", f"it went on by {passed_s:g} s in 10 ms", "use a kernel with a working boot clock")
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    suspended = f", {slept_s:.0f} s of them suspended" if slept_s >= 1 else ""
    up_h = time.clock_gettime(time.CLOCK_BOOTTIME) / 3600
    return ok("boot-clock", f"counts; {up_h:.1f} h since boot {spawn.boot_id()[:8]}{suspended}")


def clock_jumps(wall_ahead_before_s: float) -> Finding:
    """Whether the wall clock was stepped while the other checks ran.

    wall_ahead_before_s: what `wall_ahead_s` said when they began.
    """
    jumped_s = wall_ahead_s() - wall_ahead_before_s
    if abs(jumped_s) < STEP_S:
        return ok("clock-jumps", "the wall clock ran with the boot clock during these checks")
    return warning(
        "clock-jumps",
        f"the wall clock was set by {jumped_s:+.3f} s during these checks; no decision uses it, "
        "but times in `outlive events` will not fit each other",
        "let one service keep the time (chrony or systemd-timesyncd), slewing rather than stepping",
    )


def wall_ahead_s() -> float:
    """How far the wall clock is ahead of the boot clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def cgroups() -> Finding:
    """Control groups of version 2: one is made, a process is put in and killed."""
    mounts = cgroup.parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    if mounts.unified is None:
        known = "cgroup2" in Path("/proc/filesystems").read_text(encoding="ascii").split()
        if known:
            return ok("cgroup", f"version 2 is not mounted; the agent mounts it at {cgroup.OWN_MOUNT}")
        return failed("cgroup", "this kernel has no control groups of version 2", "use a kernel with CONFIG_CGROUPS")
    folder = mounts.unified / f"outlive-doctor-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        return failed("cgroup", f"none can be made in {mounts.unified}: {error.strerror}", _writable(mounts.unified))
    try:
        took_s = _killed_in(folder)
    finally:
        folder.rmdir()
    if took_s is None:
        return failed("cgroup", f"a process in {folder} could not be killed by cgroup.kill", "use Linux 5.14 or later")
    return ok("cgroup", f"version 2 at {mounts.unified}; a process in one was killed in {took_s * 1000:.0f} ms")


def _writable(mount: Path) -> str:
    return f"run it as root, outside of a container or with {mount} writable inside"


def _killed_in(folder: Path) -> float | None:
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, cwd="/") as process:
        try:
            (folder / "cgroup.procs").write_text(str(process.pid))
            before = time.monotonic()
            cgroup.kill(folder)
            process.wait(KILLED_WITHIN_S)
            return time.monotonic() - before
        except (OSError, subprocess.TimeoutExpired):
            return None
        finally:
            process.kill()


def controllers() -> Finding:
    """Whether limits of workloads can be held."""
    mounts = cgroup.parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    offered: set[str] = set()
    if mounts.unified is not None:
        offered = set((mounts.unified / "cgroup.controllers").read_text(encoding="ascii").split())
    wanted = ("cpu", "memory", "pids")
    missing = [name for name in wanted if name not in offered and name not in mounts.legacy]
    older = [name for name in wanted if name not in offered and name in mounts.legacy]
    if missing:
        return warning(
            "controllers",
            f"no controller for {', '.join(missing)}: such limits of a workload are not held",
            "let the kernel have them (Debian: remove cgroup_disable=… from the kernel's command line)",
        )
    if older:
        return ok("controllers", f"{', '.join(wanted)}; {', '.join(older)} by hierarchies of version 1")
    return ok("controllers", ", ".join(wanted))


def virtual_ips() -> list[Finding]:
    """An address with our tag and a lifetime, and packet sockets, tried in a network namespace of its own."""
    found: list[Finding] = []
    thread = threading.Thread(target=_in_namespace, args=(found,))
    thread.start()
    thread.join()
    return found


def _in_namespace(found: list[Finding]) -> None:
    """Unsharing concerns the calling thread alone, and ends with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        found.append(warning("network-namespaces", f"none can be made: {why}", "only the lab and the demo need them"))
        found.append(warning("virtual-ip", "could not be tried without a network namespace", "run it as root"))
        return
    has_ip = shutil.which("ip") is not None
    found.append(
        ok("network-namespaces", "can be made; `ip` is there")
        if has_ip
        else warning("network-namespaces", "the program `ip` is missing, which the lab needs", "install iproute2")
    )
    try:
        found.append(_address_tried())
    except Exception as error:
        found.append(failed("virtual-ip", str(error), "run it as root (CAP_NET_ADMIN and CAP_NET_RAW)"))


def _address_tried() -> Finding:
    kernel_addresses = KernelAddresses()
    try:
        kernel_addresses.add(VirtualAddress(ip_address("192.0.2.1"), 32, "lo"), 60, ADDRESS_TAG)
        [there] = [each for each in kernel_addresses.present() if str(each.ip) == "192.0.2.1"]
    finally:
        kernel_addresses.close()
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    if there.left_s is None:
        return failed("virtual-ip", "the kernel keeps no lifetime of an address", "use Linux 5.14 or later")
    if there.tag != ADDRESS_TAG:
        return warning(
            "virtual-ip", "works; the kernel keeps no tags, so a list of ours is kept in the run folder", "use 5.18"
        )
    return ok("virtual-ip", "can be added with a tag and a lifetime, and announced")


async def guard() -> Finding:
    """A guard of its own, started for a moment: what the kernel lets it have."""
    with tempfile.TemporaryDirectory(prefix="outlive-doctor-") as folder:
        tried = Guard(Path(folder) / "guard.sock", Path(folder) / "log", Listener(_ignore, _ignore, lambda: None))
        try:
            hello: Hello = await tried.start()
            await tried.quit()
        finally:
            tried.close()
    if lacking := hello.lacking():
        return warning(
            "guard",
            f"starts, but {' and '.join(lacking)}",
            "run it as root, and not in a container that takes CAP_IPC_LOCK, CAP_SYS_NICE or CAP_SYS_RESOURCE away",
        )
    return ok("guard", f"starts; locked in memory, real-time priority {hello.priority.partition(':')[2]}")


def _ignore(news: object) -> None:
    pass


def programs() -> Finding:
    """Our native programs, each run once."""
    found = {name: native.find(name) for name in ("outlive-guard", "outlive-runner", "outlive-runlock")}
    for name, path in found.items():
        try:
            done = subprocess.run([path, "--help"], capture_output=True, timeout=RUN_S, check=False)
        except OSError as error:
            wrong = "it was built for another machine" if error.errno == errno.ENOEXEC else error.strerror
            return failed("programs", f"{path} does not run: {wrong}", "build it again, or install Outlive again")
        if done.returncode not in (0, 2):
            return failed("programs", f"{name} ended with {done.returncode}", "build it again: ./outlive --version")
    folders = sorted({str(path.parent) for path in found.values()})
    python = ".".join(str(number) for number in sys.version_info[:3])
    about = f"Outlive {__version__}, Python {python}, SQLite {sqlite3.sqlite_version}"
    return ok("programs", f"{about}; guard, runner and run lock run, in {', '.join(folders)}")


def watchdog() -> Finding:
    """A hardware watchdog is good to have, and not needed."""
    devices = sorted(path.name for path in Path("/dev").glob("watchdog[0-9]*"))
    if devices:
        return ok("watchdog", f"{', '.join(devices)} is there, for [fencing] watchdog in the agent's file")
    return ok("watchdog", "this machine has none; the guard does without")


def redis() -> Finding:
    """Only the demo needs it."""
    path = shutil.which("redis-server")
    if path is None:
        return warning("redis", "there is no redis-server, which the demo runs", "apt-get install redis-server")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=RUN_S, check=False)
    version = re.search(r"v=(\S+)", done.stdout)
    return ok("redis", f"redis-server {version[1] if version else '(version unknown)'} for the demo")


MACHINE: tuple[tuple[str, Callable[[], object]], ...] = (
    ("root", root),
    ("kernel", kernel),
    ("boot-clock", boot_clock),
    ("cgroup", cgroups),
    ("controllers", controllers),
    ("virtual-ip", virtual_ips),
    ("programs", programs),
    ("guard", guard),
    ("watchdog", watchdog),
    ("redis", redis),
)
"""Every check of the machine but `clock_jumps`, which comes last of all."""
