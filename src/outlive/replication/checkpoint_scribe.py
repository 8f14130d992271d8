"""The process that writes checkpoints to the datastore, one for each checkpoint, and can be left behind.

A system call on hung storage cannot be interrupted; a process can be abandoned. So whoever stops the guest never
touches the datastore itself: it asks this one over a socket, and gives it up when it is silent. What was begun then
has no manifest, and the next scribe of the reign removes it. Requests are answered in order; `progress` frames come
before an answer that takes long. A frame: two lengths (network order, 4 bytes each), a JSON object, raw bytes.
"""

import json
import os
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from outlive.errors import OutliveError

from . import checkpoint_folder as folders
from . import checkpoint_keeping as keeping
from .checkpoint import MANIFEST, PAGE_BYTES, Checkpoint, DiskChain, DiskLayer
from .checkpoint_errors import CheckpointFailed
from .checkpoint_files import make_file, open_file, remove_tree, write_state
from .checkpoint_pages import PageWriter, Run, pieces
from .checkpoint_reading import make_layer

LENGTHS = struct.Struct(">II")
MOST_FRAME_BYTES = 256 << 20
PROGRESS_S = 0.25
NICE = 5
MEMORY = "memory.pages"
DEVICE = "device.state"


class Opening(msgspec.Struct, frozen=True):
    """What a scribe is told first. ram: the path of the guest's RAM. mib_s: the most it copies a second, if any."""

    folder: str
    generation: int
    host: str
    ram: str
    run_lock: str | None = None
    mib_s: float | None = None
    owner: tuple[int, int] | None = None


def frame(header: dict[str, Any], blob: bytes | memoryview = b"") -> bytes:
    """One frame's bytes."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(blob)) + text + bytes(blob)


def pack_runs(runs: Sequence[Run]) -> bytes:
    """Runs as bytes."""
    return array("I", [number for run in runs for number in run]).tobytes()


def unpack_runs(raw: bytes) -> list[Run]:
    """Runs from bytes."""
    numbers = array("I", raw)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


class Scribe:
    """What one scribe holds open, and a method for each request."""

    def __init__(self, opening: Opening, say: Callable[[int], None]) -> None:
        self._told = opening
        self._folder = Path(opening.folder)
        self._lock = Path(opening.run_lock) if opening.run_lock else None
        self._ram = os.open(opening.ram, os.O_RDONLY | os.O_CLOEXEC)
        self._say = say
        self._name = ""
        self._fd = -1
        self._writer: PageWriter | None = None
        folders.begin_reign(self._folder, opening.generation, opening.host, self._lock)
        keeping.sweep(self._folder)

    def labelled(self, label: str) -> str:
        """The name of the whole checkpoint with that label, '' for none."""
        listed = folders.list_checkpoints(self._folder)
        return next((one.name for one in listed if one.checkpoint and one.checkpoint.label == label), "")

    def begin(self) -> dict[str, Any]:
        self._name, sequence = folders.begin(self._folder, self._told.generation)
        self._fd = make_file(self._folder / self._name / MEMORY)
        self._writer = PageWriter(self._fd)
        return {"name": self._name, "sequence": sequence}

    def layers(self, disks: Sequence[DiskChain]) -> dict[str, Any]:
        """Put a new layer on each disk, and say that the guest writes to these; it does not yet."""
        made = [make_layer(self._folder, disk, self._told.owner) for disk in disks]
        folders.write_heads(self._folder, self._told.generation, made)
        return {"disks": msgspec.to_builtins(made)}

    def settle(self, disks: Sequence[DiskChain]) -> dict[str, Any]:
        """Sync the files that the guest writes to, which QEMU would do while the guest stands."""
        for disk in disks:
            fd = open_file(folders.datastore_of(self._folder) / disk.layers[-1].path)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        return {}

    def heads(self, disks: Sequence[DiskChain]) -> dict[str, Any]:
        """Say what the guest writes to."""
        folders.write_heads(self._folder, self._told.generation, disks)
        return {}

    def copy(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Write pages as they are in the guest's RAM now; it may be writing to them."""
        for piece in pieces(runs):
            begun = time.monotonic()
            content = b"".join(os.pread(self._ram, count * PAGE_BYTES, first * PAGE_BYTES) for first, count in piece)
            self._append(piece, content)
            self._say(len(content))
            if self._told.mib_s:
                time.sleep(max(0.0, len(content) / (self._told.mib_s * 1048576) - (time.monotonic() - begun)))
        return {}

    def put(self, runs: Sequence[Run], content: memoryview) -> dict[str, Any]:
        """Write pages as they were at the cut."""
        at = 0
        for piece in pieces(runs):
            size = sum(count for _, count in piece) * PAGE_BYTES
            self._append(piece, content[at : at + size])
            at += size
            self._say(size)
        return {}

    def finish(self, told: dict[str, Any], state: bytes) -> dict[str, Any]:
        """Sync everything and make the checkpoint whole. told: what of it is not known here."""
        assert self._writer is not None
        own = self._folder / self._name
        memory = self._writer.finish(MEMORY)
        os.fsync(self._fd)
        self._say(0)
        device = write_state(own / DEVICE, state)
        checkpoint = msgspec.convert(
            {**told, "name": self._name, "memory": msgspec.to_builtins(memory), "device": msgspec.to_builtins(device)},
            Checkpoint,
        )
        folders.commit(self._folder, checkpoint, self._lock)
        return {"checkpoint": msgspec.to_builtins(checkpoint)}

    def abort(self) -> dict[str, Any]:
        """Remove what was begun and is not whole."""
        if self._name and not (self._folder / self._name / MANIFEST).exists():
            remove_tree(self._folder / self._name)
        self._name = ""
        return {}

    def tidy(self, keep: keeping.Keeping) -> dict[str, Any]:
        done = keeping.tidy(self._folder, self._told.generation, keep, lambda: self._say(0))
        return {"kept": msgspec.to_builtins(done)}

    def mergeable(self, disks: Sequence[DiskChain]) -> dict[str, Any]:
        return {"layers": msgspec.to_builtins(keeping.mergeable(self._folder, disks))}

    def note_merged(self, disk: str, layers: Sequence[DiskLayer]) -> dict[str, Any]:
        keeping.note_merged(self._folder, self._told.generation, disk, layers)
        return {}

    def _append(self, runs: Sequence[Run], content: bytes | memoryview) -> None:
        if self._writer is None:
            raise CheckpointFailed("Pages came before a checkpoint was begun.")
        self._writer.append(runs, content)


