"""Asking a scribe: starts it, sends requests, and gives it up when the datastore lets it wait too long.

For a thread that may block, each wait bounded by `silent_s`. A scribe that was given up is killed; while the kernel
still holds it, no other one is started, so that hung storage does not gather processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from outlive.errors import from_problem

from .checkpoint import Checkpoint, DiskChain, DiskLayer
from .checkpoint_errors import CheckpointFailed, GenerationOld, ScribeSilent
from .checkpoint_keeping import Keeping, Kept
from .checkpoint_pages import Run
from .checkpoint_scribe import LENGTHS, MOST_FRAME_BYTES, Opening, frame, pack_runs

SILENT_S = 20.0
END_S = 5.0
KILLED_S = 1.0

_left: "list[subprocess.Popen[bytes]]" = []
"""Scribes that were killed and that the kernel has not let go of."""


class Desk:
    """One scribe at work. Use it as a context manager; it ends with it."""

    def __init__(self, opening: Opening, *, silent_s: float = SILENT_S) -> None:
        """Start it. Raises ScribeSilent, GenerationOld; CheckpointFailed also while an earlier one is held."""
        _left[:] = [process for process in _left if process.poll() is None]
        if _left:
            raise CheckpointFailed("The datastore still holds what an earlier checkpoint wrote.")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-P", "-m", "outlive.replication.checkpoint_scribe"),
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._socket = ours
        self._socket.settimeout(silent_s)
        self._silent_s = silent_s
        self.written = 0
        try:
            self._ask(msgspec.to_builtins(opening))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The scribe, for whoever must know whether the kernel has let go of it."""
        return self._process

    def labelled(self, label: str) -> str:
        return str(self._ask({"call": "labelled", "label": label})["name"])

    def begin(self) -> tuple[str, int]:
        """Begin a checkpoint; return its name and sequence."""
        reply = self._ask({"call": "begin"})
        return str(reply["name"]), int(reply["sequence"])

    def layers(self, disks: Sequence[DiskChain]) -> list[DiskChain]:
        """New layers for these disks, recorded as what the guest writes to from now on."""
        reply = self._ask({"call": "layers", "disks": msgspec.to_builtins(disks)})
        return msgspec.convert(reply["disks"], list[DiskChain])

    def settle(self, disks: Sequence[DiskChain]) -> None:
        """Sync the files that the guest writes to."""
        self._ask({"call": "settle", "disks": msgspec.to_builtins(disks)})

    def heads(self, disks: Sequence[DiskChain]) -> None:
        self._ask({"call": "heads", "disks": msgspec.to_builtins(disks)})

    def copy(self, runs: Sequence[Run]) -> None:
        self._ask({"call": "copy"}, pack_runs(runs))

    def put(self, runs: Sequence[Run], content: bytes | memoryview) -> None:
        packed = pack_runs(runs)
        self._ask({"call": "put", "runs_bytes": len(packed)}, packed + bytes(content))

    def finish(self, told: dict[str, Any], state: bytes) -> Checkpoint:
        return msgspec.convert(self._ask({"call": "finish", "told": told}, state)["checkpoint"], Checkpoint)

    def abort(self) -> None:
        self._ask({"call": "abort"})

    def tidy(self, keeping: Keeping) -> Kept:
        reply = self._ask({"call": "tidy", "keeping": msgspec.to_builtins(keeping)})
        return msgspec.convert(reply["kept"], Kept)

    def mergeable(self, disks: Sequence[DiskChain]) -> dict[str, tuple[DiskLayer, ...]]:
        reply = self._ask({"call": "mergeable", "disks": msgspec.to_builtins(disks)})
        return msgspec.convert(reply["layers"], dict[str, tuple[DiskLayer, ...]])

    def note_merged(self, disk: str, layers: Sequence[DiskLayer]) -> None:
        self._ask({"call": "note_merged", "disk": disk, "layers": msgspec.to_builtins(layers)})

    def close(self) -> None:
        """End it; one that storage holds is left to the kernel."""
        self._socket.close()
        try:
            self._process.wait(END_S if self._silent_s > 0 else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(KILLED_S)
            except subprocess.TimeoutExpired:
                _left.append(self._process)

    def _ask(self, request: dict[str, Any], blob: bytes = b"", progress: Callable[[int], None] | None = None) -> Any:
        try:
            self._socket.sendall(frame(request, blob))
            while "progress" in (reply := self._reply()):
                if progress:
                    progress(int(reply["progress"]))
        except TimeoutError as error:
            self._silent_s = 0.0
            os.kill(self._process.pid, signal.SIGKILL)
            raise ScribeSilent(
                "The datastore does not take the checkpoint.", cause="it did not answer in time"
            ) from error
        except (OSError, EOFError, ValueError) as error:
            raise CheckpointFailed("The process that writes checkpoints ended.", cause=str(error)) from error
        if "error" in reply:
            found = from_problem(reply["error"])
            raise (GenerationOld if found.id == GenerationOld.id else CheckpointFailed)(
                found.sentence, cause=found.cause, remedy=found.remedy, id=found.id
            )
        return reply

    def _reply(self) -> dict[str, Any]:
        text_bytes, blob_bytes = LENGTHS.unpack(self._read(LENGTHS.size))
        if text_bytes + blob_bytes > MOST_FRAME_BYTES:
            raise EOFError("a reply beyond all bounds")
        reply = json.loads(self._read(text_bytes + blob_bytes)[:text_bytes])
        if not isinstance(reply, dict):
            raise EOFError("a reply that is none")
        return reply

    def _read(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            more = self._socket.recv(size - len(found))
            if not more:
                raise EOFError("it ended")
            found += more
        return bytes(found)
