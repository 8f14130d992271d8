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

from ..serving import serving


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
async def peer(files: Files, answer: bytes, heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """A peer that shows these files and gives this answer to whoever has a certificate of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, _, length = head.partition(b"Content-Length: ")
        content = await reader.readexactly(int(length.split()[0])) if length else b""
        if heard is not None:
            heard.append(head + content)
        writer.write(answer)
        writer.close()

    async with serving(serve, ssl=context) as port:
        yield port


async def asked(files: Files, port: int) -> list[bytes]:
    async with asyncio.timeout(60):
        return [line async for line in peers.lines(peers.trusting(files), peers.Peer("b", "127.0.0.1", port), "/v1/x")]


async def test_a_members_lines_come_whole_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n" + b'{"a": 1}\n{"a": 2}\n{"a"'
    async with peer(member(tmp_path, "b"), answer) as port:
        assert await asked(member(tmp_path, "a"), port) == [b'{"a": 1}\n', b'{"a": 2}\n']


@pytest.mark.parametrize("answer", [b"HTTP/1.0 404 Not Found\r\n\r\nno\n", b"", b"SSH-2.0\r\n"])
async def test_any_other_answer_is_told(tmp_path: Path, answer: bytes) -> None:
    async with peer(member(tmp_path, "b"), answer) as port:
        with pytest.raises(ClusterUnreachable, match="agent of b"):
            await asked(member(tmp_path, "a"), port)


async def test_a_stranger_is_not_believed(tmp_path: Path) -> None:
    async with peer(member(tmp_path / "theirs", "b"), b"HTTP/1.0 200 OK\r\n\r\n{}\n") as port:
        with pytest.raises(ClusterUnreachable, match=r"(?i)certificate"):
            await asked(member(tmp_path / "ours", "a"), port)


async def test_a_peer_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with peer(member(tmp_path, "b"), b"") as port:
        pass
    with pytest.raises(ClusterUnreachable):
        await asked(member(tmp_path, "a"), port)


async def answered(folder: Path, answer: bytes, request: peers.Request, heard: list[bytes] | None = None) -> bytes:
    """The whole content that comes of asking."""
    async with peer(member(folder, "b"), answer, heard) as port, asyncio.timeout(60):
        context = peers.trusting(member(folder, "a"))
        found = await peers.ask(context, peers.Peer("b", "127.0.0.1", port), request)
        try:
            return await found.whole(1000, 60)
        finally:
            found.close()


async def test_what_is_posted_arrives_and_the_answer_comes_back(tmp_path: Path) -> None:
    heard: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x00\xffabc and more"
    request = peers.Request("POST", "/v1/x/y", b"\x03\r\n")
    assert await answered(tmp_path, answer, request, heard) == b"\x00\xffabc"
    assert heard == [b"POST /v1/x/y HTTP/1.0\r\nHost: b\r\nContent-Length: 3\r\n\r\n\x03\r\n"]


async def test_an_answer_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    assert await answered(tmp_path, b"HTTP/1.0 404 No\r\n\r\nnothing", peers.Request("GET", "/x")) == b"nothing"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "5 bytes of its answer are missing"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 2000, "larger than 1000 bytes"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: many\r\n\r\n", "many"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n", "-1"),
        (b"HTTP/1.0 200 OK\r\n" + b"x: y\r\n" * 200, "more than 100 headers"),
        (b"HTTP/1.0 200 OK\r\nx: " + b"y" * 600_000, "limit"),
        (b"HTTP/1.0 fine\r\n\r\n", "fine"),
        (b"", "it answered"),
    ],
)
async def test_an_answer_that_is_not_whole_or_too_much_is_none(tmp_path: Path, answer: bytes, says: str) -> None:
    with pytest.raises(ClusterUnreachable) as caught:
        await answered(tmp_path, answer, peers.Request("GET", "/x"))
    assert says in caught.value.cause


async def test_a_peer_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    files = member(tmp_path, "b")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    async with serving(silent, ssl=context) as port:
        with pytest.raises(ClusterUnreachable, match="no answer within"):
            await peers.ask(
                peers.trusting(files), peers.Peer("b", "127.0.0.1", port), peers.Request("GET", "/x", answer_s=0.2)
            )
