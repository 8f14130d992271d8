"""Going on from a checkpoint: find the newest whole one, look at all of it, bring back its memory, devices and disks.

What an agent calls, in a thread or process that may block. The order is: refuse what this host cannot go on with before
anything is changed; verify; only then begin the new reign and make layers for the guest to write to, so that the
checkpoint itself stays as it is and can be resumed again. A damaged checkpoint is passed over, and said so.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from . import device_state
from .checkpoint import PAGE_BYTES, Checkpoint, DiskChain, Hardware, refusal
from .checkpoint_errors import CheckpointDamaged, CheckpointFailed, CheckpointMissing, HardwareDiffers
from .checkpoint_files import backing_name, disk_problem, layer_of, make_hole, open_file, read_state, sync_folder
from .checkpoint_folder import (
    Heads,
    Listed,
    begin_reign,
    chain_of,
    datastore_of,
    folder_of,
    free_layer,
    list_checkpoints,
    named,
    read_heads,
    read_manifest,
    write_heads,
)
from .checkpoint_pages import read_blocks
from .qmp_line import QmpLine, memory_file

__all__ = [
    "Heads", "Listed", "Resume", "Skipped", "fill_memory", "folder_of", "give_layers", "list_checkpoints",
    "load_devices", "make_layer", "named", "newest_whole", "prepare_resume", "read_heads", "verify",
]  # fmt: skip

MAKE_LAYER_S = 30.0
LOAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that was passed over, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """What a machine is started with, waiting for its state, before `fill_memory` and `load_devices`.

    disks:   for each disk its layers; the last one is new and is the file to give to QEMU.
    skipped: newer checkpoints that were not whole.
    """

    folder: Path
    checkpoint: Checkpoint
    disks: tuple[DiskChain, ...]
    skipped: tuple[Skipped, ...] = ()

    def disk_files(self) -> dict[str, Path]:
        """The file of each disk, by the disk's name; all are qcow2."""
        return {disk.name: datastore_of(self.folder) / disk.layers[-1].path for disk in self.disks}


def verify(folder: Path, name: str, progress: Callable[[int], None] = lambda size: None) -> Checkpoint:
    """Look at everything that a checkpoint consists of, its parents too, and return it. name: or its label.

    progress: is told how many bytes of memory were looked at since it was told last.
    Raises CheckpointMissing, or CheckpointDamaged with what is wrong.
    """
    try:
        name = named(folder, name)
        chain = chain_of(folder, name)
        for one in chain:
            _check_memory(folder, one, progress)
        checkpoint = chain[-1]
        read_state(folder / name, checkpoint.device)
        problem = next((found for disk in checkpoint.disks if (found := disk_problem(datastore_of(folder), disk))), "")
    except OSError as error:
        raise CheckpointDamaged(f"Checkpoint {name} cannot be read.", cause=str(error)) from error
    if problem:
        raise CheckpointDamaged(f"A disk of checkpoint {name} is not whole.", cause=problem)
    return checkpoint


def newest_whole(
    folder: Path, hardware: Hardware, progress: Callable[[int], None] = lambda size: None
) -> tuple[Checkpoint, list[Skipped]]:
    """The newest checkpoint that is whole, and the newer ones that are not, with reasons. Nothing is changed.

    hardware: what this host would make. Raises HardwareDiffers when the newest whole one was taken on another;
    CheckpointMissing when none is whole.
    """
    skipped: list[Skipped] = []
    for entry in list_checkpoints(folder):
        if entry.checkpoint is None:
            skipped.append(Skipped(entry.name, entry.problem))
            continue
        _refuse_hardware(entry.checkpoint, hardware)
        try:
            return verify(folder, entry.name, progress), skipped
        except (CheckpointDamaged, CheckpointMissing) as error:
            skipped.append(Skipped(entry.name, str(error)))
    raise CheckpointMissing(
        f"No whole checkpoint is in {folder}.",
        cause="; ".join(f"{one.name}: {one.reason}" for one in skipped[:5]),
    )


def prepare_resume(
    folder: Path,
    hardware: Hardware,
    *,
    generation: int,
    host: str,
    name: str | None = None,
    run_lock: Path | None = None,
    owner: tuple[int, int] | None = None,
    progress: Callable[[int], None] = lambda size: None,
) -> Resume:
    """Make everything ready for a new reign to go on from a checkpoint; the checkpoint itself stays as it is.

    name:  which, by its name or label; None: the newest whole one. A named one that is damaged is refused.
    owner: user and group that QEMU runs as here, who has to read all layers; None: as they are.
    Raises HardwareDiffers, CheckpointMissing, CheckpointDamaged (nothing was changed), GenerationOld, CheckpointFailed.
    """
    if name is None:
        checkpoint, skipped = newest_whole(folder, hardware, progress)
    else:
        name = named(folder, name)
        _refuse_hardware(read_manifest(folder, name), hardware)
        checkpoint, skipped = verify(folder, name, progress), []
    try:
        begin_reign(folder, generation, host, run_lock)
        if owner is not None:
            give_layers(folder, checkpoint.disks, owner)
        disks = [make_layer(folder, disk, owner) for disk in checkpoint.disks]
        write_heads(folder, generation, disks)
    except OSError as error:
        raise CheckpointFailed("The disks of a checkpoint could not be made ready.", cause=str(error)) from error
    return Resume(folder, checkpoint, tuple(disks), tuple(skipped))


