"""A workload's folder of checkpoints on a datastore: what is in it, who may write, and how one becomes whole.

    checkpoints/WORKLOAD/
        reign.json                   the newest generation that acts here; an older one is refused everything
        heads.json                   the layers of each disk that the guest writes to now, written before it does
        g<generation>-<sequence>/    memory.pages (or merged.pages), device.state, and last of all manifest.json
        disks/                       layers that lie on the workload's own disk files

A folder without a manifest is no checkpoint but a leftover, and the next writer removes it. All calls block, for as
long as the storage does: they are for a worker process. Merging and removing are in `checkpoint_keeping`.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .checkpoint import (
    MANIFEST,
    MOST_MANIFEST_BYTES,
    Checkpoint,
    DiskChain,
    name_of,
    order_of,
    pack,
    unpack,
)
from .checkpoint import disk_problem as told_problem
from .checkpoint_errors import CheckpointDamaged, CheckpointMissing, GenerationOld
from .checkpoint_files import read_whole, sync_folder, write_whole

REIGN = "reign.json"
HEADS = "heads.json"
DISKS = "disks"
_MOST_RECORD_BYTES = 1 << 20
_PASSABLE = 0o711
_LAYER = re.compile(r".*\.([0-9]{1,10})\.qcow2")


@dataclass(frozen=True, slots=True)
class Listed:
    """One checkpoint in a listing. checkpoint: None when its manifest cannot be believed; `problem` says why."""

    name: str
    checkpoint: Checkpoint | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Heads:
    """What the guest's disks consist of now, or, when it does not run, when it last ran."""

    generation: int
    disks: tuple[DiskChain, ...]


@dataclass(frozen=True, slots=True)
class _Reign:
    generation: int
    host: str


def folder_of(datastore: Path, workload: str) -> Path:
    """Where a workload's checkpoints are on a datastore."""
    return datastore / "checkpoints" / workload


def datastore_of(folder: Path) -> Path:
    """The datastore that a workload's folder of checkpoints is on."""
    return folder.parent.parent


def names(folder: Path) -> list[str]:
    """The names of all checkpoint folders, whole or not, oldest first. Raises OSError."""
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(entry for entry in entries if order_of(entry) is not None)


def list_checkpoints(folder: Path) -> list[Listed]:
    """All checkpoints, newest first, by their manifests alone; `verify` looks at what they hold. Raises OSError."""
    found: list[Listed] = []
    for name in reversed(names(folder)):
        raw = read_whole(folder / name / MANIFEST, MOST_MANIFEST_BYTES)
        if raw is None:
            continue
        try:
            found.append(Listed(name, unpack(raw, name)))
        except CheckpointDamaged as error:
            found.append(Listed(name, None, error.cause))
    return found


def read_manifest(folder: Path, name: str) -> Checkpoint:
    """One checkpoint. Raises CheckpointMissing, CheckpointDamaged, OSError."""
    raw = read_whole(folder / name / MANIFEST, MOST_MANIFEST_BYTES) if order_of(name) else None
    if raw is None:
        raise CheckpointMissing(f"There is no checkpoint {name[:80]}.", remedy="list them: outlive checkpoints NAME")
    return unpack(raw, name)


def named(folder: Path, text: str) -> str:
    """The name of the checkpoint that goes by this name or label; of several with one label the newest."""
    if order_of(text) is not None:
        return text
    found = (entry.name for entry in list_checkpoints(folder) if entry.checkpoint and entry.checkpoint.label == text)
    name = next(found, None) if text else None
    if name is None:
        raise CheckpointMissing(f"There is no checkpoint {text[:80]}.", remedy="list them: outlive checkpoints NAME")
    return name


def chain_of(folder: Path, name: str) -> list[Checkpoint]:
    """The checkpoint and those that its memory rests on, base first. Raises CheckpointDamaged, CheckpointMissing."""
    chain = [read_manifest(folder, name)]
    while (parent := chain[-1].parent) is not None:
        try:
            chain.append(read_manifest(folder, parent))
        except CheckpointMissing as error:
            raise CheckpointDamaged(f"Checkpoint {name} rests on {parent}, which is gone.") from error
        if chain[-1].hardware.memory_mib != chain[0].hardware.memory_mib:
            raise CheckpointDamaged(f"Checkpoint {name} rests on {parent}, which has other memory.")
    return chain[::-1]


