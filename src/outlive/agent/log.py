"""Where the agent's own words go: JSON lines in rotated files, readable lines on the terminal.

Every line is written by one thread of its own, because a full disk or a terminal that nobody reads must not
stop the loop; lines that cannot be written are counted, dropped and owned up to. What is said is chosen by
whoever says it; here nothing is interpreted.
"""

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from queue import Full, Queue
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

MOST_BYTES = 8 * 1024 * 1024
FILES_KEPT = 4
LINES_WAITING = 20_000
CLOSED_WITHIN_S = 2.0


class LineFile:
    """Lines for one file, written by a thread in the order they came and rotated by size.

    path None: to `terminal` instead. `add` never blocks and never raises.
    """

    def __init__(
        self,
        path: Path | None,
        terminal: TextIO | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        files_kept: int = FILES_KEPT,
    ) -> None:
        self.path = path
        self.dropped = 0
        self._terminal = terminal
        self._most_bytes = most_bytes
        self._files_kept = files_kept
        self._waiting: Queue[bytes | None] = Queue(LINES_WAITING)
        self._thread = threading.Thread(target=self._write_all, name=f"lines {path or 'terminal'}", daemon=True)
        self._thread.start()

    def add(self, line: bytes) -> None:
        """Hand over one line, without its newline."""
        try:
            self._waiting.put_nowait(line)
        except Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, as far as that goes within CLOSED_WITHIN_S, and end the thread."""
        try:
            self._waiting.put(None, timeout=CLOSED_WITHIN_S)
        except Full:
            return
        self._thread.join(CLOSED_WITHIN_S)

    def _write_all(self) -> None:
        descriptor = -1
        while (line := self._waiting.get()) is not None:
            try:
                if self.path is None:
                    self._on_terminal(line)
                    continue
                if descriptor < 0:
                    descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                os.write(descriptor, line + b"\n")
                if os.lseek(descriptor, 0, os.SEEK_CUR) > self._most_bytes:
                    os.close(descriptor)
                    descriptor = -1
                    self._rotate(self.path)
            except (OSError, ValueError):
                self.dropped += 1
        if descriptor >= 0:
            os.close(descriptor)

    def _on_terminal(self, line: bytes) -> None:
        if self._terminal is not None:
            self._terminal.write(line.decode(errors="replace") + "\n")
            self._terminal.flush()

    def _rotate(self, path: Path) -> None:
        for number in range(self._files_kept - 1, 0, -1):
            older = rotated(path, number)
            if older.exists():
                older.replace(rotated(path, number + 1))
        path.replace(rotated(path, 1))


def rotated(path: Path, number: int) -> Path:
    """The name of the `number`-th older file beside `path`."""
    return path.with_name(f"{path.name}.{number}")


def stamped(unix_s: float) -> str:
    """A moment as RFC 3339 with milliseconds, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AgentLog:
    """The process's log for as long as it is open: configures structlog to write here."""

    def __init__(self, folder: Path, host: str, *, terminal: TextIO | None = None) -> None:
        self._host = host
        self._file = LineFile(folder / "agent.log")
        stream = sys.stderr if terminal is None else terminal
        self._terminal = LineFile(None, stream)
        colours = stream.isatty() and "NO_COLOR" not in os.environ
        self._render = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=24, sort_keys=False)
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                self._emit,
            ],
            wrapper_class=structlog.make_filtering_bound_logger("info"),
            cache_logger_on_first_use=False,
        )

    def close(self) -> None:
        """Write what waits and let structlog go back to its defaults."""
        structlog.reset_defaults()
        self._file.close()
        self._terminal.close()

    def _emit(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        now = stamped(datetime.now(UTC).timestamp())
        line = {"time": now, "host": self._host, **event}
        self._file.add(msgspec.json.encode(line, enc_hook=str))
        self._terminal.add(str(self._render(None, "", {"timestamp": now[11:23], **event})).encode())
        raise structlog.DropEvent