def make_layer(folder: Path, disk: DiskChain, owner: tuple[int, int] | None = None) -> DiskChain:
    """Put a new, empty layer on a disk; return the chain with it. What is below is not written to any more.

    owner: user and group that QEMU runs as, for the new file; None: those of the disk's lowest layer.
    Raises CheckpointFailed, OSError.
    """
    datastore = datastore_of(folder)
    below = datastore / disk.layers[-1].path
    path = free_layer(folder, disk.name)
    words = ("-q", "-f", "qcow2", "-b", backing_name(path, below), "-F", disk.layers[-1].format)
    try:
        subprocess.run(
            ("qemu-img", "create", "-u", *words, str(path), str(disk.size_bytes)),
            check=True, capture_output=True, timeout=MAKE_LAYER_S, cwd="/",
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError) as error:
        output = getattr(error, "stderr", None) or b""
        raise CheckpointFailed(
            f"No layer could be put on disk {disk.name}.", cause=output.decode(errors="replace").strip() or str(error)
        ) from error
    lowest = (datastore / disk.layers[0].path).stat()
    path.chmod(0o600)
    os.chown(path, *(owner or (lowest.st_uid, lowest.st_gid)))
    fd = open_file(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(path.parent)
    return replace(disk, layers=(*disk.layers, layer_of(datastore, path, "qcow2")))


def give_layers(folder: Path, disks: Sequence[DiskChain], owner: tuple[int, int]) -> None:
    """Make all layers of disks those of a user and group, since hosts need not have the same ones. Raises OSError."""
    for path in {datastore_of(folder) / layer.path for disk in disks for layer in disk.layers}:
        found = path.stat()
        if (found.st_uid, found.st_gid) != owner:
            os.chown(path, *owner, follow_symlinks=False)


def fill_memory(resume: Resume, ram: Path, progress: Callable[[int], None] = lambda size: None) -> None:
    """Write the checkpoint's memory into the file that is, or will be, the guest's RAM and holds nothing else yet.

    QEMU may have it mapped, waiting; what its start left there goes.
    progress: is told how many pages were written since it was told last. Raises CheckpointDamaged, OSError.
    """
    size = resume.checkpoint.hardware.memory_mib * 1048576
    with ExitStack() as stack:
        into = os.open(ram, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, into)
        if os.fstat(into).st_size not in (0, size):
            raise CheckpointFailed(f"{ram} is not as large as the memory of the machine.")
        os.truncate(into, size)
        make_hole(into, size)
        for one in chain_of(resume.folder, resume.checkpoint.name):
            source = open_file(resume.folder / one.name / one.memory.name)
            stack.callback(os.close, source)
            for block in read_blocks(source, one.memory, size // PAGE_BYTES):
                _apply(into, block.data, block.content())
                for first, count in block.zeros:
                    _apply(into, [(first, count)], bytes(count * PAGE_BYTES))
                progress(sum(count for _, count in block.data))


def load_devices(qmp: QmpLine, resume: Resume) -> None:
    """Bring a waiting QEMU, whose RAM is filled, to the checkpoint's moment; it is not running yet. `cont` starts it.

    Raises CheckpointDamaged, QemuSilent, QemuRefused.
    """
    raw = read_state(resume.folder / resume.checkpoint.name, resume.checkpoint.device)
    descriptor = memory_file("state", raw)
    device_state.ignore_shared(qmp)
    try:
        qmp.run("getfd", {"fdname": "checkpoint"}, descriptors=[descriptor])
    finally:
        os.close(descriptor)
    qmp.run("migrate-incoming", {"uri": "fd:checkpoint"})
    qmp.wait(lambda: _arrived(qmp), within_s=LOAD_S, nap_s=0.001)


def _arrived(qmp: QmpLine) -> bool:
    if qmp.run("query-migrate").get("status") == "failed":
        raise CheckpointDamaged("QEMU does not accept the checkpoint's device state.")
    return bool(qmp.run("query-status")["status"] != "inmigrate")


def _refuse_hardware(checkpoint: Checkpoint, hardware: Hardware) -> None:
    reason = refusal(checkpoint.hardware, hardware)
    if reason:
        raise HardwareDiffers(
            f"Checkpoint {checkpoint.name} cannot be resumed on this host.",
            cause=reason,
            remedy="resume it on a host with the same QEMU and CPU model, or start the machine from its disks",
        )


def _check_memory(folder: Path, checkpoint: Checkpoint, progress: Callable[[int], None]) -> None:
    fd = open_file(folder / checkpoint.name / checkpoint.memory.name)
    try:
        for block in read_blocks(fd, checkpoint.memory, checkpoint.hardware.memory_mib * 1048576 // PAGE_BYTES):
            progress(len(block.payload))
    finally:
        os.close(fd)


def _apply(into: int, runs: Sequence[tuple[int, int]], content: bytes) -> None:
    view = memoryview(content)
    for first, count in runs:
        size = count * PAGE_BYTES
        offset = first * PAGE_BYTES
        while size:
            written = os.pwrite(into, view[:size], offset)
            view, size, offset = view[written:], size - written, offset + written
