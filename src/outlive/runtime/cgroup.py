"""Where modules run: a tree of cgroups in which nothing of a workload can hide, and limits on what it may use.

    <root>/<workload>/_runner     the runners and the run lock: what must die with the workload
    <root>/<workload>/<module>    a module and all that it starts

The tree is in the unified hierarchy (cgroup2), wherever that is mounted. Limits are held by its controllers where it
has them, else by the older hierarchies beside it, else not at all, and then it is said why. Every call is a few
small writes to the kernel; nothing here waits but what is `async`.
"""

import asyncio
import contextlib
import errno
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outlive.cluster.workload import Limits
from outlive.errors import Failed

OWN_MOUNT = Path("/run/outlive/cgroup")
RUNNER = "_runner"
"""No module can have this name, since an underscore is not allowed in one. The guard knows it: native/fence.h."""

CPU_PERIOD_US = 100_000
_MIB = 1024 * 1024
_POLL_S = (0.001, 0.002, 0.005, 0.01, 0.02)
_MOUNT_WITHIN_S = 5.0


class CgroupFailed(Failed):
    """A cgroup could not be made, changed or removed."""

    id = "cgroup.failed"


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the kernel's hierarchies are. legacy: the mount point of each older controller by its name."""

    unified: Path | None
    legacy: Mapping[str, Path] = field(default_factory=dict)


def parse_mountinfo(text: str) -> Mounts:
    """Read the form of /proc/self/mountinfo. Of several unified mounts, the shortest path counts."""
    unified: list[Path] = []
    legacy: dict[str, Path] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if kind[0] == "cgroup2":
            unified.append(point)
        elif kind[0] == "cgroup":
            legacy |= {option: point for option in kind[2].split(",") if option in ("cpu", "memory", "pids")}
    return Mounts(min(unified, key=lambda path: len(path.parts), default=None), legacy)


def find_or_mount(own: Path = OWN_MOUNT) -> Mounts:
    """Return where cgroups are, mounting the unified hierarchy at `own` when it is nowhere (needs root).

    Raises CgroupFailed where the kernel has none, or does not let us.
    """
    found = parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    if found.unified is not None:
        return found
    try:
        own.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "cgroup2", "outlive", str(own)],
            check=True, capture_output=True, text=True, timeout=_MOUNT_WITHIN_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise CgroupFailed(
            "The unified cgroup hierarchy is not mounted, and could not be.",
            cause=str(getattr(error, "stderr", "") or error).strip(),
            remedy="mount it (mount -t cgroup2 none /sys/fs/cgroup), on a kernel of 5.14 or later, as root",
        ) from error
    return Mounts(own, found.legacy)


def kill(folder: Path) -> None:
    """Send SIGKILL to all in and below a cgroup, at once; death follows on its own. One that is gone is fine.

    On kernels before 5.14 to one after another, so that what is just being started may be missed.
    """
    try:
        _write(folder / "cgroup.kill", "1")
    except FileNotFoundError:
        for below in _bottom_up(folder):
            _kill_listed(below)


def freeze(folder: Path) -> None:
    """Stop all in and below a cgroup; it takes a moment until `frozen`."""
    _write(folder / "cgroup.freeze", "1")


def thaw(folder: Path) -> None:
    """Let all in and below a cgroup go on."""
    _write(folder / "cgroup.freeze", "0")


def frozen(folder: Path) -> bool:
    """Whether everything in and below it has stopped."""
    return _event(folder, "frozen")


def populated(folder: Path) -> bool:
    """Whether anything lives in or below it."""
    return _event(folder, "populated")


