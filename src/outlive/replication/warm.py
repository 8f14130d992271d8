"""The warm role of a communication manager: checkpoints at an interval and when asked, and going on from one.

One thread owns the machine: it takes checkpoints, and between two of them tidies up, never both at once. What the
agent says waits until then; a merge of disks is left for later when somebody waits. Output of the guest is not held,
so the phase is always `free`. The invariant: whatever becomes of a checkpoint, the guest runs, and the agent hears of
each one that it asked for.
"""

import os
import statistics
import time
from collections import deque
from pathlib import Path
from typing import Protocol

import structlog

from outlive.errors import OutliveError

from . import control
from .checkpoint import Checkpoint, is_label
from .checkpoint_disks import Plugged
from .checkpoint_errors import GenerationOld
from .checkpoint_folder import folder_of, read_heads, read_manifest
from .checkpoint_keeping import Keeping
from .checkpoint_reading import Resume, fill_memory, load_devices
from .checkpoint_values import WarmValues
from .checkpoint_writer import CheckpointWriter, Target
from .comm_config import CommConfig
from .control_server import ControlServer, Wake
from .link import boot_s
from .memory import Memory
from .qmp_line import QmpLine
from .tracking import CompareTracker, Tracker, TrackingFailed, WriteTracker, read_pagewatch

FIRST_RETRY_S = 5.0
LOOK_S = 1.0
PAGEWATCH_S = 10.0
MOST_FIGURES = 100
INTERVAL = "interval"

_log = structlog.get_logger()


class Control(Protocol):
    """The agent's side, as much of it as is needed here."""

    def command(self) -> control.Command | None: ...

    def tell(self, event: control.Event) -> None: ...


class WarmKeeper:
    """Keeps checkpoints of one machine for the life of its QEMU process."""

    def __init__(self, config: CommConfig, values: WarmValues) -> None:
        self._config = config
        self._values = values
        self._folder = folder_of(Path(values.datastore), config.workload)
        self._writer: CheckpointWriter | None = None
        self._waiting: deque[control.Command] = deque()
        self._phase, self._reason = "free", ""
        self._pauses: deque[float] = deque(maxlen=MOST_FIGURES)
        self._written_bytes = self._taken = self._failures = 0
        self._retired = False

    def status(self) -> control.Status:
        """Where it stands. From any thread."""
        return control.Status(
            self._phase, self._config.generation, self._config.pairing, epoch=self._taken, reason=self._reason
        )

    def run(self, told: Control, wake: Wake) -> None:
        """Work until QEMU is gone. told: the agent.  wake: is set when it said something."""
        try:
            if self._values.resume is not None:
                self._resume(self._values.resume, told)
            self._mend()
            due_s = boot_s() + self._values.interval_s
            while self._lives(told):
                self._hear(told)
                asked = self._waiting.popleft() if self._waiting else None
                if isinstance(asked, control.Checkpoint):
                    due_s = self._asked(asked, told) or due_s
                elif asked is not None:
                    self._answer(asked, told)
                elif boot_s() >= due_s and not self._retired:
                    due_s = self._take(told, INTERVAL, "", "")
                else:
                    wake.wait(min(LOOK_S, max(0.0, due_s - boot_s())) if not self._retired else LOOK_S)
        finally:
            if self._writer is not None:
                self._writer.close()

    def _mend(self) -> None:
        """A manager that was killed between stop and cont left the guest standing."""
        try:
            self._writer_now().mend()
        except (OutliveError, OSError) as error:
            self._reason = str(error)

    def _hear(self, told: Control) -> None:
        while (command := told.command()) is not None:
            self._waiting.append(command)

    def _answer(self, command: control.Command, told: Control) -> None:
        if isinstance(command, control.Alone):
            told.tell(control.WentAlone(command.pairing, 0))
        elif not isinstance(command, control.AskStatus):
            told.tell(control.Refused(type(command).__name__, "this machine is only checkpointed: nobody follows it"))

    def _asked(self, asked: control.Checkpoint, told: Control) -> float | None:
        """Take a checkpoint that somebody asked for, unless one of that name is whole.

        Returns when the next is due; None when nothing was tried that changes it.
        """
        if not is_label(asked.name):
            told.tell(control.CheckpointFailed(asked.name, "no checkpoint can have this name"))
            return None
        try:
            there = self._writer_now().find_labelled(asked.name)
        except (OutliveError, OSError) as error:
            told.tell(control.CheckpointFailed(asked.name, str(error)))
            return self._next_s(failed=True)
        if there:
            told.tell(control.Checkpointed(asked.name, 0, 0.0, 0.0))
            return None
        return self._take(told, asked.reason or "request", asked.name, asked.name)

    def _take(self, told: Control, reason: str, label: str, name: str) -> float:
        """Take one, tell of it, tidy up. Returns when the next is due."""
        begun_s = boot_s()
        try:
            writer = self._writer_now()
            checkpoint = writer.write(reason, label)
        except (OutliveError, OSError) as error:
            self._reason = str(error)
            self._retired = isinstance(error, GenerationOld)
            _log.warning("checkpoint.failed", workload=self._config.workload, because=self._reason)
            told.tell(control.CheckpointFailed(name, self._reason))
            return self._next_s(failed=True)
        self._note(told, checkpoint, name, (boot_s() - begun_s) * 1000)
        try:
            writer.tidy(lambda: self._is_wanted(told), lambda: boot_s() > begun_s + self._values.interval_s)
        except (OutliveError, OSError) as error:
            _log.warning("checkpoint.not_tidied", workload=self._config.workload, because=str(error))
        return max(begun_s + self._values.interval_s, boot_s())

    def _note(self, told: Control, checkpoint: Checkpoint, name: str, took_ms: float) -> None:
        assert self._writer is not None
        figures = self._writer.figures
        assert figures is not None
        self._failures, self._reason = 0, ""
        self._taken += 1
        self._written_bytes += checkpoint.bytes
        self._pauses.append(figures.pause_ms)
        _log.info(
            "checkpoint.written", workload=self._config.workload, name=checkpoint.name, because=checkpoint.reason,
            bytes=checkpoint.bytes, pause_ms=round(figures.pause_ms, 2), prefix_ms=round(figures.prefix_ms, 2),
            took_ms=round(took_ms),
        )  # fmt: skip
        told.tell(control.Checkpointed(name or checkpoint.name, checkpoint.bytes, figures.pause_ms, took_ms))
        told.tell(
            control.Progress(
                epochs=self._taken,
                pause_ms_median=statistics.median(self._pauses),
                pause_ms_p99=max(self._pauses),
                dirty_pages=figures.last_pages,
                bytes_sent=self._written_bytes,
                held_frames=0,
                unacknowledged=0,
                lag_ms=took_ms,
            )
        )

    def _next_s(self, *, failed: bool) -> float:
        """When to try again: soon at first, then as rarely as the policy says."""
        self._failures += failed
        return boot_s() + min(self._values.interval_s, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10))

    def _is_wanted(self, told: Control) -> bool:
        self._hear(told)
        return bool(self._waiting)

    def _lives(self, told: Control) -> bool:
        """Whether QEMU still runs; tells when it does not."""
        try:
            os.kill(self._config.qemu_pid, 0)
        except ProcessLookupError:
            self._phase, self._reason = "failed", "QEMU ended"
            told.tell(control.BecameFailed(self._reason))
            return False
        except PermissionError:
            return True
        return True

    def _writer_now(self) -> CheckpointWriter:
        """The writer, made when it is first needed, since the guest is not tracked before."""
        if self._writer is None:
            config = self._config
            memory = Memory.map_file(Path(config.ram_path), config.ram_bytes, writable=False)
            self._writer = CheckpointWriter(
                target_of(config, self._values), lambda: QmpLine(config.qmp), memory, _tracker(config, memory)
            )
        return self._writer

    def _resume(self, name: str, told: Control) -> None:
        """Bring a waiting QEMU to the checkpoint's moment and let it run. Raises OutliveError, OSError."""
        begun = time.monotonic()
        qmp = QmpLine(self._config.qmp)
        try:
            if qmp.run("query-status")["status"] != "inmigrate":
                return  # an earlier manager of this same machine did it: its memory is the guest's own now
            self._phase = "adopting"
            checkpoint = read_manifest(self._folder, name)
            heads = read_heads(self._folder)
            resume = Resume(self._folder, checkpoint, heads.disks if heads else ())
            fill_memory(resume, Path(self._config.ram_path))
            loading = time.monotonic()
            load_devices(qmp, resume)
            qmp.run("cont")
        except (OutliveError, OSError) as error:
            self._phase, self._reason = "failed", str(error)
            told.tell(control.BecameFailed(self._reason))
            raise
        finally:
            qmp.close()
        ended = time.monotonic()
        self._phase = "free"
        _log.info(
            "checkpoint.resumed", workload=self._config.workload, name=name, took_ms=round((ended - begun) * 1000)
        )
        told.tell(
            control.Adopted(
                0, self._config.generation, adopt_ms=(ended - begun) * 1000, load_ms=(ended - loading) * 1000
            )
        )


