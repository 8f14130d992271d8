"""Asking another host's agent over TLS: for log lines, and for machines that run there.

Both sides show a certificate of the cluster's own authority. The request is plain HTTP/1.0, whose answer ends with
the connection, so nothing but the standard library is needed and nothing is loaded before it is used. An agent whose
host vanishes is noticed by the kernel, which gives a silent connection up within seconds.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from outlive.cluster.mirror import Mirror
from outlive.errors import ClusterUnreachable

CONNECT_S = 3.0
ANSWER_S = 10.0
MOST_LINE_BYTES = 256 * 1024
MOST_HEAD_LINES = 100
PIECE_BYTES = 64 * 1024
LENGTH_DIGITS = 15
_VANISHED_MS = 10_000
_PROBE_S = 3


class Credentials(Protocol):
    """The files that prove which host this is, and who belongs to the cluster."""

    @property
    def ca(self) -> Path: ...
    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host's agent: its host, and where it answers."""

    host: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. path: encoded already.  answer_s: how long the answer may be in coming, its content left out."""

    method: str
    path: str
    body: bytes = b""
    answer_s: float = ANSWER_S


@dataclass(slots=True)
class Answer:
    """What a peer answers; its content comes as it is read. headers: by their names in lower case.

    Whoever has it closes it.
    """

    host: str
    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)
    left_bytes: int | None = None

    async def piece(self) -> bytes:
        """The next piece, as soon as there is any; b"" at the end. Raises ClusterUnreachable when it breaks off."""
        if self.left_bytes == 0:
            return b""
        most = PIECE_BYTES if self.left_bytes is None else min(PIECE_BYTES, self.left_bytes)
        try:
            piece = await self.reader.read(most)
        except (OSError, ValueError) as error:
            raise _unreachable(self.host, str(error) or type(error).__name__) from error
        if self.left_bytes is not None:
            if not piece:
                raise _unreachable(self.host, f"{self.left_bytes} bytes of its answer are missing")
            self.left_bytes -= len(piece)
        return piece

    async def whole(self, most_bytes: int, within_s: float) -> bytes:
        """All of it. Raises ClusterUnreachable when it breaks off, is larger or takes longer than that."""
        found = bytearray()
        try:
            async with asyncio.timeout(within_s):
                while piece := await self.piece():
                    found += piece
                    if len(found) > most_bytes:
                        raise _unreachable(self.host, f"its answer is larger than {most_bytes} bytes")
        except TimeoutError as error:
            raise _unreachable(self.host, f"its answer was not whole within {within_s:g} s") from error
        return bytes(found)

    def close(self) -> None:
        """Be done with it, read or not."""
        self.writer.transport.abort()


class Others:
    """The agents of all other hosts, asked by the names that the store knows them by. tls None: none can be asked."""

    def __init__(self, tls: Credentials | None, picture: Callable[[], Mirror]) -> None:
        self._tls = tls
        self._picture = picture
        self._context: ssl.SSLContext | None = None

    async def ask(self, host: str, request: Request) -> Answer:
        """Ask a host's agent; its answer is closed by whoever has it. Raises ClusterUnreachable."""
        return await ask(*await self._way(host), request)

    async def lines(self, host: str, path: str) -> AsyncIterator[bytes]:
        """The lines that a host answers a GET with, as `lines` has them. Raises ClusterUnreachable."""
        return lines(*await self._way(host), path)

    async def _way(self, host: str) -> tuple[ssl.SSLContext, Peer]:
        member = self._picture().hosts.get(host)
        if self._tls is None or member is None:
            raise ClusterUnreachable(
                f"The agent of {host} cannot be asked.",
                cause="this agent has no [tls] in its file" if member else f"there is no host {host}",
                remedy="give every host its certificate, or ask on that host itself",
            )
        if self._context is None:
            self._context = await asyncio.to_thread(trusting, self._tls)
        return self._context, Peer(host, member.record.address, member.record.peer_port)


def trusting(credentials: Credentials) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 to holders of certificates of the cluster's authority. Reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Members are known by their authority and asked by address; their names are not in DNS.
    context.check_hostname = False
    context.load_verify_locations(credentials.ca)
    context.load_cert_chain(credentials.certificate, credentials.key)
    return context


async def ask(context: ssl.SSLContext, peer: Peer, request: Request) -> Answer:
    """Ask a peer; returns with the head of its answer. Raises ClusterUnreachable when there is none."""
    reader, writer = await _connected(context, peer)
    try:
        async with asyncio.timeout(request.answer_s):
            writer.write(_head(peer, request) + request.body)
            await writer.drain()
            status, headers = await _answered(reader)
        return Answer(peer.host, status, headers, reader, writer, _length(headers.get("content-length")))
    except (OSError, ValueError, TimeoutError) as error:
        writer.transport.abort()
        cause = str(error) or f"no answer within {request.answer_s:g} s"
        raise _unreachable(peer.host, cause) from error
    except BaseException:
        writer.transport.abort()
        raise


def _length(told: str | None) -> int | None:
    """How long an answer says that it is; None: it does not say. Raises ValueError for what is no length."""
    if told is not None and not (told.isascii() and told.isdigit() and len(told) <= LENGTH_DIGITS):
        raise ValueError(f"it says that it is {told[:40]!r} bytes long")
    return None if told is None else int(told)


async def lines(context: ssl.SSLContext, peer: Peer, path: str) -> AsyncIterator[bytes]:
    """The lines that a peer answers a GET with, each with its newline, until it ends.

    Raises ClusterUnreachable when it cannot be asked or does not answer with 200.
    """
    answer = await ask(context, peer, Request("GET", path))
    try:
        if answer.status != 200:
            raise _unreachable(peer.host, f"it answered with status {answer.status}")
        while True:
            try:
                line = await answer.reader.readline()
            except (OSError, ValueError) as error:
                raise _unreachable(peer.host, str(error)) from error
            if not line.endswith(b"\n"):
                return
            yield line
    finally:
        answer.close()


def _head(peer: Peer, request: Request) -> bytes:
    length = f"Content-Length: {len(request.body)}\r\n" if request.method != "GET" else ""
    return f"{request.method} {request.path} HTTP/1.0\r\nHost: {peer.host}\r\n{length}\r\n".encode("ascii")


async def _answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the head of an answer. Raises ValueError for what is none."""
    first = await reader.readline()
    words = first.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError(f"it answered {first[:100]!r}")
    headers: dict[str, str] = {}
    for _ in range(MOST_HEAD_LINES):
        line = (await reader.readline()).strip()
        if not line:
            return int(words[1]), headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError(f"its answer has more than {MOST_HEAD_LINES} headers")


async def _connected(context: ssl.SSLContext, peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(peer.address, peer.port, ssl=context, limit=MOST_LINE_BYTES)
    except (OSError, TimeoutError) as error:
        raise _unreachable(peer.host, str(error) or f"no connection within {CONNECT_S:g} s") from error
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_MS)
    return reader, writer


def _unreachable(host: str, cause: str) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"The agent of {host} cannot be asked.", cause=cause, remedy=f"see whether {host} is up: outlive status"
    )
