"""A monitor connection of our own to QEMU: raw socket, one thread, commands written ahead of their answers.

The epoch loop needs two commands in one write and a reply within tens of microseconds, which an asyncio client does
not give. It is bounded and suspicious all the same: a line has a longest length, every wait a deadline, an answer that
belongs to no command is an error. Only one thread may use an object. What the commands do is known to the callers.
"""

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from outlive.errors import Failed
from outlive.replication.link import boot_s

MOST_LINE_BYTES = 4 << 20
MOST_EVENTS = 256
COMMAND_S = 10.0


class QemuSilent(Failed):
    """QEMU's monitor did not answer in time, or is gone."""

    id = "replication.qemu_silent"


class QemuRefused(Failed):
    """QEMU answered with an error."""

    id = "replication.qemu_refused"


class _Fault(msgspec.Struct, rename={"kind": "class"}):
    kind: str = ""
    desc: str = ""


class _Moment(msgspec.Struct):
    seconds: int = 0
    microseconds: int = 0


class Line(msgspec.Struct):
    greeting: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="QMP", default=msgspec.UNSET)
    answer: Any = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Fault | None = None
    event: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    timestamp: _Moment = msgspec.field(default_factory=_Moment)


_DECODER = msgspec.json.Decoder(Line)


def command(name: str, arguments: Mapping[str, object] | None = None) -> bytes:
    """The bytes of one command."""
    body: dict[str, object] = {"execute": name}
    if arguments:
        body["arguments"] = arguments
    return msgspec.json.encode(body) + b"\n"


class QmpLine:
    """A connection to one monitor. events: what QEMU told by itself, the oldest dropped beyond a bound.

    told_at: when QEMU last told an event of each name, in seconds on its host's clock of the day.
    """

    def __init__(self, path: str, *, within_s: float = COMMAND_S) -> None:
        """Connect and negotiate. Raises QemuSilent."""
        self.events: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MOST_EVENTS)
        self.told_at: dict[str, float] = {}
        self._buffer = bytearray()
        self._unanswered = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(within_s)
            self._socket.connect(path)
            self._socket.setblocking(False)
            greeting = self._line(boot_s() + within_s).greeting
            if greeting is msgspec.UNSET:
                raise QemuSilent("QEMU's monitor did not greet.")
            # QEMU takes a command in byte by byte, which is most of a millisecond for a long one. Only a monitor that
            # could also take urgent commands does so while it still works on the command before.
            urgent = ["oob"] if b'"oob"' in bytes(greeting) else []
            self.run("qmp_capabilities", {"enable": urgent}, within_s=within_s)
        except OSError as error:
            self._socket.close()
            raise QemuSilent("QEMU's monitor cannot be reached.", cause=str(error)) from error
        except Failed:
            self._socket.close()
            raise

    def run(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        descriptors: Sequence[int] = (),
        within_s: float = COMMAND_S,
    ) -> Any:
        """Give one command and return its answer, not one that was left unfetched. Raises QemuSilent, QemuRefused."""
        self.settle()
        self.write(command(name, arguments), 1, descriptors=descriptors)
        return self.answer(within_s=within_s)

    def write(self, commands: bytes, count: int, *, descriptors: Sequence[int] = ()) -> None:
        """Write `count` commands at once; each must be fetched with `answer`."""
        try:
            if descriptors:
                sent = socket.send_fds(self._socket, [commands], list(descriptors))
            else:
                sent = self._socket.send(commands)
        except OSError as error:
            raise QemuSilent("QEMU's monitor takes no commands.", cause=str(error)) from error
        if sent != len(commands):
            raise QemuSilent("QEMU's monitor takes no more commands.")
        self._unanswered += count

    def answer(self, *, within_s: float = COMMAND_S) -> Any:
        """The next command's answer. Raises QemuSilent, QemuRefused."""
        assert self._unanswered, "no command is unanswered"
        deadline = boot_s() + within_s
        while True:
            line = self._line(deadline)
            if line.event is not None:
                self._heard(line)
            elif line.error is not None:
                self._unanswered -= 1
                raise QemuRefused("QEMU refused a command.", cause=line.error.desc)
            elif line.answer is not msgspec.UNSET:
                self._unanswered -= 1
                return line.answer

    def settle(self) -> None:
        """Fetch the answers that nobody is going to fetch any more, whatever they are. Raises QemuSilent."""
        while self._unanswered:
            with suppress(QemuRefused):
                self.answer()

    def wait(self, done: Callable[[], bool], *, within_s: float, nap_s: float = 0.002) -> None:
        """Ask `done` again and again, which runs commands. Raises QemuSilent when it is not so in time."""
        deadline = boot_s() + within_s
        while not done():
            if boot_s() > deadline:
                raise QemuSilent("QEMU did not get there in time.", cause=f"{within_s:g} s")
            select.select([], [], [], nap_s)

    def saw(self, event: str) -> dict[str, Any] | None:
        """Take the oldest event of that name; None when there is none yet. Runs a harmless command to collect them."""
        self.run("query-status")
        for position, (name, data) in enumerate(self.events):
            if name == event:
                del self.events[position]
                return data
        return None

    def last_words(self) -> None:
        """Collect the events that a QEMU which is gone told before."""
        try:
            while True:
                line = self._line(boot_s())
                if line.event is not None:
                    self._heard(line)
        except QemuSilent:
            return

    def close(self) -> None:
        self._socket.close()

    def _heard(self, line: Line) -> None:
        assert line.event is not None
        self.events.append((line.event, line.data))
        self.told_at[line.event] = line.timestamp.seconds + line.timestamp.microseconds / 1e6

    def _line(self, deadline: float) -> Line:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MOST_LINE_BYTES:
                raise QemuSilent("QEMU's monitor said a line without end.")
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(max(0.0, deadline - boot_s()) * 1000):
                raise QemuSilent("QEMU's monitor does not answer.")
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise QemuSilent("QEMU's monitor broke off.", cause=str(error)) from error
            if not piece:
                raise QemuSilent("QEMU's monitor is gone.")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return read(line)


def read(line: bytes) -> Line:
    """What QEMU says on one line. Raises QemuSilent, and nothing else for any bytes."""
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise QemuSilent("QEMU's monitor said something that is not its language.", cause=str(error)) from error


def memory_file(name: str, content: bytes) -> int:
    """A descriptor of an anonymous file with that content, at its beginning, to be given to QEMU."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