def target_of(config: CommConfig, values: WarmValues) -> Target:
    """What the writer is told."""
    owner = (values.user, values.group) if values.user is not None and values.group is not None else None
    return Target(
        datastore=Path(values.datastore),
        workload=config.workload,
        host=config.host,
        generation=config.generation,
        hardware=values.hardware,
        ram=Path(config.ram_path),
        scratch=Path(f"{config.ram_path}.devices"),
        disks=tuple(Plugged(disk.name, disk.device) for disk in values.disks),
        run_lock=Path(values.run_lock) if values.run_lock else None,
        owner=owner,
        keeping=Keeping(values.keep, values.named, values.slack, values.merge_mib_s),
        base_every=values.base_every,
        mib_s=values.copy_mib_s,
        silent_s=values.silent_s,
    )


def serve(config: CommConfig, values: WarmValues) -> None:
    """Be the communication manager of a machine that is only checkpointed; returns when QEMU ended."""
    keeper, wake = WarmKeeper(config, values), Wake()
    Path(config.state_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    told = ControlServer(config.control_socket, keeper.status, wake)
    try:
        keeper.run(told, wake)
    finally:
        told.close()


def _tracker(config: CommConfig, memory: Memory) -> Tracker:
    """The kernel's tracking where it has one, else comparing, which costs as much memory again."""
    deadline = boot_s() + PAGEWATCH_S
    try:
        while (region := read_pagewatch(Path(config.pagewatch), config.ram_bytes)) is None:
            if boot_s() > deadline:
                raise TrackingFailed("The page watch did not say where the memory lies.")
            time.sleep(0.05)
        return WriteTracker(config.qemu_pid, region, memory)
    except TrackingFailed as error:
        _log.warning("checkpoint.comparing", workload=config.workload, because=str(error))
        return CompareTracker(memory)
