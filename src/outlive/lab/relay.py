"""The way from a lab's hosts to an etcd outside of the lab: a small process that listens within and calls without.

It stands where a member of the lab's own etcd would, as `store1`, so that cuts, pauses and power cuts reach it: to the
lab's hosts they are the same as losing the etcd behind it. It carries bytes and knows nothing of them.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from outlive.config.store_address import ETCD_PORT, Endpoint
from outlive.errors import Failed

from .namespaces import enter
from .plan import LabPlan, load, member_address

CHUNK = 65_536


def listeners(lab: LabPlan, member: str, count: int) -> list[socket.socket]:
    """Sockets that listen in the member's namespace, at ETCD_PORT and the ports after it."""
    made: list[socket.socket] = []

    def make() -> None:
        enter(lab.member_namespace(member))
        made.extend(
            socket.create_server((member_address(member), ETCD_PORT + number), reuse_port=False)
            for number in range(count)
        )

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if len(made) < count:
        raise Failed("The lab's way to its etcd cannot listen.", cause=f"the namespace of {member} or its ports")
    return made


async def serve(sockets: list[socket.socket], targets: tuple[Endpoint, ...]) -> None:
    """Carry what comes to each socket to its target, until ended."""
    servers = [
        await asyncio.start_server(_carrier(target), sock=each) for each, target in zip(sockets, targets, strict=True)
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _carrier(target: Endpoint) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back: asyncio.StreamWriter | None = None
        try:
            there, back = await asyncio.open_connection(target.host, target.port)
            ways = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            return
        finally:
            for end in (writer, back):
                if end is not None:
                    end.transport.abort()

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


def main(name: str, member: str) -> None:
    """Serve a lab until killed."""
    lab = load(name)
    outside = lab.outside_store
    assert outside is not None
    asyncio.run(serve(listeners(lab, member, len(outside.endpoints)), outside.endpoints))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
