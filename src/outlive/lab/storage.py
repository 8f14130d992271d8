"""The lab's storage server, as far as locks go: it drops those of a host that it has not heard from for a while.

A machine that stands still cannot renew its locks with an NFS server or a cluster file system, and loses them; in a
lab the hosts share one kernel, which would keep a frozen process's lock for ever. So this small process, started with
the lab and ended with it, kills the lock holders of hosts that have been frozen for longer than a lock's lease.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import hosts
from .plan import LabPlan, load

LOCK_LEASE_S = 3.0
LOOK_S = 0.25
HOLDER = b"outlive-runlock"


def start(lab: LabPlan) -> None:
    """Start the server in a group of its own within the lab's."""
    folder = hosts.group(lab) / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    line = f'echo $$ > {folder / "cgroup.procs"} && exec setsid --fork "$@"'
    subprocess.run(
        ["/bin/sh", "-c", line, "sh", sys.executable, "-m", "outlive.lab.storage", lab.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        check=True,
    )


def is_frozen(lab: LabPlan, host: str) -> bool:
    """Whether the host stands still, all of it."""
    try:
        return all(
            "frozen 1" in (hosts.group(lab, host) / part / "cgroup.events").read_text()
            for part in (hosts.AGENT, hosts.GUARD, hosts.WORKLOADS)
        )
    except OSError:
        return False


def drop_locks(lab: LabPlan, host: str) -> None:
    """End the processes that hold the host's run locks; the kernel frees the locks with them."""
    for pid in hosts.pids(lab, host, hosts.WORKLOADS):
        with contextlib.suppress(OSError):
            if HOLDER in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


def serve(lab: LabPlan) -> None:
    """Watch the hosts until the lab ends."""
    heard_at: dict[str, float] = {}
    while True:
        now = time.monotonic()
        for host in lab.hosts:
            if not is_frozen(lab, host.name):
                heard_at[host.name] = now
            elif now - heard_at.get(host.name, now) > LOCK_LEASE_S:
                drop_locks(lab, host.name)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    serve(load(sys.argv[1]))