async def wait_empty(folder: Path, timeout_s: float) -> bool:
    """Return whether nothing lives in it any more, as soon as that is so and at the latest after timeout_s."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    turn = 0
    while populated(folder):
        if loop.time() >= until:
            return False
        await asyncio.sleep(_POLL_S[min(turn, len(_POLL_S) - 1)])
        turn += 1
    return True


@dataclass(frozen=True, slots=True)
class Tree:
    """The cgroups of one host's workloads.

    root:   a folder of the unified hierarchy, ours alone; hosts of a lab have one each.
    mounts: as `find_or_mount` returned it.
    """

    root: Path
    mounts: Mounts

    def workload(self, workload: str) -> Path:
        """The cgroup of everything of a workload: what the guard kills."""
        return self.root / workload

    def runner(self, workload: str) -> Path:
        """Where the workload's runners and its run lock are."""
        return self.root / workload / RUNNER

    def module(self, workload: str, module: str) -> Path:
        """Where a module and all that it starts are."""
        return self.root / workload / module

    def make(self, workload: str, modules: Iterable[str]) -> None:
        """Make the workload's cgroups, as far as they are not there. Raises CgroupFailed."""
        for name in (RUNNER, *modules):
            _make(self.root / workload / name)

    def entrances(self, workload: str, module: str) -> tuple[Path, ...]:
        """The cgroups that a module has to enter: its own first, then those older ones that hold its limits."""
        older = (self._legacy(controller, workload, module) for controller in sorted(self.mounts.legacy))
        return (self.module(workload, module), *(path for path in older if path is not None and path.is_dir()))

    def limit(self, workload: str, module: str, limits: Limits) -> tuple[str, ...]:
        """Hold a module to its limits; return what cannot be held, each a sentence that says why.

        The module's cgroup is made before. Limits that are None are lifted where they had been set.
        """
        missing = []
        for controller, files in _settings(limits).items():
            try:
                self._hold(controller, files, workload, module)
            except OSError as error:
                if any(value is not None for _, value, _, _ in files):
                    missing.append(f"the limit on {_MEANT[controller]} is not held: {error.strerror or error}")
        return tuple(missing)

    async def remove(self, workload: str, timeout_s: float) -> None:
        """Remove all cgroups of a workload in which nothing lives. Raises CgroupFailed after timeout_s."""
        older = [place for name in self.mounts.legacy if (place := self._legacy(name, workload, None)) is not None]
        until = asyncio.get_running_loop().time() + timeout_s
        while not all(_removed(folder) for folder in (self.workload(workload), *older)):
            if asyncio.get_running_loop().time() >= until:
                raise CgroupFailed(
                    f"The cgroups of workload {workload} could not be removed.", cause="something still lives in them"
                )
            await asyncio.sleep(_POLL_S[-1])
        for place in older:
            _prune(place.parent, len(self.root.parts) - len((self.mounts.unified or self.root).parts))

    def _hold(self, controller: str, files: "tuple[_Setting, ...]", workload: str, module: str) -> None:
        """Set a controller's files where they are. Raises OSError when a limit can be held nowhere."""
        own = self.module(workload, module)
        older = self._legacy(controller, workload, module)
        if all(value is None for _, value, _, _ in files):
            for name, _, older_name, older_value in files:
                if (own / name).exists():
                    _write(own / name, "max")
                if older is not None and (older / older_name).exists():
                    _write(older / older_name, older_value)
            return
        try:
            if self.mounts.unified is None:
                raise OSError(errno.ENODEV, "there is no unified hierarchy")
            _enable(own.parent, controller, self.mounts.unified)
            for name, value, _, _ in files:
                _write(own / name, "max" if value is None else value)
        except OSError:
            if older is None:
                raise
            older.mkdir(parents=True, exist_ok=True)
            for _, _, name, value in files:
                _write(older / name, value)

    def _legacy(self, controller: str, workload: str, module: str | None) -> Path | None:
        """The place beside the unified tree where an older controller holds limits, below our own place there.

        Below our own, so that nothing of ours leaves the limits that we ourselves are held to.
        """
        mount = self.mounts.legacy.get(controller)
        if mount is None or self.mounts.unified is None or not self.root.is_relative_to(self.mounts.unified):
            return None
        ours = mount / _own_places().get(controller, "/").lstrip("/")
        folder = ours / self.root.relative_to(self.mounts.unified) / workload
        return folder if module is None else folder / module


_Setting = tuple[str, str | None, str, str]
"""File and value in the unified hierarchy (None: no limit), then in the older one."""

_MEANT = {"cpu": "processors", "memory": "memory", "pids": "processes"}


def _settings(limits: Limits) -> dict[str, tuple[_Setting, ...]]:
    quota_us = None if limits.cpus is None else max(1000, round(limits.cpus * CPU_PERIOD_US))
    bytes_ = None if limits.memory_mib is None else str(limits.memory_mib * _MIB)
    processes = None if limits.processes is None else str(limits.processes)
    return {
        "cpu": (
            (
                "cpu.max",
                None if quota_us is None else f"{quota_us} {CPU_PERIOD_US}",
                "cpu.cfs_quota_us",
                str(quota_us or -1),
            ),
        ),
        "memory": (("memory.max", bytes_, "memory.limit_in_bytes", bytes_ or "-1"),),
        "pids": (("pids.max", processes, "pids.max", processes or "max"),),
    }


def _own_places() -> dict[str, str]:
    """Our own place in each older hierarchy, by controller."""
    places: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        places |= dict.fromkeys(controllers.split(","), path)
    return places


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CgroupFailed(f"The cgroup {folder} could not be made.", cause=error.strerror or "") from error


def _enable(folder: Path, controller: str, top: Path) -> None:
    """Let the children of `folder` have a controller, which all that is above must let it have first."""
    if controller in (folder / "cgroup.subtree_control").read_text(encoding="ascii").split():
        return
    if controller not in (folder / "cgroup.controllers").read_text(encoding="ascii").split():
        if folder == top or top not in folder.parents:
            raise OSError(errno.ENODEV, f"the kernel has no {controller} controller for it")
        _enable(folder.parent, controller, top)
    _write(folder / "cgroup.subtree_control", f"+{controller}")


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)  # never creates: a file that is not there is an error
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _event(folder: Path, name: str) -> bool:
    try:
        lines = (folder / "cgroup.events").read_text(encoding="ascii").splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return False  # nothing lives in a cgroup that does not exist
        raise
    return f"{name} 1" in lines


def _bottom_up(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for below in folder.iterdir():
            if below.is_dir() and not below.is_symlink():
                yield from _bottom_up(below)
    yield folder


def _kill_listed(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split():
            if pid != "0":  # of another pid namespace, and to os.kill ourselves
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def _removed(folder: Path) -> bool:
    for below in _bottom_up(folder):
        try:
            below.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise CgroupFailed(f"The cgroup {below} could not be removed.", cause=error.strerror or "") from error
    return True


def _prune(folder: Path, levels: int) -> None:
    """Remove a folder and what is above it, up to so many levels, as far as they are empty."""
    with contextlib.suppress(OSError):
        for empty in (folder, *folder.parents)[:levels]:
            empty.rmdir()