def begin_reign(folder: Path, generation: int, host: str, run_lock: Path | None = None) -> None:
    """Say that `generation` acts here from now on. Raises GenerationOld when a later one has; CheckpointDamaged."""
    check_reign(folder, generation, run_lock)
    for own in (folder.parent, folder, folder / DISKS):
        own.mkdir(exist_ok=True)
        own.chmod(_PASSABLE)  # the layers in `disks` are opened by QEMU, whose user is another
    told = _reign_of(folder)
    if told is None or told.generation < generation:
        write_whole(folder / REIGN, msgspec.json.encode(_Reign(generation, host)))


def check_reign(folder: Path, generation: int, run_lock: Path | None = None) -> None:
    """Raise GenerationOld when a later generation has acted here: by its own word, its checkpoints or the run lock."""
    told = _reign_of(folder)
    newest = max((order[0] for name in names(folder) if (order := order_of(name))), default=0)
    locked = _lock_generation(run_lock) if run_lock is not None else 0
    latest = max(told.generation if told else 0, newest, locked)
    if latest > generation:
        raise GenerationOld(
            f"Generation {generation} writes no checkpoints here any more.",
            cause=f"generation {latest} has acted since",
        )


def read_heads(folder: Path) -> Heads | None:
    """The layers that each disk consists of now; None when nothing ever lay on the disks' own files.

    Raises CheckpointDamaged, OSError. A cold start has to use these, since the guest wrote to them last.
    """
    raw = read_whole(folder / HEADS, _MOST_RECORD_BYTES)
    if raw is None:
        return None
    try:
        heads = msgspec.json.decode(raw, type=Heads)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointDamaged(f"{HEADS} cannot be read.", cause=str(error)) from error
    problem = next((found for disk in heads.disks if (found := told_problem(disk))), "")
    if problem:
        raise CheckpointDamaged(f"{HEADS} cannot be believed.", cause=problem)
    return heads


def write_heads(folder: Path, generation: int, disks: Sequence[DiskChain]) -> None:
    """Record the layers that the guest is about to write to. Raises GenerationOld, OSError."""
    check_reign(folder, generation)
    write_whole(folder / HEADS, msgspec.json.encode(Heads(generation, tuple(disks))))


def free_layer(folder: Path, disk: str) -> Path:
    """A name for a new layer of a disk that no layer here has had since the last sweep."""
    found = [_LAYER.fullmatch(entry) for entry in os.listdir(folder / DISKS)]
    highest = max((int(match[1]) for match in found if match), default=0)
    return folder / DISKS / f"{disk}.{highest + 1}.qcow2"


def begin(folder: Path, generation: int) -> tuple[str, int]:
    """Make the folder of a new checkpoint; return its name and sequence. Raises GenerationOld, OSError."""
    check_reign(folder, generation)
    orders = [order for name in names(folder) if (order := order_of(name))]
    sequence = max((sequence for told, sequence in orders if told == generation), default=0) + 1
    name = name_of(generation, sequence)
    (folder / name).mkdir(mode=0o700)
    return name, sequence


def commit(folder: Path, checkpoint: Checkpoint, run_lock: Path | None = None) -> None:
    """Make a checkpoint whole: its files, already synced, count from the moment that the manifest has its name.

    Raises GenerationOld, OSError.
    """
    raw = pack(checkpoint)
    sync_folder(folder / checkpoint.name)
    sync_folder(folder)
    check_reign(folder, checkpoint.generation, run_lock)
    write_whole(folder / checkpoint.name / MANIFEST, raw)


def _reign_of(folder: Path) -> _Reign | None:
    raw = read_whole(folder / REIGN, _MOST_RECORD_BYTES)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=_Reign)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointDamaged(
            f"{folder / REIGN} cannot be read, and what is damaged is never taken for old.",
            cause=str(error),
            remedy="make sure that the workload runs on no host, then remove the file",
        ) from error


def _lock_generation(run_lock: Path) -> int:
    """The generation that last held a run lock; 0 when nobody ever did. Its format is that of outlive-runlock."""
    raw = read_whole(run_lock, 4096)
    if not raw:
        return 0
    try:
        return int(json.JSONDecoder().raw_decode(raw.decode())[0]["generation"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointDamaged(
            f"The run lock {run_lock} cannot be read, and what is damaged is never taken for old.", cause=str(error)
        ) from error
