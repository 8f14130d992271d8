"""Clients that count through a Redis and know afterwards whether it kept its word.

Run as a program of its own where clients are: `python -m outlive.lab.counting ADDRESS PORT CLIENTS`. Each client adds
one number after the other to a list of its own and one to a common total, in one transaction, and goes on to
the next only when it was acknowledged. When it cannot know whether a number arrived, it looks before it sends it
again. Every acknowledgement is a line on standard output, `unix_s client number total`; when standard input closes, the
lists are read back, and the last line is a JSON object with what was lost or came twice.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

CONNECT_S = 0.25
REPLY_S = 1.0
PAUSE_S = 0.02
RETRY_S = 0.05
VERIFY_S = 30.0


class ServerRefused(Exception):
    """Redis answered with an error."""


class Connection:
    """One connection that speaks just enough of Redis's protocol (RESP2)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, address: str, port: int) -> "Connection":
        """Connect within CONNECT_S. Raises OSError or TimeoutError."""
        async with asyncio.timeout(CONNECT_S):
            return cls(*await asyncio.open_connection(address, port))

    async def ask(self, *commands: tuple[str, ...]) -> list[object]:
        """Send commands together; return their replies. Raises OSError, TimeoutError or ServerRefused."""
        for words in commands:
            parts = [f"*{len(words)}\r\n".encode()]
            for word in words:
                data = word.encode()
                parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
            self._writer.write(b"".join(parts))
        async with asyncio.timeout(REPLY_S):
            return [await self._reply() for _ in commands]

    async def _reply(self) -> object:
        line = await self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ServerRefused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else (await self._reader.readexactly(length + 2))[:-2].decode()
        if kind == b"*":
            return [await self._reply() for _ in range(max(0, int(rest)))]
        return rest.decode()

    def close(self) -> None:
        """Let go of the connection; what is still under way is given up."""
        self._writer.transport.abort()


@dataclass
class Tally:
    """What one client was told. answers: number → the total that came with its acknowledgement."""

    client: int
    answers: dict[int, int | None] = field(default_factory=dict)
    reconnects: int = 0
    unsure: int = 0

    @property
    def key(self) -> str:
        """The name of this client's list."""
        return f"client:{self.client}"


async def count(address: str, port: int, tally: Tally, stop: asyncio.Event) -> None:
    """Count until told to stop, through whatever happens."""
    connection: Connection | None = None
    number, unsure = 1, False
    while not stop.is_set():
        try:
            if connection is None:
                connection = await Connection.open(address, port)
            total = await _add(connection, tally, number, unsure)
            tally.answers[number] = total
            print(f"{time.time():.6f} {tally.client} {number} {total}", flush=True)
            number, unsure = number + 1, False
            await asyncio.sleep(PAUSE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ServerRefused):
            tally.unsure += connection is not None and not unsure
            unsure = unsure or connection is not None
            tally.reconnects += 1
            if connection is not None:
                connection.close()
                connection = None
            await asyncio.sleep(RETRY_S)
    if connection is not None:
        connection.close()


async def _add(connection: Connection, tally: Tally, number: int, unsure: bool) -> int | None:
    if unsure:
        [newest] = await connection.ask(("LRANGE", tally.key, "-1", "-1"))
        if newest == [str(number)]:
            return None
    transaction = (("MULTI",), ("INCR", "total"), ("RPUSH", tally.key, str(number)), ("EXEC",))
    replies = await connection.ask(*transaction)
    done = replies[-1]
    assert isinstance(done, list)
    return int(done[0])


async def verify(address: str, port: int, tallies: list[Tally]) -> dict[str, int]:
    """Read everything back and compare it with what clients were told."""
    deadline = time.monotonic() + VERIFY_S
    while True:
        try:
            connection = await Connection.open(address, port)
            lists = await connection.ask(*(("LRANGE", tally.key, "0", "-1") for tally in tallies))
            [total] = await connection.ask(("GET", "total"))
            connection.close()
            break
        except (OSError, TimeoutError, ServerRefused):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_S)
    kept = [Counter(each) if isinstance(each, list) else Counter() for each in lists]
    lost = sum(1 for tally, there in zip(tallies, kept, strict=True) for n in tally.answers if str(n) not in there)
    twice = sum(times - 1 for there in kept for times in there.values() if times > 1)
    totals = Counter(total for tally in tallies for total in tally.answers.values() if total is not None)
    told_twice = sum(times - 1 for times in totals.values() if times > 1)
    present = sum(there.total() for there in kept)
    return {
        "acknowledged": sum(len(tally.answers) for tally in tallies),
        "present": present,
        "total": int(total) if isinstance(total, str) else 0,
        "lost": lost,
        "duplicated": max(twice, told_twice, abs(present - (int(total) if isinstance(total, str) else 0))),
        "unsure": sum(tally.unsure for tally in tallies),
        "reconnects": sum(tally.reconnects for tally in tallies),
    }


async def main(address: str, port: int, clients: int) -> None:
    """Count with so many clients until standard input closes, then verify and print the result."""
    stop = asyncio.Event()
    tallies = [Tally(number) for number in range(clients)]
    async with asyncio.TaskGroup() as group:
        for tally in tallies:
            group.create_task(count(address, port, tally, stop))
        await asyncio.to_thread(sys.stdin.read)
        stop.set()
    print(json.dumps(await verify(address, port, tallies)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
