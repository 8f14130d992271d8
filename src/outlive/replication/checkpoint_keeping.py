"""How many checkpoints are kept: merging what is older into a base, and removing what nothing rests on any more.

Memory: the newest checkpoints stay, and those that a person named; once what lies below one of them is long or large,
it is given all of its memory in one file, and what nothing rests on goes. Disks: layers that nobody needs apart from
each other may be merged into the lowest of them; that is QEMU's work while it runs, and this file only says which
(`mergeable`) and what is true afterwards (`note_merged`). At every moment each kept checkpoint is whole: what it
will need is durable before its manifest changes, and what it needed goes after. All calls block.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from .checkpoint import MANIFEST, Checkpoint, DiskChain, DiskLayer, order_of, pack
from .checkpoint_errors import CheckpointDamaged, CheckpointMissing
from .checkpoint_files import make_file, open_file, remove_tree, sync_folder, write_whole
from .checkpoint_folder import DISKS, Heads, chain_of, check_reign, datastore_of, list_checkpoints, names
from .checkpoint_folder import read_heads as heads_of
from .checkpoint_folder import write_heads as set_heads
from .checkpoint_merging import Source, merge
from .checkpoint_pages import PageWriter

MERGED = "merged.pages"


@dataclass(frozen=True, slots=True)
class Keeping:
    """keep: whole checkpoints that stay, the newest.  named: those with a label that stay besides, the newest.

    slack: how many older increments may lie below one that stays before they are merged.
    mib_s: the most that merging reads and writes together; None: as fast as it goes.
    """

    keep: int = 4
    named: int = 4
    slack: int = 8
    mib_s: float | None = 200.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What tidying did. damaged: why merging was given up; a new base is due."""

    merged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    damaged: str = ""


def sweep(folder: Path, busy: str = "") -> list[str]:
    """Remove what interrupted writers left: folders without a manifest but `busy`, files that nothing names.

    Only for the one writer of the reign. Returns what went. Raises OSError.
    """
    gone: list[str] = []
    listed = list_checkpoints(folder)
    told = {entry.name: entry.checkpoint for entry in listed}
    for name in names(folder):
        if name not in told and name != busy:
            remove_tree(folder / name)
            gone.append(name)
    for checkpoint in filter(None, told.values()):
        wanted = {MANIFEST, checkpoint.memory.name, checkpoint.device.name}
        gone += _remove_all_but(folder / checkpoint.name, wanted)
    if all(told.values()):  # a manifest that cannot be read may rest on any layer
        with suppress(FileNotFoundError):
            gone += _remove_all_but(folder / DISKS, _layers_in_use(folder, filter(None, told.values())))
    return gone


def tidy(folder: Path, generation: int, keeping: Keeping, progress: Callable[[], None] = lambda: None) -> Kept:
    """Merge and remove as `keeping` says. progress: is called often. Raises GenerationOld, OSError."""
    check_reign(folder, generation)
    listed = [entry.checkpoint for entry in list_checkpoints(folder) if entry.checkpoint]
    named = [checkpoint for checkpoint in listed if checkpoint.label][: keeping.named]
    kept = {checkpoint.name: checkpoint for checkpoint in (*listed[: keeping.keep], *named)}
    merged: list[str] = []
    for checkpoint in sorted(kept.values(), key=lambda one: one.order):
        below = _below(checkpoint, listed, kept)
        if not below or not _worthwhile(below, listed, keeping):
            continue
        try:
            _rebase(folder, checkpoint, generation, _pace(keeping, progress))
        except (CheckpointDamaged, CheckpointMissing) as error:
            return Kept(tuple(merged), damaged=str(error))
        merged.append(checkpoint.name)
    needed = _needed(folder, kept)
    removed = [name for name in names(folder) if name not in needed and _is_older(name, kept)]
    for name in removed:
        check_reign(folder, generation)
        remove_tree(folder / name)
        progress()
    if merged or removed:
        sync_folder(folder)
    sweep(folder)
    return Kept(tuple(merged), tuple(removed))


def mergeable(folder: Path, running: Sequence[DiskChain]) -> dict[str, tuple[DiskLayer, ...]]:
    """For each disk the most layers that can become one, lowest first: whoever knows one of them knows them all.

    running: what QEMU has open now; its topmost layer is never among them. Disks with nothing to merge are left out.
    """
    listed = list_checkpoints(folder)
    if not all(entry.checkpoint for entry in listed):
        return {}
    chains = [disk for entry in listed if entry.checkpoint for disk in entry.checkpoint.disks]
    heads = heads_of(folder)
    chains += heads.disks if heads else ()
    found: dict[str, tuple[DiskLayer, ...]] = {}
    for disk in running:
        known = [chain.layers for chain in chains if chain.name == disk.name]
        ends = {0, len(disk.layers) - 1, *(_in_common(layers, disk.layers[:-1]) for layers in known)}
        parts = [disk.layers[begin:end] for begin, end in pairwise(sorted(ends))]
        longest = max(parts, key=len, default=())
        if len(longest) > 1:
            found[disk.name] = longest
    return found


