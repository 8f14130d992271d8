"""Something that answers in etcd's place, as a test says: also what etcd itself would never say."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from outlive.config.store_address import Endpoint

from ..serving import serving

HEADER = {"cluster_id": "7", "member_id": "1", "revision": "5", "raft_term": "2"}

Answer = Callable[[str, dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


def whole(status: int, body: bytes) -> bytes:
    """An answer of HTTP."""
    return b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status, len(body), body,
    )  # fmt: skip


def good(**fields: Any) -> bytes:
    """An answer of etcd's."""
    return whole(200, json.dumps({"header": HEADER, **fields}).encode())


def bad(status: int, message: str, code: int) -> bytes:
    """A refusal of etcd's."""
    return whole(status, json.dumps({"error": message, "message": message, "code": code}).encode())


def streaming(*messages: dict[str, Any]) -> bytes:
    """The beginning of an answer without an end, with these messages in it."""
    lines = b"".join(json.dumps({"result": {"header": HEADER, **each}}).encode() + b"\n" for each in messages)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(lines), lines)


@asynccontextmanager
async def pretended(answer: Answer) -> AsyncIterator[Endpoint]:
    """A server on loopback that reads requests and has `answer` write what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    int(line.partition(":")[2])
                    for line in head.splitlines()
                    if line.lower().startswith("content-length")
                )
                body = json.loads(await reader.readexactly(length))
                await answer(head.split()[1], body, writer)
                await writer.drain()
        finally:
            writer.transport.abort()

    async with serving(serve) as port:
        yield Endpoint("127.0.0.1", port)
