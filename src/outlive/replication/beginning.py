"""How a reign of a warm machine begins: from which checkpoint, or from its disks as they stand.

A checkpoint takes the disks back with it, so an old one must never be resumed by itself over what was done since: not
after the guest was shut down in order and started anew, and not after an operator went back to an older one. So each
reign records what it began from, and the next looks only at checkpoints taken since; with none of them whole, it
begins as that one did. Everything here blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .checkpoint import Hardware
from .checkpoint_errors import CheckpointDamaged, CheckpointMissing
from .checkpoint_files import read_whole, write_whole
from .checkpoint_folder import datastore_of, list_checkpoints, read_heads
from .checkpoint_reading import Skipped, give_layers, prepare_resume

ORIGIN = "origin.json"
SHUT_DOWN = "shut-down"
INCOMING = "incoming.json"
_MOST_BYTES = 4096

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the newest reign that began here began from. checkpoint: its name; '' for the disks as they stood."""

    generation: int
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class _Incoming:
    host: str
    disks: dict[str, str]


@dataclass(frozen=True, slots=True)
class Beginning:
    """checkpoint: the name of the one that is made ready to be loaded; '' for none: the guest is booted.

    disks: where layers lie on the disks, the file of each.  skipped: checkpoints that were passed over.
    """

    checkpoint: str
    disks: dict[str, str]
    skipped: tuple[Skipped, ...] = ()


def note_shut_down(folder: Path) -> None:
    """The guest ended by its own will, with all on its disks: the next reign boots. Raises OSError."""
    if folder.is_dir():
        write_whole(folder / SHUT_DOWN, b"")


def begin(
    folder: Path,
    hardware: Hardware,
    *,
    generation: int,
    host: str,
    at: str = "",
    run_lock: Path | None = None,
    owner: tuple[int, int] | None = None,
    progress: Progress = lambda size: None,
) -> Beginning:
    """Decide how this reign begins, make that ready, and record it.

    at:    the checkpoint, or its label, that an operator wants; '' for the rule above.
    owner: user and group that QEMU runs as here, who must be able to open the disks; None: they are open to it.
    Raises HardwareDiffers before anything is changed, and what `prepare_resume` raises; for damaged ones only where
    `at` names one.
    """
    if not folder.is_dir():
        return Beginning("", {})

    def resumed(name: str) -> Beginning:
        ready = prepare_resume(
            folder, hardware, generation=generation, host=host, name=name, run_lock=run_lock, owner=owner,
            progress=progress,
        )  # fmt: skip
        _record(folder, Origin(generation, ready.checkpoint.name))
        files = {disk: str(path) for disk, path in ready.disk_files().items()}
        return Beginning(ready.checkpoint.name, files, tuple(skipped))

    skipped: list[Skipped] = []
    if at:
        return resumed(at)
    for name, problem in _candidates(folder):
        if problem:
            skipped.append(Skipped(name, problem))
            continue
        try:
            return resumed(name)
        except (CheckpointDamaged, CheckpointMissing) as error:
            skipped.append(Skipped(name, error.cause or str(error)))
    heads = read_heads(folder)
    if heads is not None and owner is not None:
        give_layers(folder, heads.disks, owner)
    _record(folder, Origin(generation))
    return Beginning("", disks_now(folder), tuple(skipped))


def disks_now(folder: Path) -> dict[str, str]:
    """The file of each disk on which layers lie, by the disk's name. Raises CheckpointDamaged, OSError."""
    heads = read_heads(folder) if folder.is_dir() else None
    if heads is None:
        return {}
    return {disk.name: str(datastore_of(folder) / disk.layers[-1].path) for disk in heads.disks}


def note_incoming(folder: Path, host: str) -> dict[str, str]:
    """As `disks_now`, and leave word of it: a host opened these layers to take the machine in. Raises OSError."""
    disks = disks_now(folder)
    if folder.is_dir():
        write_whole(folder / INCOMING, msgspec.json.encode(_Incoming(host, disks)))
    return disks


def opened_the_same(folder: Path, host: str) -> bool:
    """Whether the host that is to take the machine in opened the very layers that the disks consist of now."""
    if not folder.is_dir():
        return True
    raw = read_whole(folder / INCOMING, _MOST_BYTES * 16)
    try:
        said = msgspec.json.decode(raw or b"", type=_Incoming)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return said == _Incoming(host, disks_now(folder))


def _record(folder: Path, origin: Origin) -> None:
    write_whole(folder / ORIGIN, msgspec.json.encode(origin))
    (folder / SHUT_DOWN).unlink(missing_ok=True)


def _candidates(folder: Path) -> list[tuple[str, str]]:
    """The checkpoints that may be gone on from, the best first, each with what its manifest has wrong with it."""
    if (folder / SHUT_DOWN).exists():
        return []
    origin = read_origin(folder)
    since = origin.generation if origin is not None else 0
    listed = list_checkpoints(folder)
    newer, found = [], set[str]()
    for entry in listed:
        # A manifest that cannot be read does not say of which reign it is; its name does.
        generation = entry.checkpoint.generation if entry.checkpoint else _generation_in(entry.name)
        if generation >= since:
            newer.append((entry.name, entry.problem))
            found.add(entry.name)
    if origin is not None and origin.checkpoint:
        older = [(entry.name, entry.problem) for entry in listed if entry.name not in found]
        newer += [each for each in older if each[0] <= origin.checkpoint]
    return newer


def _generation_in(name: str) -> int:
    digits = name.partition("-")[0].removeprefix("g")
    return int(digits) if digits.isdigit() else 0


def read_origin(folder: Path) -> Origin | None:
    """What the newest reign began from; None when none was recorded. Raises CheckpointDamaged, OSError."""
    raw = read_whole(folder / ORIGIN, _MOST_BYTES)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Origin)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointDamaged(f"{ORIGIN} cannot be read.", cause=str(error)) from error
