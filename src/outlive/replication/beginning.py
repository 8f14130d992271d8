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

from .checkpoint import Hardware, order_of
from .checkpoint_errors import CheckpointDamaged, CheckpointMissing
from .checkpoint_files import read_whole, write_whole
from .checkpoint_folder import Listed, datastore_of, list_checkpoints, read_heads
from .checkpoint_reading import Skipped, give_layers, prepare_resume

ORIGIN = "origin.json"
SHUT_DOWN = "shut-down"
INCOMING = "incoming.json"
_MOST_BYTES = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """How the guest began that ran here last.

    line:   the checkpoints that it has come through, oldest first: it went on from the last; () when it was booted.
    newest: the newest checkpoint there was then; those between are of another course of things.
    """

    generation: int
    line: tuple[str, ...] = ()
    newest: str = ""


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
        _record(folder, generation, _line_to(folder, ready.checkpoint.name))
        files = {disk: str(path) for disk, path in ready.disk_files().items()}
        return Beginning(ready.checkpoint.name, files, tuple(skipped))

    skipped: list[Skipped] = []
    if at:
        return resumed(at)
    for entry in _candidates(folder):
        if entry.problem:
            skipped.append(Skipped(entry.name, entry.problem))
            continue
        try:
            return resumed(entry.name)
        except (CheckpointDamaged, CheckpointMissing) as error:
            skipped.append(Skipped(entry.name, error.cause or str(error)))
    heads = read_heads(folder)
    if heads is not None and owner is not None:
        give_layers(folder, heads.disks, owner)
    _record(folder, generation, ())
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


def _record(folder: Path, generation: int, line: tuple[str, ...]) -> None:
    newest = next((entry.name for entry in list_checkpoints(folder)), "")
    write_whole(folder / ORIGIN, msgspec.json.encode(Origin(generation, line, newest)))
    (folder / SHUT_DOWN).unlink(missing_ok=True)


def _line_to(folder: Path, name: str) -> tuple[str, ...]:
    """The checkpoints that a guest has come through that goes on from this one, oldest first."""
    try:
        line = sorted(entry.name for entry in _candidates(folder) if entry.name <= name)
    except CheckpointDamaged:
        line = []
    return tuple(line) if name in line else (name,)


def _candidates(folder: Path) -> list[Listed]:
    """The checkpoints that may be gone on from, the newest first. Raises CheckpointDamaged, OSError."""
    if (folder / SHUT_DOWN).exists():
        return []
    origin = read_origin(folder)
    if origin is None:
        return list_checkpoints(folder)

    def since(name: str) -> bool:
        # A manifest that cannot be read does not say of which reign it is; its name does.
        order = order_of(name)
        return order is not None and order[0] >= origin.generation and name > origin.newest

    return [entry for entry in list_checkpoints(folder) if entry.name in origin.line or since(entry.name)]


def read_origin(folder: Path) -> Origin | None:
    """How the guest began that ran here last; None when that was not recorded. Raises CheckpointDamaged, OSError."""
    raw = read_whole(folder / ORIGIN, _MOST_BYTES)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Origin)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointDamaged(
            f"{folder / ORIGIN} cannot be read, so what the guest has come through is not known.",
            cause=str(error),
            remedy="choose the checkpoint to begin from",
        ) from error