def note_merged(folder: Path, generation: int, disk: str, layers: Sequence[DiskLayer]) -> None:
    """Say that the lowest of `layers` now holds what they all held, and remove the others.

    The files go last, since until then either telling is true; it may be said again after an interruption.
    Raises GenerationOld, OSError.
    """
    check_reign(folder, generation)

    def without(chain: DiskChain) -> DiskChain:
        if chain.name != disk:
            return chain
        return replace(chain, layers=tuple(layer for layer in chain.layers if layer not in layers[1:]))

    for entry in list_checkpoints(folder):
        if entry.checkpoint:
            disks = tuple(without(chain) for chain in entry.checkpoint.disks)
            if disks != entry.checkpoint.disks:
                write_whole(folder / entry.name / MANIFEST, pack(replace(entry.checkpoint, disks=disks)))
    heads = heads_of(folder) or Heads(generation, ())
    set_heads(folder, generation, [without(chain) for chain in heads.disks])
    sweep(folder)


def _below(checkpoint: Checkpoint, listed: Sequence[Checkpoint], kept: dict[str, Checkpoint]) -> list[Checkpoint]:
    """What this one's memory rests on that is not kept for its own sake, newest first; [] when its parent is kept."""
    by_name = {one.name: one for one in listed}
    below: list[Checkpoint] = []
    parent = checkpoint.parent
    while parent is not None and parent in by_name and parent not in kept:
        below.append(by_name[parent])
        parent = below[-1].parent
    return below


def _worthwhile(below: Sequence[Checkpoint], listed: Sequence[Checkpoint], keeping: Keeping) -> bool:
    by_name = {one.name: one for one in listed}
    base = below[-1]
    while base.parent is not None and base.parent in by_name:
        base = by_name[base.parent]
    increments = sum(one.memory.bytes for one in below if one is not base)
    return len(below) > keeping.slack or increments > base.memory.bytes


def _rebase(folder: Path, checkpoint: Checkpoint, generation: int, pace: Callable[[int], None]) -> None:
    """Give a checkpoint all of its memory in one file."""
    own = folder / checkpoint.name
    with suppress(FileNotFoundError):
        (own / MERGED).unlink()
    with ExitStack() as stack:
        sources: list[Source] = []
        for one in chain_of(folder, checkpoint.name):
            try:
                fd = open_file(folder / one.name / one.memory.name)
            except OSError as error:
                raise CheckpointDamaged(
                    f"The memory of checkpoint {one.name} cannot be read.", cause=str(error)
                ) from error
            stack.callback(os.close, fd)
            sources.append((fd, one.memory))
        into = make_file(own / MERGED)
        stack.callback(os.close, into)
        writer = PageWriter(into)
        merge(sources, checkpoint.hardware.memory_mib * 256, writer, pace)
        os.fsync(into)
    sync_folder(own)
    check_reign(folder, generation)
    write_whole(own / MANIFEST, pack(checkpoint.rebased(writer.finish(MERGED))))
    (own / checkpoint.memory.name).unlink()


def _needed(folder: Path, kept: dict[str, Checkpoint]) -> set[str]:
    """The kept ones and all that they rest on, by what the manifests say now."""
    needed = set(kept)
    for name in kept:
        with suppress(CheckpointDamaged, CheckpointMissing):
            needed |= {one.name for one in chain_of(folder, name)}
    return needed


def _is_older(name: str, kept: dict[str, Checkpoint]) -> bool:
    order = order_of(name)
    return order is not None and bool(kept) and order < max(one.order for one in kept.values())


def _in_common(one: Sequence[DiskLayer], other: Sequence[DiskLayer]) -> int:
    """With how many layers both begin."""
    number = 0
    while number < min(len(one), len(other)) and one[number] == other[number]:
        number += 1
    return number


def _layers_in_use(folder: Path, checkpoints: Iterable[Checkpoint]) -> set[str]:
    heads = heads_of(folder)
    chains = [disk for checkpoint in checkpoints for disk in checkpoint.disks]
    chains += heads.disks if heads else ()
    here = (folder / DISKS).relative_to(datastore_of(folder)).as_posix()
    paths = [Path(layer.path) for chain in chains for layer in chain.layers]
    return {path.name for path in paths if path.parent.as_posix() == here}


def _remove_all_but(folder: Path, wanted: set[str]) -> list[str]:
    gone = [entry for entry in os.listdir(folder) if entry not in wanted]
    for entry in gone:
        (folder / entry).unlink()
    return gone


def _pace(keeping: Keeping, progress: Callable[[], None]) -> Callable[[int], None]:
    """Sleep as much as the rate asks for."""

    def pace(size: int) -> None:
        progress()
        if keeping.mib_s:
            time.sleep(size / (keeping.mib_s * 1048576))

    return pace
