"""A host takes some pushes at once, tells others to come again, and takes those then."""

import io
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from outlive.agent.package_uploads import MOST_UPLOADS
from outlive.client.connection import Answered
from outlive.depot.archive import build_archive

from ..depot.package_scene import source
from ..one_host import OneHost, until

HEAD = b"POST /v1/packages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def half_a_push(one_host: OneHost, archive: bytes) -> socket.socket:
    """A push that goes no further."""
    talk = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    talk.connect(one_host.socket)
    half = archive[: len(archive) // 2]
    talk.sendall(HEAD + f"{len(half):x}\r\n".encode() + half + b"\r\n")
    return talk


def test_pushes_beyond_the_most_are_told_to_come_again_and_taken_then(one_host: OneHost, tmp_path: Path) -> None:
    target = io.BytesIO()
    build_archive(source(tmp_path, "crowd"), target)
    archive, refusals = target.getvalue(), list[Answered]()

    def refused() -> bool:
        try:
            one_host.client.upload("/v1/packages", [archive])
        except Answered as error:
            refusals.append(error)
            return True
        return False

    with ExitStack() as stack:
        for _ in range(MOST_UPLOADS):
            stack.enter_context(half_a_push(one_host, archive))
        until(refused, "one more is refused")
        assert (refusals[-1].id, refusals[-1].exit_code) == ("package.uploads-crowded", 1)
        with pytest.raises(Answered, match="Too many packages"):
            one_host.client.upload("/v1/packages", (b"x" * 100_000 for _ in range(100)))
    until(lambda: not refused(), "it is taken when the others have hung up")
    one_host.client.delete("/v1/packages/crowd@1.0.0")
