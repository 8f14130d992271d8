"""Taking a checkpoint of a running machine: memory live in rounds, a short stop, and then on to the datastore.

    rounds   scan and protect, then the scribe copies those pages, while the guest runs; until few are left
    settle   the disks' files are synced from beside, so that QEMU has little left to flush when it stops
    cut      stop + disks onto new layers + device state, in one write; scan; copy the last pages aside; cont
    after    the scribe writes the last pages and the device state, syncs, and gives the manifest its name

Between stop and cont nothing here waits for the datastore but QEMU's own flush of the disks. The invariants: whatever
fails, the guest runs again; and a page that was scanned and is in no whole checkpoint is remembered until it is. One
writer serves one QEMU process and may be used by one thread at a time. Reading what was written is not here.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from outlive.errors import Failed

from .checkpoint import FORMAT, PAGE_BYTES, Checkpoint, Hardware
from .checkpoint_cut import Cut, Cutter
from .checkpoint_desk import SILENT_S, Desk
from .checkpoint_disks import Drive, Plugged, drives, drop_unused, merge_layers, plug_layers, unplug_layers
from .checkpoint_errors import CheckpointFailed
from .checkpoint_folder import folder_of
from .checkpoint_keeping import Keeping, Kept
from .checkpoint_pages import Run, page_count, pieces
from .checkpoint_scribe import Opening
from .memory import Memory
from .qmp_line import QemuSilent, QmpLine
from .tracking import Tracker

MOST_ROUNDS = 12
FEW_PAGES = 512
_PIECE_PAGES = 8192
_SHRINKS = 0.9


@dataclass(frozen=True, slots=True)
class Target:
    """Whose checkpoints, where, and how they are kept.

    scratch:    a file in memory that both QEMU and we may write, for the device state.
    owner:      user and group that QEMU runs as; None: whoever owns the disks.
    base_every: a new base after so many increments, however well merging goes.
    mib_s:      the most that is copied from the guest's memory a second while it runs; None: no limit.
    silent_s:   how long the datastore may keep us waiting before a checkpoint is given up.
    """

    datastore: Path
    workload: str
    host: str
    generation: int
    hardware: Hardware
    ram: Path
    scratch: Path
    disks: tuple[Plugged, ...] = ()
    run_lock: Path | None = None
    owner: tuple[int, int] | None = None
    keeping: Keeping = Keeping()
    base_every: int = 32
    mib_s: float | None = None
    silent_s: float = SILENT_S


@dataclass(frozen=True, slots=True)
class Figures:
    """How a checkpoint went. pause_ms: how long the guest stood, its processors' point of view.

    rounds: pages told by each scan on the running guest.  last_pages: those copied while it stood.
    prefix_ms: an additional pause, once for each base, in which the head of the device state was taken.
    """

    pause_ms: float
    took_ms: float
    rounds: tuple[int, ...]
    last_pages: int
    prefix_ms: float = 0.0


class Steps(Protocol):
    """Is told where a checkpoint is: at each step once, before it. Tests interrupt there."""

    def __call__(self, step: str) -> None: ...


class CheckpointWriter:
    """Takes checkpoints of one QEMU process. The first one is a base."""

    def __init__(
        self,
        target: Target,
        connect: Callable[[], QmpLine],
        memory: Memory,
        tracker: Tracker,
        step: Steps = lambda step: None,
    ) -> None:
        """connect: makes a monitor line to QEMU, again after one fell silent.  memory: QEMU's, as mapped here."""
        self.target = target
        self.folder = folder_of(target.datastore, target.workload)
        self._cutter = Cutter(connect, memory, tracker, target.ram, target.scratch)
        self._step = step
        self._parent: str | None = None
        self._increments = 0
        self._damage = ""
        self.figures: Figures | None = None

    def write(self, reason: str, label: str = "") -> Checkpoint:
        """Take one. label: the name that a person gave it.

        Raises CheckpointFailed, GenerationOld, or QemuSilent; the guest goes on, and earlier checkpoints are untouched.
        """
        begun = time.monotonic()
        desk = self._open()
        nodes: list[str] = []
        try:
            self._step("begin")
            sequence = desk.begin()[1]
            parent = self._parent if self._increments < self.target.base_every else None
            prefix_ms = self._cutter.take_prefix() if parent is None else 0.0
            now = self._drives()
            self._step("layers")
            layered = desk.layers([drive.chain for drive in now]) if now else []
            nodes = plug_layers(self._cutter.qmp, self.target.datastore, layered)
            self._step("rounds")
            rounds = self._copy_live(desk, parent is None)
            if now:
                desk.settle([drive.chain for drive in now])
            self._step("cut")
            cut = self._cutter.cut(now, nodes)
            nodes = []
            self._step("put")
            self._put(desk, cut)
            self._step("finish")
            checkpoint = desk.finish(self._manifest(sequence, parent, now, reason, label, cut), cut.stream)
        except BaseException as error:
            if isinstance(error, QemuSilent):
                self.close()
            self._undo(desk, nodes)
            if isinstance(error, OSError):
                raise CheckpointFailed("A checkpoint was not written.", cause=str(error)) from error
            raise
        desk.close()
        self._parent, self._increments = checkpoint.name, 0 if parent is None else self._increments + 1
        self._cutter.saved()
        took_ms = (time.monotonic() - begun) * 1000
        self.figures = Figures(cut.pause_ms, took_ms, tuple(rounds), page_count(cut.pages), prefix_ms)
        return checkpoint

    def mend(self) -> None:
        """Let the guest go on if an earlier process of ours was killed while it stood. Raises QemuSilent."""
        self._cutter.mend()

    def close(self) -> None:
        """Let go of QEMU's monitor; it is connected to again when it is needed."""
        self._cutter.close()

    def find_labelled(self, label: str) -> str:
        """The name of a whole checkpoint with that label, '' for none. Raises CheckpointFailed."""
        with self._open() as desk:
            return desk.labelled(label)

    def tidy(self, stopped: Callable[[], bool] = lambda: False, enough: Callable[[], bool] = lambda: False) -> Kept:
        """Merge and remove what is older than the policy keeps, while the guest runs.

        stopped: asked now and then; true gives up a merge of disks that is under way.
        enough:  asked between two; true leaves the rest for the next time.
        Raises CheckpointFailed, GenerationOld, QemuSilent, QemuRefused.
        """
        with self._open() as desk:
            kept = desk.tidy(self.target.keeping)
            if kept.damaged and kept.damaged != self._damage:
                self._parent = None  # once: what is damaged goes when enough newer checkpoints are there
            if kept.merged:
                self._increments = min(self._increments, self.target.keeping.keep)
            self._damage = kept.damaged
            while self._merge_two(desk, stopped) and not enough():
                pass
        return kept

    def _merge_two(self, desk: Desk, stopped: Callable[[], bool]) -> bool:
        """Merge one layer of each disk into the one below it, where that may be; whether there was anything to merge.

        Two at a time, so that each merge is as short as the writes of one interval.
        """
        now = self._drives()
        by_name = {drive.chain.name: drive for drive in now}
        merged = False
        for disk, layers in desk.mergeable([drive.chain for drive in now]).items():
            pair = layers[:2]
            if stopped() or not merge_layers(
                self._cutter.qmp, self.target.datastore, by_name[disk], pair, stopped, self.target.keeping.mib_s
            ):
                return False
            desk.note_merged(disk, pair)
            merged = True
        return merged

    def _drives(self) -> list[Drive]:
        """The disks as they are now, and nothing else of them open."""
        now = drives(self._cutter.qmp, self.target.datastore, self.target.disks)
        drop_unused(self._cutter.qmp, self.target.datastore, now)
        return now

    def start_anew(self) -> None:
        """Make the next checkpoint a base."""
        self._parent = None

    def _open(self) -> Desk:
        """A scribe at work."""
        opening = Opening(
            str(self.folder), self.target.generation, self.target.host, str(self.target.ram),
            str(self.target.run_lock) if self.target.run_lock else None, self.target.mib_s, self.target.owner,
        )  # fmt: skip
        return Desk(opening, silent_s=self.target.silent_s)

    def _copy_live(self, desk: Desk, base: bool) -> list[int]:
        """Have all pages copied that are in no whole checkpoint, until few are left. Returns what each round had."""
        told = self._cutter.everything() if base else self._cutter.unsaved()
        rounds = [page_count(told)]
        self._copy(desk, told)
        while len(rounds) < MOST_ROUNDS and self._cutter.waiting_pages() > FEW_PAGES:
            told = self._cutter.written()
            rounds.append(page_count(told))
            self._copy(desk, told)
            if rounds[-1] > _SHRINKS * rounds[-2] and len(rounds) > 2:
                break  # the guest writes as fast as we copy: the cut has to take what is left
        return rounds

    def _copy(self, desk: Desk, told: list[Run]) -> None:
        if self._cutter.tells_memory:
            desk.copy(told)
            return
        for piece in pieces(told, _PIECE_PAGES):
            desk.put(piece, self._cutter.copy_aside(piece))

    def _put(self, desk: Desk, cut: Cut) -> None:
        """Write the pages of the cut, a piece at a time."""
        data = self._cutter.data()
        at = 0
        for piece in pieces(cut.pages, _PIECE_PAGES):
            size = page_count(piece) * PAGE_BYTES
            desk.put(piece, data[at : at + size])
            at += size

    def _manifest(
        self, sequence: int, parent: str | None, now: list[Drive], reason: str, label: str, cut: Cut
    ) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "workload": self.target.workload,
            "generation": self.target.generation,
            "sequence": sequence,
            "parent": parent,
            "host": self.target.host,
            "created_unix_s": time.time(),
            "reason": reason,
            "hardware": msgspec.to_builtins(self.target.hardware),
            "disks": msgspec.to_builtins([drive.chain for drive in now]),
            "pause_ms": round(cut.pause_ms, 3),
            "label": label,
        }

    def _undo(self, desk: Desk, nodes: list[str]) -> None:
        """Clear away what a checkpoint that failed began, as far as that can be now; the next one clears the rest."""
        if nodes:
            with contextlib.suppress(Failed):
                unplug_layers(self._cutter.qmp, nodes)
        with contextlib.suppress(Failed):
            desk.heads([drive.chain for drive in drives(self._cutter.qmp, self.target.datastore, self.target.disks)])
            desk.abort()
        desk.close()
