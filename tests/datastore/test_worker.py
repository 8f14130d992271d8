"""The worker is small and answers whatever it is asked."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import outlive
from outlive.datastore.folder import Folder
from outlive.datastore.worker import LENGTHS, MOST_FRAME_BYTES, frame, serve

SOURCE = str(Path(outlive.__file__).parent.parent)


class Agent:
    """The other end of a worker's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._replies = sock.makefile("rb")

    def ask(self, **request: Any) -> dict[str, Any]:
        self._sock.sendall(frame(request))
        text_bytes, blob_bytes = LENGTHS.unpack(self._replies.read(LENGTHS.size))
        reply: dict[str, Any] = msgspec.json.decode(self._replies.read(text_bytes))
        self._replies.read(blob_bytes)
        return reply

    def send(self, raw: bytes) -> None:
        self._sock.sendall(raw)

    def hears_the_end(self) -> bool:
        return self._replies.read(1) == b""

    def leave(self) -> None:
        self._replies.close()
        self._sock.close()


@pytest.fixture
def agent(folder: Path) -> Iterator[Agent]:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)

    def work() -> None:
        with theirs:
            serve(theirs, Folder(str(folder), "0123456789abcdef", "a"))

    worker = threading.Thread(target=work)
    worker.start()
    agent = Agent(ours)
    yield agent
    agent.leave()
    worker.join(60)
    assert not worker.is_alive()


def test_it_imports_nothing_but_itself_and_the_standard_library() -> None:
    program = (
        "import sys; sys.path.append(sys.argv[1]); import outlive.datastore.worker;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, SOURCE], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["__main__", "outlive"] or done.stdout.split() == ["outlive"]


def test_a_request_that_makes_no_sense_is_answered_and_the_next_one_served(agent: Agent) -> None:
    assert agent.ask(call="no such call")["trouble"] == "failed"
    assert agent.ask(call="read_slots")["trouble"] == "failed"
    assert agent.ask(call="ensure_data_folder", workload="../..")["trouble"] == "failed"
    assert agent.ask(call="read_slots", hosts=None) == {"slots": []}


def test_a_frame_beyond_all_bounds_ends_it(agent: Agent) -> None:
    agent.send(LENGTHS.pack(MOST_FRAME_BYTES, 1))
    assert agent.hears_the_end()


def test_it_ends_when_the_agent_is_gone(agent: Agent) -> None:
    assert "space" in agent.ask(call="space")