def perform(scribe: Scribe, request: dict[str, Any], blob: bytes) -> dict[str, Any]:
    """Do what one request asks. Raises OutliveError, OSError."""
    disks = msgspec.convert(request.get("disks", []), list[DiskChain])
    runs_bytes = int(request.get("runs_bytes", 0))
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "labelled": lambda: {"name": scribe.labelled(request["label"])},
        "begin": scribe.begin,
        "layers": lambda: scribe.layers(disks),
        "settle": lambda: scribe.settle(disks),
        "heads": lambda: scribe.heads(disks),
        "copy": lambda: scribe.copy(unpack_runs(blob)),
        "put": lambda: scribe.put(unpack_runs(blob[:runs_bytes]), memoryview(blob)[runs_bytes:]),
        "finish": lambda: scribe.finish(request["told"], blob),
        "abort": scribe.abort,
        "tidy": lambda: scribe.tidy(msgspec.convert(request["keeping"], keeping.Keeping)),
        "mergeable": lambda: scribe.mergeable(disks),
        "note_merged": lambda: scribe.note_merged(
            request["disk"], msgspec.convert(request["layers"], tuple[DiskLayer, ...])
        ),
    }
    return calls[request["call"]]()


def serve(sock: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    scribe: Scribe | None = None
    told_at = 0.0

    def say(size: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > PROGRESS_S:
            told_at = time.monotonic()
            sock.sendall(frame({"progress": size}))

    with sock.makefile("rb") as requests:
        while len(lengths := requests.read(LENGTHS.size)) == LENGTHS.size:
            text_bytes, blob_bytes = LENGTHS.unpack(lengths)
            if text_bytes + blob_bytes > MOST_FRAME_BYTES:
                return
            request, blob = json.loads(requests.read(text_bytes)), requests.read(blob_bytes)
            try:
                if scribe is None:
                    scribe = Scribe(msgspec.convert(request, Opening), say)
                    reply: dict[str, Any] = {}
                else:
                    reply = perform(scribe, request, blob)
            except OutliveError as error:
                reply = {"error": error.problem()}
            except Exception as error:  # the keeper must hear of it, whatever it is
                reply = {"error": CheckpointFailed("The datastore took no checkpoint.", cause=repr(error)).problem()}
            sock.sendall(frame(reply))


def main() -> None:
    """Standard input is the socket."""
    os.chdir("/")  # so that no mount is kept busy
    os.umask(0o077)
    os.nice(NICE)
    try:
        serve(socket.socket(fileno=0))
    except (OSError, ValueError, EOFError):
        sys.exit(0)  # the keeper is gone, in the middle of a frame


if __name__ == "__main__":
    main()
