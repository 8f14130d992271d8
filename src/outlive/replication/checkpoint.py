"""A checkpoint as values: the hardware, the memory and the disks of a machine at one moment.

What stands in a `manifest.json`, how it is read with suspicion, and which hardware may go on with it. No file is
opened here. The invariant: a manifest that `unpack` accepts names nothing outside of the workload's folder but disk
files inside the same datastore, and everything in it is within bounds.
"""

import hashlib
import re
from dataclasses import dataclass, replace

import msgspec

from outlive.cluster.host import NAME

from .checkpoint_errors import CheckpointDamaged

FORMAT = 1
MANIFEST = "manifest.json"
MOST_MANIFEST_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 4096
MOST_MEMORY_MIB = 16 * 1024 * 1024
MOST_CHAIN = 1024
MOST_DISKS = 64

_NAME = re.compile(r"g([0-9]{20})-([0-9]{10})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[a-z][a-z0-9-]{0,40}\.(pages|state)")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,200}")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What must be the same for a guest to go on: anything that it, or the emulator's saved state, can tell apart.

    emulator: QEMU's version.   machine: the exact board as in pc-q35-7.2.   accelerator: tcg or kvm.
    devices:  the words of the command line that make devices, in order, without the paths and ids of one host.
    """

    emulator: str
    machine: str
    cpu_model: str
    accelerator: str
    cpus: int
    memory_mib: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a checkpoint. digest: BLAKE2b in hex, of all its bytes (state) or of its blocks' digests (pages).

    blocks, pages, zero_pages: 0 for the device state.
    """

    name: str
    bytes: int
    digest: str
    blocks: int = 0
    pages: int = 0
    zero_pages: int = 0


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """One file of a disk's chain. path: below the datastore's folder, with slashes."""

    path: str
    format: str


@dataclass(frozen=True, slots=True)
class DiskChain:
    """A disk at the cut: its layers from the bottom up, none written since. size_bytes: as the guest has it."""

    name: str
    size_bytes: int
    layers: tuple[DiskLayer, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint, as its manifest tells it.

    name:     its folder's; names sort by generation, then sequence.
    parent:   the checkpoint whose memory this one's changes; None: it is a base and needs no other.
    created_unix_s: by the writing host's clock, for people; nothing is decided by it.
    reason:   interval, request, or what else asked for it.
    label:    the name that a person gave it; '' for none.
    """

    format: int
    workload: str
    name: str
    generation: int
    sequence: int
    parent: str | None
    host: str
    created_unix_s: float
    reason: str
    hardware: Hardware
    memory: DataFile
    device: DataFile
    disks: tuple[DiskChain, ...] = ()
    pause_ms: float = 0.0
    label: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """What is newer is greater."""
        return self.generation, self.sequence

    @property
    def bytes(self) -> int:
        """How much it takes on the datastore beside what its parents take; disks left out."""
        return self.memory.bytes + self.device.bytes

    def rebased(self, memory: DataFile) -> "Checkpoint":
        """The same moment with all of its memory in one file."""
        return replace(self, parent=None, memory=memory)


def name_of(generation: int, sequence: int) -> str:
    """The folder's name. ValueError when a number does not fit."""
    name = f"g{generation:020d}-{sequence:010d}"
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"no checkpoint can have generation {generation} and sequence {sequence}")
    return name


def order_of(name: str) -> tuple[int, int] | None:
    """Generation and sequence of a folder's name; None when it is not one of a checkpoint."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def is_label(text: str) -> bool:
    """Whether a person may call a checkpoint so. What looks like the name of a folder is none."""
    return _PART.fullmatch(text) is not None and order_of(text) is None


def pack(checkpoint: Checkpoint) -> bytes:
    """The manifest's bytes: JSON, so that a person can read it, and a checksum of all but itself."""
    problem = _problem_of(checkpoint, checkpoint.name)
    if problem:
        raise ValueError(problem)
    text = msgspec.json.encode(checkpoint)
    return msgspec.json.format(msgspec.json.encode(_File(_checksum(text), checkpoint)), indent=1) + b"\n"


