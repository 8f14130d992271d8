"""The short stop of a checkpoint: everything between `stop` and `cont`, and which pages are ours to save.

Nothing in here waits for the datastore but QEMU's own flush of the disks. The invariants: however a cut ends, the guest
runs again if it ran before, even when this process is killed while it stands (then the next one lets it go on, by a
mark that is kept in memory beside the guest's own); and a page that was told as written is remembered until `saved`.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlive.errors import Failed

from . import device_state
from .checkpoint_disks import Drive, snapshot_command
from .checkpoint_errors import CheckpointFailed
from .checkpoint_pages import PageSet, Run
from .kernels import Staging
from .memory import Memory, Runs, nonzero
from .qmp_line import QemuRefused, QemuSilent, QmpLine, command
from .tracking import Tracker

CUT_S = 30.0
_STANDING = ("paused", "postmigrate")


@dataclass(frozen=True, slots=True)
class Cut:
    """One moment of the machine. stream: its devices, loadable.  pages: the last ones, which `Cutter.data` holds."""

    stream: bytes
    pages: list[Run]
    pause_ms: float


class Cutter:
    """One running QEMU, its monitor and its memory. One thread at a time.

    connect: makes a monitor line to QEMU, again after one fell silent.
    memory:  QEMU's, as mapped here.  ram: the file behind it.
    scratch: a file in memory for the device state, which QEMU's user may write.
    """

    def __init__(
        self, connect: Callable[[], QmpLine], memory: Memory, tracker: Tracker, ram: Path, scratch: Path
    ) -> None:
        self._connect = connect
        self._memory = memory
        self._tracker = tracker
        self._scratch = scratch
        self._line: QmpLine | None = None
        self._runs = Runs.for_pages(memory.pages)
        self._staging = Staging(memory.pages)
        self._unsaved = PageSet(memory.pages)
        self._prefix = b""
        self._mark = scratch.with_name(f"{scratch.name}.standing")
        scratch.touch(mode=0o600)
        os.chown(scratch, ram.stat().st_uid, ram.stat().st_gid)

    @property
    def qmp(self) -> QmpLine:
        """The monitor line. A new one first lets a guest go on that was stopped by a cut which nobody could end."""
        return self._connected()

    def _connected(self) -> QmpLine:
        if self._line is None:
            self._line = self._connect()
            if self._mark.exists() and self._line.run("query-status")["status"] in _STANDING:
                self._line.run("cont")
            self._mark.unlink(missing_ok=True)
        return self._line

    def mend(self) -> None:
        """Let the guest go on if an earlier process of ours was killed while it stood. Raises QemuSilent."""
        if self._mark.exists():
            self.close()
            self._connected()

    def close(self) -> None:
        """Let go of QEMU's monitor; it is connected to again when it is needed."""
        if self._line is not None:
            self._line.close()
            self._line = None

    @property
    def tells_memory(self) -> bool:
        """Whether told pages may be copied from the guest's memory itself; else from a comparer's copy alone."""
        return self._tracker.source is self._memory

    def data(self) -> memoryview:
        """The pages that were copied aside last."""
        return self._staging.data

    def copy_aside(self, runs: Sequence[Run]) -> memoryview:
        """Copy pages that were told, and return them."""
        self._staging.copy_out(self._tracker.source, Runs.of(runs))
        return self._staging.data

    def everything(self) -> list[Run]:
        """All pages that are not zero. Those written while this looks are told by the next scan."""
        self.written()
        whole = Runs.of([(0, self._memory.pages)])
        return list(nonzero(self._memory, whole, Runs.for_pages(self._memory.pages)))

    def unsaved(self) -> list[Run]:
        """All pages that are in no whole checkpoint."""
        self.written()
        return self._unsaved.runs()

    def written(self) -> list[Run]:
        """The pages written since they were told last; from now on they are ours to save."""
        found = list(self._tracker.scan(self._runs))
        self._unsaved.add(found)
        return found

    def waiting_pages(self) -> int:
        """How many pages were written since they were told last."""
        return self._tracker.scan(self._runs, protect=False).pages

    def saved(self) -> None:
        """All that was told until the last cut is in a whole checkpoint."""
        self._unsaved.clear()
        self._staging.give_back()

    def take_prefix(self) -> float:
        """Take what stands before the device state in a migration stream; return how long that took, in ms.

        The guest stands for most of it. Raises DeviceStateUnusable, QemuSilent, QemuRefused.
        """
        qmp = self.qmp
        begun = time.monotonic()
        with self._marked():
            self._prefix = device_state.take_prefix(qmp, self._scratch)
        return (time.monotonic() - begun) * 1000

    def cut(self, drives: Sequence[Drive], nodes: Sequence[str]) -> Cut:
        """Stop the guest for as short as can be, and take what is left of its memory, its devices and its disks.

        nodes: the layers that the guest writes to from now on, one for each drive.
        Raises CheckpointFailed, QemuSilent, TrackingFailed.
        """
        commands = [command("query-status"), device_state.STOP]
        if drives:
            commands.append(snapshot_command(drives, nodes))
        commands.append(device_state.save_command(self._scratch))
        qmp = self.qmp
        with self._marked():
            refused, pause_ms = self._stand(qmp, commands)
        pages = list(self._runs)
        self._unsaved.add(pages)
        if refused:
            raise CheckpointFailed("QEMU could not be stopped for a checkpoint as it must.", cause=refused)
        stream = device_state.splice(self._prefix, device_state.read_saved(self._scratch))
        return Cut(stream, pages, pause_ms)

    def _stand(self, qmp: QmpLine, commands: Sequence[bytes]) -> tuple[str, float]:
        was_running = True
        refused = ""
        begun = time.monotonic()
        qmp.write(b"".join(commands), len(commands))
        try:
            was_running = qmp.answer(within_s=CUT_S)["status"] == "running"
            for _ in commands[1:]:
                try:
                    qmp.answer(within_s=CUT_S)
                except QemuRefused as error:
                    refused = refused or str(error)
            self._staging.copy_out(self._tracker.source, self._tracker.scan(self._runs))
        except BaseException:
            if was_running:
                with contextlib.suppress(Failed):
                    qmp.write(device_state.CONTINUE, 1)
            self._unsaved.add(list(self._runs))
            raise
        if was_running:
            qmp.write(device_state.CONTINUE, 1)
            qmp.answer(within_s=CUT_S)
        return refused, (time.monotonic() - begun) * 1000

    @contextlib.contextmanager
    def _marked(self) -> Iterator[None]:
        """Say beside the guest that it stands because of us. The mark stays when nobody knows whether it goes on."""
        self._mark.touch()
        try:
            yield
        except BaseException as error:
            self.close()  # answers may be on their way that belong to nobody
            if not isinstance(error, QemuSilent):
                with contextlib.suppress(Failed):
                    self.mend()
            raise
        self._mark.unlink()
