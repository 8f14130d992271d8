"""The running machine as its primary's manager sees it: stop, save, copy what was written, go on.

One thread owns an object of this. A cut is everything between `stop` and `cont`, and nothing else is in there: two
commands written at once, a scan, a copy, the ports' and the journal's cut. A guest that somebody else stopped stays
stopped. The invariant: a cut that was returned is one moment of the machine: memory, devices, disks and output.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from outlive.errors import Failed
from outlive.replication import device_state
from outlive.replication.comm_config import CommConfig
from outlive.replication.control import GUEST_ENDED
from outlive.replication.disk_journal import DiskJournal
from outlive.replication.disk_writes import DiskWrite
from outlive.replication.kernels import Staging
from outlive.replication.link import boot_s
from outlive.replication.memory import Memory, Runs
from outlive.replication.nbd import NbdServer
from outlive.replication.pace import Ahead
from outlive.replication.ports import Ports
from outlive.replication.qmp_line import QemuRefused, QemuSilent, QmpLine, command
from outlive.replication.tracking import CompareTracker, Tracker, TrackingFailed, WriteTracker, read_pagewatch
from outlive.replication.vcpus import Vcpus

_STARTING_S = 10.0
_WATCHED_WITHIN_S = 2.0
_MIRROR_READY_S = 60.0
_PREFIX = "device-prefix"
_NBD = "nbd.sock"
_MIRROR = "outlive-mirror-"
_MIRROR_ENDS = {"BLOCK_JOB_ERROR", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"}

_log = structlog.get_logger()


class MachineGone(Failed):
    """QEMU ended, or the guest ended itself."""

    id = "replication.machine_gone"


class StandbyLost(Failed):
    """The standby was lost while something was done for it; what follows is decided elsewhere."""

    id = "replication.standby_lost"


class MirrorBroken(Failed):
    """QEMU no longer tells what the guest writes to a disk: the standby's copy of it cannot be kept."""

    id = "replication.mirror_broken"


@dataclass(slots=True)
class Cut:
    """One moment of the machine.

    busy_share: see `Vcpus`, of the time before. pause_s: how long the guest stood by QEMU's own account; the other
    times are the manager's: until the guest stood, copying, waiting for the devices' state.
    """

    pages: list[Staging] = field(default_factory=list)
    page_count: int = 0
    writes: list[DiskWrite] = field(default_factory=list)
    state: bytes = b""
    busy_share: float = 1.0
    pause_s: float = 0.0
    stop_s: float = 0.0
    copy_s: float = 0.0
    save_s: float = 0.0


