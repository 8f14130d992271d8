"""Asking another host's agent over TLS: so far only for the log lines that lie there.

Both sides show a certificate of the cluster's own authority. The request is plain HTTP/1.0, whose answer ends with
the connection, so nothing but the standard library is needed and nothing is loaded before it is used.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from outlive.errors import ClusterUnreachable

CONNECT_S = 3.0
ANSWER_S = 10.0
MOST_LINE_BYTES = 256 * 1024
MOST_HEAD_LINES = 100


class Credentials(Protocol):
    """The files that prove which host this is, and who belongs to the cluster."""

    @property
    def ca(self) -> Path: ...
    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...


def trusting(credentials: Credentials) -> ssl.SSLContext:
    """A context that speaks TLS 1.3 to holders of certificates of the cluster's authority. Reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Members are known by their authority and asked by address; their names are not in DNS.
    context.check_hostname = False
    context.load_verify_locations(credentials.ca)
    context.load_cert_chain(credentials.certificate, credentials.key)
    return context


async def lines(context: ssl.SSLContext, host: str, address: str, port: int, path: str) -> AsyncIterator[bytes]:
    """The lines that the agent of `host` answers a GET with, each with its newline, until it ends.

    Raises ClusterUnreachable when it cannot be asked or does not answer with 200.
    """
    async with _connected(context, host, address, port) as (reader, writer):
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            async with asyncio.timeout(ANSWER_S):
                await writer.drain()
                status = (await reader.readline()).split(None, 2)
                for _ in range(MOST_HEAD_LINES):
                    if not (await reader.readline()).strip():
                        break
        except (OSError, ValueError, TimeoutError) as error:
            raise _unreachable(host, str(error) or type(error).__name__) from error
        if len(status) < 2 or status[1] != b"200":
            raise _unreachable(host, f"it answered {b' '.join(status)[:100]!r}")
        while True:
            try:
                line = await reader.readline()
            except (OSError, ValueError) as error:
                raise _unreachable(host, str(error)) from error
            if not line.endswith(b"\n"):
                return
            yield line


@asynccontextmanager
async def _connected(
    context: ssl.SSLContext, host: str, address: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(address, port, ssl=context, limit=MOST_LINE_BYTES)
    except (OSError, TimeoutError) as error:
        raise _unreachable(host, str(error) or f"no connection within {CONNECT_S:g} s") from error
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _unreachable(host: str, cause: str) -> ClusterUnreachable:
    return ClusterUnreachable(
        f"The agent of {host} cannot be asked.", cause=cause, remedy=f"see whether {host} is up: outlive status"
    )
