"""One worker process as the agent holds it: started, asked, abandoned.

What the agent may ask and how long it waits is decided in `datastore`. A worker that was abandoned is killed; if
it is stuck in the kernel it dies when the kernel lets go of it, and is reaped then. Until it is reaped its process
id cannot belong to another process, so that a signal never hits a stranger.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

import outlive

from .worker import BOOTSTRAP, LENGTHS, MOST_FRAME_BYTES, frame


class Reply(msgspec.Struct):
    """A worker's answer. `trouble` is empty when it did what it was asked."""

    trouble: str = ""
    cause: str = ""
    present: bool = False
    text: str = ""
    space: dict[str, int] = {}
    slots: list[tuple[str, int, str]] = []
    blob: bytes = b""


class WorkerEnded(Exception):
    """The worker ended, or said something that no worker says."""


class WorkerProcess:
    """A started worker for the datastore at `path`. It opens nothing there before it is asked to.

    Its methods are for the one task that owns it. Making it raises OSError when no process can be started.
    """

    def __init__(self, path: Path, cluster: str, host: str) -> None:
        self._sock, theirs = socket.socketpair()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        root = str(Path(outlive.__file__).parent.parent)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", BOOTSTRAP, root, str(path), cluster, host],
                {"LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                ],
                setsid=True,  # a terminal's Ctrl-C is for the agent, which then ends the worker
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM],
            )
        except BaseException:
            self._sock.close()
            raise
        finally:
            theirs.close()

    async def ask(self, request: dict[str, Any], blob: bytes) -> Reply:
        """One request, one reply. Raises WorkerEnded. After a cancellation only `abandon` may be called."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(sock=self._sock)
            reader, writer = self._streams
            writer.write(frame(request, blob))
            await writer.drain()
            text_bytes, blob_bytes = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
            if text_bytes + blob_bytes > MOST_FRAME_BYTES:
                raise WorkerEnded(f"a reply of {text_bytes + blob_bytes} bytes")
            reply = msgspec.json.decode(await reader.readexactly(text_bytes), type=Reply)
            reply.blob = await reader.readexactly(blob_bytes)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise WorkerEnded(str(error)) from error
        return reply

    def abandon(self) -> None:
        """Kill it and speak to it no more; `reaped` says when it is gone."""
        if self._streams is None:
            self._sock.close()
        else:
            self._streams[1].transport.abort()
        os.kill(self.pid, signal.SIGKILL)

    def reaped(self) -> bool:
        """Whether the kernel has let go of it. Call it until it is true."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        except ChildProcessError:
            return True