class Machine:
    """A running QEMU, its memory, its monitor and its disks' mirrors.

    _stands: we stopped the guest and have not let it go on yet.
    """

    def __init__(
        self,
        config: CommConfig,
        ports: Ports,
        grown: Callable[[], None],
        *,
        memory: Memory | None = None,
        qmp: QmpLine | None = None,
    ) -> None:
        """Connect, or take over what a standby had. grown: see DiskJournal. Raises QemuSilent, KernelFailed."""
        self.config = config
        self.ports = ports
        self._stands = False
        self._ahead = Ahead()
        self._vcpus: Vcpus | None = None
        self.qmp = qmp or QmpLine(config.qmp)
        self.memory = memory or Memory.map_file(Path(config.ram_path), config.ram_bytes, writable=False)
        self.runs = Runs.for_pages(self.memory.pages)
        self._tracker: Tracker | None = None
        self.journal = DiskJournal(config.disks, grown)
        self._nbd: NbdServer | None = None
        self._saved = Path(config.ram_path).with_name(f"{Path(config.ram_path).name}.devices")
        _make_writable(self._saved, qemu_owner(config.qemu_pid))
        self._save = command("query-status") + device_state.STOP + device_state.save_command(self._saved)

    @property
    def tracker(self) -> Tracker:
        """Opened when first needed: a guest that nobody follows is not tracked."""
        if self._tracker is None:
            self._tracker = self._open_tracker()
            processors = self.qmp.run("query-cpus-fast")
            self._vcpus = Vcpus(self.config.qemu_pid, [int(each["thread-id"]) for each in processors])
        return self._tracker

    def prefix(self) -> bytes:
        """What stands before this machine's device states; taken once in the life of its QEMU, while it runs."""
        kept = Path(self.config.state_dir) / f"{_PREFIX}.{self.config.qemu_pid}"
        with suppress(OSError):
            return kept.read_bytes()
        if self._nbd is None:
            self.unmirror()
        prefix = device_state.take_prefix(self.qmp, self._saved)
        for old in kept.parent.glob(f"{_PREFIX}.*"):
            old.unlink()
        kept.write_bytes(prefix)
        return prefix

    def mirror(self, wait: Callable[[], None]) -> None:
        """Have each disk's writes pass the journal from now on. wait: called while QEMU gets ready."""
        if not self.config.disks or self._nbd is not None:
            return
        self.unmirror()
        # Beside QEMU's own sockets, since the manager's folder is closed to QEMU's user.
        path = Path(self.config.qmp).with_name(_NBD)
        self._nbd = NbdServer(path, self.journal.exports(), qemu_owner(self.config.qemu_pid))
        for index, disk in enumerate(self.config.disks):
            server = {"type": "unix", "path": str(path)}
            self.qmp.run(
                "blockdev-add",
                {"driver": "nbd", "node-name": _mirror_node(index), "server": server, "export": disk.name},
            )
            self.qmp.run(
                "blockdev-mirror",
                {
                    "job-id": _mirror_job(index),
                    "device": disk.node,
                    "target": _mirror_node(index),
                    "sync": "none",
                    "copy-mode": "write-blocking",
                },
            )
        deadline = boot_s() + _MIRROR_READY_S
        while not self._mirrors_ready():
            if boot_s() > deadline:
                raise MachineGone("QEMU does not mirror the machine's disks.")
            wait()

    def unmirror(self) -> None:
        """Take away mirrors that broke, or that an earlier manager left; all blocks count as different then."""
        if self._nbd is not None:
            self._nbd.close()
            self._nbd = None
        self.journal.forget()
        for job in self.qmp.run("query-block-jobs"):
            if str(job["device"]).startswith(_MIRROR):
                with suppress(QemuRefused):
                    self.qmp.run("block-job-cancel", {"device": job["device"], "force": True})
        self.qmp.wait(lambda: not self._our_jobs(), within_s=_STARTING_S)
        for index in range(len(self.config.disks)):
            with suppress(QemuRefused):
                self.qmp.run("blockdev-del", {"node-name": _mirror_node(index)})
        self._look_for_the_end()

    def cut(
        self,
        epoch: int,
        staging: Callable[[list[Staging]], Staging],
        taken: Callable[[Cut], None],
        *,
        waited_for: bool,
        final: bool = False,
    ) -> Cut:
        """Stop the guest, take this moment, let it go on (unless final). Raises QemuSilent, MachineGone.

        staging: gives room for pages, and may take those that it is shown; may wait, and the guest with it. What it
                 raises as StandbyLost passes.
        taken:   gets the moment as soon as it is complete, while the guest is only just being let go.
        waited_for: somebody waits for what the guest said, so that nothing but the pause's length counts.
        """
        cut = Cut()
        in_no_hurry = not waited_for and self.tracker.is_cheap
        if (self._ahead.worthwhile or in_no_hurry) and not self._stands:
            # Most of what was written is copied while the guest still runs; what it writes again is copied again.
            with self._watching_its_end():
                self.copy_written(cut, staging)
        ahead = cut.page_count
        self.journal.draining(True)
        try:
            with self._watching_its_end():
                self._cut(cut, epoch, staging, taken, final=final)
            self._ahead.learn(ahead, cut.page_count - ahead)
            return cut
        except (StandbyLost, MirrorBroken):
            self.go_on()
            raise
        finally:
            self.journal.draining(False)

    def _cut(
        self,
        cut: Cut,
        epoch: int,
        staging: Callable[[list[Staging]], Staging],
        taken: Callable[[Cut], None],
        *,
        final: bool,
    ) -> None:
        cut.busy_share = self._vcpus.busy_share() if self._vcpus else 1.0
        self.qmp.settle()
        self.qmp.write(self._save, 3)
        was_running = bool(self.qmp.answer()["running"])
        # QEMU turns to `stop` only once it has said this.
        begun = time.perf_counter()
        self._stands = self._stands or was_running
        self.qmp.answer()
        cut.stop_s = time.perf_counter() - begun
        self._look_for_the_end()
        self.ports.cut(epoch)
        cut.writes = self.journal.cut(epoch)
        # Meanwhile QEMU saves the devices, which leaves memory alone: its own migrations too are done with memory then.
        self.copy_written(cut, staging)
        copied = time.perf_counter()
        cut.copy_s = copied - begun - cut.stop_s
        self.qmp.answer()
        cut.save_s = time.perf_counter() - copied
        go_on = self._stands and not final
        if go_on:
            self.qmp.write(device_state.CONTINUE, 1)
        cut.state = device_state.read_saved(self._saved)
        taken(cut)
        if go_on:
            self.qmp.answer()
            self._stands = False
        cut.pause_s = self._stood_s(time.perf_counter() - begun)
        if self._vcpus:
            self._vcpus.begin()

    def _stood_s(self, at_most_s: float) -> float:
        """How long the guest stood. at_most_s: what it took us; to hear of it takes us a while more."""
        told = self.qmp.told_at
        # QEMU reads a clock that an operator may set.
        return min(at_most_s, max(0.0, told.get("RESUME", 0.0) - told.get("STOP", 0.0)) or at_most_s)

    def copy_written(self, cut: Cut, staging: Callable[[list[Staging]], Staging]) -> None:
        """Scan, and copy every page written since the last scan."""
        runs = self.tracker.scan(self.runs)
        cut.page_count += runs.pages
        copied = 0
        while copied < runs.pages:
            room = staging(cut.pages)
            copied += room.copy_out(self.tracker.source, runs, copied)
            cut.pages.append(room)

    def go_on(self) -> None:
        """Let the guest run if we stopped it; one that somebody else stopped stays stopped."""
        if self._stands:
            self.qmp.run("cont")
            self._stands = False

    def brake(self, most_pages: int) -> None:
        """Stop the guest until the next cut if it wrote more than the standby can take soon."""
        if not self._stands and self.tracker.scan(self.runs, protect=False).pages > most_pages:
            self._stands = bool(self.qmp.run("query-status")["running"])
            self.qmp.run("stop")

    def check(self) -> None:
        """Raise MachineGone or QemuSilent when there is no machine any more."""
        with self._watching_its_end():
            self.qmp.run("query-status")
            self._look_for_the_end()

    @contextmanager
    def _watching_its_end(self) -> Iterator[None]:
        try:
            yield
        except QemuSilent as error:
            self.qmp.last_words()
            self._look_for_the_end()
            raise MachineGone("QEMU does not answer.", cause=f"qemu-gone: {error}") from error
        except TrackingFailed:
            self.check()  # the memory of a process that ended cannot be watched any more
            raise

    def _look_for_the_end(self) -> None:
        events = list(self.qmp.events)
        self.qmp.events.clear()
        if any(name == "SHUTDOWN" for name, _ in events):
            raise MachineGone("The guest ended.", cause=GUEST_ENDED)
        for name, data in events:
            if name in _MIRROR_ENDS and self._nbd is not None and str(data.get("device")).startswith(_MIRROR):
                raise MirrorBroken("A disk's writes pass us by.", cause=str(data.get("error", name)))

    def close(self) -> None:
        if self._nbd is not None:
            self._nbd.close()
        if self._tracker is not None:
            self._tracker.close()
        if self._vcpus is not None:
            self._vcpus.close()
        self.qmp.close()
        self.journal.close()
        self._saved.unlink(missing_ok=True)

    def _open_tracker(self) -> Tracker:
        region = None
        deadline = boot_s() + _WATCHED_WITHIN_S
        while region is None and self.config.pagewatch and boot_s() < deadline:
            region = read_pagewatch(Path(self.config.pagewatch), self.config.ram_bytes)
            if region is None:
                time.sleep(0.02)
        if region is None:
            _log.warning("tracking.by_comparing", because="nothing in QEMU watches its memory")
            return CompareTracker(self.memory)
        return WriteTracker(self.config.qemu_pid, region, self.memory)

    def _our_jobs(self) -> bool:
        return any(str(job["device"]).startswith(_MIRROR) for job in self.qmp.run("query-block-jobs"))

    def _mirrors_ready(self) -> bool:
        jobs = {job["device"]: job for job in self.qmp.run("query-block-jobs")}
        return all(jobs.get(_mirror_job(index), {}).get("ready") for index in range(len(self.config.disks)))


def _mirror_node(index: int) -> str:
    return f"{_MIRROR}node-{index}"


def _mirror_job(index: int) -> str:
    return f"{_MIRROR}{index}"


def qemu_owner(pid: int) -> tuple[int, int] | None:
    """The user and group that a process runs as; None when it is ours, or cannot be told."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        fields = {line.split(":")[0]: line.split()[1:] for line in text.splitlines() if ":" in line}
        owner = (int(fields["Uid"][1]), int(fields["Gid"][1]))
        return None if owner == (os.geteuid(), os.getegid()) else owner
    return None


def _make_writable(path: Path, owner: tuple[int, int] | None) -> None:
    """Make an empty file that QEMU may write, whatever it may do in the folder."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
    finally:
        os.close(descriptor)
