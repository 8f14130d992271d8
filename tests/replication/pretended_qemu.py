"""A monitor that answers as QEMU's does, in order, and keeps what it was told; nothing is behind it."""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

STATE = b"QEVM" + bytes(100)


class PretendedQemu:
    """Listens at a socket until closed. running: whether its guest would run. refuses: commands answered by an error.

    said: every command, in order. answering: commands that have a number are answered so many seconds later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running = True
        self.said: list[str] = []
        self.refuses: set[str] = set()
        self.answering: dict[str, float] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        # A manager that goes away may leave answers unread.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rwb") as lines:
            self._write(lines, {"QMP": {}})
            for line in lines:
                told = json.loads(line)
                name = told["execute"]
                self.said.append(name)
                time.sleep(self.answering.get(name, 0.0))
                if name in self.refuses:
                    self._write(lines, {"error": {"class": "GenericError", "desc": f"no {name}"}})
                else:
                    self._write(lines, {"return": self._done(lines, name, told.get("arguments", {}))})

    def _done(self, lines: Any, name: str, arguments: dict[str, Any]) -> object:
        match name:
            case "query-status":
                return {"running": self.running, "status": "running" if self.running else "paused"}
            case "query-cpus-fast":
                return [{"thread-id": os.getpid()}]
            case "stop" | "cont":
                if self.running is (name == "stop"):
                    self.running = name == "cont"
                    now = time.time()
                    moment = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
                    self._write(lines, {"event": "RESUME" if self.running else "STOP", "timestamp": moment})
            case "xen-save-devices-state":
                Path(arguments["filename"]).write_bytes(STATE)
        return {}

    def _write(self, lines: Any, said: dict[str, Any]) -> None:
        lines.write(json.dumps(said).encode() + b"\r\n")
        lines.flush()
