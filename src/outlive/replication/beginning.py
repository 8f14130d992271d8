"""How a reign of a warm machine begins: from which checkpoint, or from its disks as they stand.

A checkpoint takes the disks back with it, so an old one must never be resumed by itself over what was done since: not
after the guest was shut down in order and started anew, and not after an operator went back to an older one. So each
reign records what it began from, and the next looks only at checkpoints taken since; with none of them whole, it
begins as that one did. Everything here blocks.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from .checkpoint import Hardware
from .checkpoint_errors import CheckpointDamaged, CheckpointMissing
from .checkpoint_files import read_whole, write_whole
from .checkpoint_folder import datastore_of, list_checkpoints, read_heads
from .checkpoint_reading import Resume, Skipped, prepare_resume

ORIGIN = "origin.json"
SHUT_DOWN = "shut-down"
INCOMING = "incoming.json"
_MOST_BYTES = 4096


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
    """resume: made ready, to be loaded; None: boot.  disks: where layers lie on the disks, the file of each.

    skipped: checkpoints that were passed over.
    """

    resume: Resume | None
    disks: dict[str, Path]
    skipped: tuple[Skipped, ...] = ()


def note_shut_down(folder: Path) -> None:
    """The guest ended by its own will, with all on its disks: the next reign boots. Raises OSError."""
    if folder.is_dir():
        write_whole(folder / SHUT_DOWN, b"")


def begin(
    folder: Path, hardware: Hardware, *, generation: int, host: str, at: str = "", run_lock: Path | None = None
) -> Beginning:
    """Decide how this reign begins, make that ready, and record it.

    at: the checkpoint, or its label, that an operator wants; '' for the rule above.
    Raises HardwareDiffers before anything is changed, and what `prepare_resume` raises; for damaged ones only where
    `at` names one.
    """
    if not folder.is_dir():
        return Beginning(None, {})
    booted = disks_now(folder)
    if at:
        return _resume(folder, hardware, generation, host, at, run_lock, [])
    skipped: list[Skipped] = []
    for name, problem in _candidates(folder):
        if problem:
            skipped.append(Skipped(name, problem))
            continue
        try:
            return _resume(folder, hardware, generation, host, name, run_lock, skipped)
        except (CheckpointDamaged, CheckpointMissing) as error:
            skipped.append(Skipped(name, error.cause or str(error)))
    _record(folder, Origin(generation))
    return Beginning(None, booted, tuple(skipped))


def disks_now(folder: Path) -> dict[str, Path]:
    """The file of each disk on which layers lie, by the disk's name. Raises CheckpointDamaged, OSError."""
    heads = read_heads(folder) if folder.is_dir() else None
    return {} if heads is None else {disk.name: datastore_of(folder) / disk.layers[-1].path for disk in heads.disks}


def note_incoming(folder: Path, host: str) -> dict[str, Path]:
    """As `disks_now`, and leave word of it: a host opened these layers to take the machine in. Raises OSError."""
    disks = disks_now(folder)
    if folder.is_dir():
        write_whole(folder / INCOMING, msgspec.json.encode(_Incoming(host, _texts(disks))))
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
    return said == _Incoming(host, _texts(disks_now(folder)))


def _texts(disks: dict[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in disks.items()}


def _resume(
    folder: Path,
    hardware: Hardware,
    generation: int,
    host: str,
    name: str,
    run_lock: Path | None,
    skipped: list[Skipped],
) -> Beginning:
    resume = prepare_resume(folder, hardware, generation=generation, host=host, name=name, run_lock=run_lock)
    _record(folder, Origin(generation, resume.checkpoint.name))
    return Beginning(resume, resume.disk_files(), tuple(skipped))


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
