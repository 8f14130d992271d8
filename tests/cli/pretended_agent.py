"""An agent's socket that answers as a test says, for what a real agent would take minutes to come to."""

import json
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Answer = tuple[int, Any]
"""A status, and a JSON object, bytes, or `Pieces`."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """An answer that comes piece by piece."""

    each: Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class PretendedAgent:
    """answer: says what a request gets, a status with a JSON object or with bytes.  asked: all requests so far."""

    socket: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)

    def of(self, method: str) -> list[Asked]:
        return [each for each in self.asked if each.method == method]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    agent: PretendedAgent


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *of_it: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, self.path, body)
        self.server.agent.asked.append(asked)
        status, told = self.server.agent.answer(asked)
        if isinstance(told, Pieces):
            self._stream(status, told)
            return
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(told, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, status: int, pieces: Pieces) -> None:
        self.send_response(status)
        for name, value in {"Transfer-Encoding": "chunked", **pieces.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            for piece in pieces.each:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_PUT = do_POST = do_DELETE = _answer


@contextmanager
def pretended(answer: Callable[[Asked], Answer]) -> Iterator[PretendedAgent]:
    """An agent that answers so, while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        agent = PretendedAgent(str(Path(folder) / "api.sock"), answer)
        with _Server(agent.socket, _Handler) as server:
            server.agent = agent
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield agent
            finally:
                server.shutdown()
                thread.join()


def problem(status: int, id: str, title: str, exit_code: int = 1) -> Answer:
    """What an agent answers that refuses."""
    return status, {"id": id, "title": title, "detail": "because", "remedy": "do so", "exit_code": exit_code}
