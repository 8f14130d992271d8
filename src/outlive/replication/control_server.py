"""The manager's end of the control conversation: one thread that listens to the agent and never waits for it.

An agent that does not read is cut off, and told a fresh `Status` when it comes again. Commands wait in a bounded queue
until the thread that owns the machine takes them. What is said is in `control`.
"""

import contextlib
import os
import queue
import select
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from outlive.replication.control import (
    MOST_LINE_BYTES,
    AskStatus,
    Command,
    Event,
    Refused,
    Status,
    decode_command,
    encode,
)

MOST_COMMANDS = 64
MOST_UNSENT_BYTES = 1 << 20
_NEVER = 3600.0

_log = structlog.get_logger()


class Wake:
    """Something that a select can wait for and any thread can set off."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Given back only once nobody can set it off any more: the number may be another file's by then.
        weakref.finalize(self, os.close, self._descriptor).atexit = False

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def wait(self, within_s: float) -> bool:
        """Wait until it is set; clears it."""
        ready = bool(select.select([self._descriptor], [], [], max(0.0, within_s))[0])
        self.clear()
        return ready


class ControlServer:
    """Listens at a socket. status: asked for what to tell first; called in the server's thread, must not block.

    wake: set off whenever a command waits.
    """

    def __init__(self, path: Path, status: Callable[[], Status], wake: Wake) -> None:
        self._path = path
        self._status = status
        self._wake = wake
        self._commands: queue.Queue[Command] = queue.Queue(MOST_COMMANDS)
        self._outbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._poke = Wake()
        self._ended = threading.Event()
        self._agent: socket.socket | None = None
        self._unread = bytearray()
        self._unsent = bytearray()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(4)
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def command(self) -> Command | None:
        """The next command; None when there is none. For the one thread that carries them out."""
        try:
            return self._commands.get_nowait()
        except queue.Empty:
            return None

    def tell(self, event: Event) -> None:
        """Tell the agent, if one listens. From any thread; never blocks."""
        self._outbox.put(event)
        self._poke.set()

    def close(self) -> None:
        """Say what is still to be said, as far as it goes without waiting, and end."""
        self._ended.set()
        self._poke.set()
        self._thread.join(2.0)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            ending = self._ended.is_set()
            readers: list[Any] = [self._listener, self._poke]
            writers: list[Any] = []
            if self._agent is not None:
                readers.append(self._agent)
                if self._unsent:
                    writers.append(self._agent)
            select.select(readers, writers, [], 0.0 if ending else _NEVER)
            self._poke.clear()
            self._welcome()
            self._say()
            self._listen()
            if ending:
                self._drop()
                return

    def _welcome(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            agent, _ = self._listener.accept()
            self._drop()
            agent.setblocking(False)
            self._agent = agent
            while not self._outbox.empty():  # the status says where we stand now
                self._outbox.get()
            self._unsent += encode(self._status())

    def _say(self) -> None:
        while not self._outbox.empty():
            self._unsent += encode(self._outbox.get())
        if self._agent is None:
            self._unsent.clear()
            return
        if len(self._unsent) > MOST_UNSENT_BYTES:
            _log.warning("control.agent_dropped", because="it does not read")
            self._drop()
            return
        try:
            while self._unsent:
                del self._unsent[: self._agent.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._drop()

    def _listen(self) -> None:
        if self._agent is None:
            return
        try:
            piece = self._agent.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop()
            return
        self._unread += piece
        while (end := self._unread.find(b"\n")) >= 0:
            line = bytes(self._unread[:end])
            del self._unread[: end + 1]
            self._take(line)
        if len(self._unread) > MOST_LINE_BYTES:
            self._drop()

    def _take(self, line: bytes) -> None:
        try:
            command = decode_command(line)
        except msgspec.DecodeError as error:
            self._outbox.put(Refused("", f"it is no command: {error}"))
            self._poke.set()
            return
        if isinstance(command, AskStatus):
            self._outbox.put(self._status())
            self._poke.set()
            return
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            self._outbox.put(Refused(type(command).__name__, "too many commands wait already"))
            self._poke.set()
        self._wake.set()

    def _drop(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        self._unread.clear()
        self._unsent.clear()
