"""Lines come from a peer that the cluster's authority vouches for, and from nobody else."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlive.agent import peers
from outlive.agent.founding import Authority
from outlive.errors import ClusterUnreachable


@dataclass(frozen=True)
class Files:
    ca: Path
    certificate: Path
    key: Path


def member(folder: Path, host: str) -> Files:
    authority = Authority(folder)
    authority.make("00112233445566ff")
    authority.issue(host, "127.0.0.1")
    return Files(folder / "ca.pem", folder / f"{host}.pem", folder / f"{host}.key")


@asynccontextmanager
async def serving(files: Files, answer: bytes) -> AsyncIterator[int]:
    """A peer that shows these files and gives this answer to whoever has a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def asked(files: Files, port: int) -> list[bytes]:
    async with asyncio.timeout(30):
        return [line async for line in peers.lines(peers.trusting(files), peers.Peer("b", "127.0.0.1", port), "/v1/x")]


async def test_a_members_lines_come_whole_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n" + b'{"a": 1}\n{"a": 2}\n{"a"'
    async with serving(member(tmp_path, "b"), answer) as port:
        assert await asked(member(tmp_path, "a"), port) == [b'{"a": 1}\n', b'{"a": 2}\n']


@pytest.mark.parametrize("answer", [b"HTTP/1.0 404 Not Found\r\n\r\nno\n", b"", b"SSH-2.0\r\n"])
async def test_any_other_answer_is_told(tmp_path: Path, answer: bytes) -> None:
    async with serving(member(tmp_path, "b"), answer) as port:
        with pytest.raises(ClusterUnreachable, match="agent of b"):
            await asked(member(tmp_path, "a"), port)


async def test_a_stranger_is_not_believed(tmp_path: Path) -> None:
    async with serving(member(tmp_path / "theirs", "b"), b"HTTP/1.0 200 OK\r\n\r\n{}\n") as port:
        with pytest.raises(ClusterUnreachable, match=r"(?i)certificate"):
            await asked(member(tmp_path / "ours", "a"), port)


async def test_a_peer_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with serving(member(tmp_path, "b"), b"") as port:
        pass
    with pytest.raises(ClusterUnreachable):
        await asked(member(tmp_path, "a"), port)
