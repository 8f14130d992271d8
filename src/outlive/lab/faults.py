"""Ways to break a lab's hosts beyond cutting links and power: full disks and slow datastores.

Each is what it says, done by the kernel: a file that takes all the room of the host's own file system, and a limit on
what the host's processes may write to the disk that holds the datastore.
"""

import os
from pathlib import Path

from outlive.errors import Failed

from .hosts import control_groups, group, pids
from .plan import LabPlan

FILLER = "filler"


def fill_disk(lab: LabPlan, name: str) -> int:
    """Fill the host's data folder to the last byte; returns how many bytes it took."""
    path = lab.host_folder(name) / "data" / FILLER
    taken = 0
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            block = b"\0" * size
            try:
                while True:
                    taken += file.write(block)
            except OSError:
                continue
    return taken


def free_disk(lab: LabPlan, name: str) -> None:
    """Take the filler away again."""
    (lab.host_folder(name) / "data" / FILLER).unlink(missing_ok=True)


def slow_datastore(lab: LabPlan, name: str, bytes_per_s: int | None) -> None:
    """Limit the host's writes to the datastore's disk; None lifts the limit; a few bytes a second is a hang.

    Raises Failed when this machine's kernel cannot limit it.
    """
    device = os.stat(lab.datastore).st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    old = Path("/sys/fs/cgroup/blkio")
    if (old / "blkio.throttle.write_bps_device").exists() or (old / "tasks").exists():
        folder = old / "outlive-lab" / lab.name / name
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "blkio.throttle.write_bps_device", f"{numbers} {bytes_per_s or 0}")
        for pid in pids(lab, name):
            _write(folder / "cgroup.procs", str(pid), tolerate=True)
        return
    folder = group(lab, name)
    for parent in reversed([folder.parent, *folder.parent.parents]):
        if parent.is_relative_to(control_groups()):
            _write(parent / "cgroup.subtree_control", "+io", tolerate=True)
    _write(folder / "io.max", f"{numbers} wbps={bytes_per_s or 'max'}")


def lift(lab: LabPlan) -> None:
    """Remove the groups that limits were set on, once their processes are gone."""
    root = Path("/sys/fs/cgroup/blkio/outlive-lab") / lab.name
    for folder, _, _ in os.walk(root, topdown=False):
        os.rmdir(folder)


def _write(path: Path, text: str, *, tolerate: bool = False) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        if not tolerate:
            raise Failed(
                "The datastore cannot be made slow on this machine.",
                cause=f"{path}: {error.strerror}",
                remedy="the kernel needs the io controller of control groups, and the datastore a disk",
            ) from error