def unpack(raw: bytes, name: str) -> Checkpoint:
    """Read the manifest of the checkpoint in the folder `name`. Raises CheckpointDamaged and nothing else."""
    try:
        if len(raw) > MOST_MANIFEST_BYTES:
            raise ValueError(f"more than {MOST_MANIFEST_BYTES} bytes")
        file = msgspec.json.decode(raw, type=_File)
        if file.checkpoint.format != FORMAT:
            raise ValueError(f"it has format {file.checkpoint.format}, this host knows {FORMAT}")
        if file.checksum != _checksum(msgspec.json.encode(file.checkpoint)):
            raise ValueError("its checksum does not hold")
        problem = _problem_of(file.checkpoint, name)
        if problem:
            raise ValueError(problem)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise CheckpointDamaged(f"The manifest of checkpoint {name} cannot be believed.", cause=str(error)) from error
    return file.checkpoint


def refusal(taken_on: Hardware, here: Hardware) -> str:
    """Why a checkpoint taken on one hardware cannot go on with another; '' when it can."""
    said = {
        "emulator": "QEMU's version",
        "machine": "the machine's version",
        "cpu_model": "the CPU model",
        "accelerator": "the accelerator",
        "cpus": "the number of CPUs",
        "memory_mib": "the memory in MiB",
    }
    for field, words in said.items():
        then, now = getattr(taken_on, field), getattr(here, field)
        if then != now:
            return f"{words} was {then} when it was taken and is {now} here"
    if taken_on.devices != here.devices:
        gone = [device for device in taken_on.devices if device not in here.devices]
        come = [device for device in here.devices if device not in taken_on.devices]
        return f"its devices differ: {gone or 'none'} then, {come or 'none'} here, or their order"
    return ""


@dataclass(frozen=True, slots=True)
class _File:
    checksum: str
    checkpoint: Checkpoint


def _checksum(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _problem_of(told: Checkpoint, name: str) -> str:
    """What makes a manifest unbelievable although it is well-formed; '' for nothing."""
    if told.name != name or order_of(told.name) != told.order or told.generation < 1 or told.sequence < 1:
        return "it is the manifest of another folder"
    if not NAME.fullmatch(told.workload):
        return "its workload cannot be one"
    if told.label and not is_label(told.label):
        return "its label cannot be one"
    above = order_of(told.parent) if told.parent is not None else (0, 0)
    if above is None or above >= told.order:
        return "its parent is no older checkpoint"
    if not 0 < told.hardware.memory_mib <= MOST_MEMORY_MIB or not 0 < told.hardware.cpus <= 4096:
        return "no machine has so much memory or so many CPUs"
    for file, ending in ((told.memory, ".pages"), (told.device, ".state")):
        if not _FILE.fullmatch(file.name) or not file.name.endswith(ending) or not _DIGEST.fullmatch(file.digest):
            return f"{file.name[:80]!r} cannot be a file of it"
        if min(file.bytes, file.blocks, file.pages, file.zero_pages) < 0:
            return f"{file.name} has a size below nothing"
    if max(told.memory.pages, told.memory.zero_pages) > told.hardware.memory_mib * 256 * 64:
        return "it has more pages than the machine could have written"
    if len(told.disks) > MOST_DISKS or len({disk.name for disk in told.disks}) != len(told.disks):
        return "it has too many disks, or one twice"
    return next((found for disk in told.disks if (found := disk_problem(disk))), "")


def disk_problem(disk: DiskChain) -> str:
    """What makes a disk of a manifest unbelievable; '' for nothing. Its files are not looked at."""
    if not _PART.fullmatch(disk.name) or disk.size_bytes < 0:
        return f"{disk.name[:80]!r} cannot be a disk"
    if not 0 < len(disk.layers) <= MOST_CHAIN:
        return f"disk {disk.name} has a chain of {len(disk.layers)} layers"
    for layer in disk.layers:
        if not is_inside(layer.path) or layer.format not in ("raw", "qcow2"):
            return f"disk {disk.name} has a layer that cannot be: {layer.path[:120]!r}"
    return ""


def is_inside(path: str) -> bool:
    """Whether a path of a manifest surely stays inside of the folder that it is below."""
    return 0 < len(path) <= 1000 and all(_PART.fullmatch(part) for part in path.split("/"))
