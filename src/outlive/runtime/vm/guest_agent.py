"""Talking to the agent inside a guest (qemu-ga), over its channel: only whether it answers, and asking it to shut down.

What comes from there was written by the guest, which may be hostile: it is bounded, and believed only as far as that
something answered. A connection is made for each question, so that a guest that was reset is asked anew.
"""

import asyncio
import contextlib
import itertools
import json
from pathlib import Path

MOST_ANSWER_BYTES = 64 * 1024
_MARK = b"\xff"
_numbers = itertools.count(1)


async def answers(path: Path, within_s: float) -> bool:
    """Whether the guest's agent answers within that time.

    It is asked for a number that it has to repeat, since an old answer may still lie in the channel.
    """
    number = next(_numbers)
    question = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=MOST_ANSWER_BYTES)
            try:
                writer.write(_MARK + json.dumps(question).encode() + b"\n")
                await writer.drain()
                return await _repeated(reader, number)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False


async def _repeated(reader: asyncio.StreamReader, number: int) -> bool:
    while True:
        line = await reader.readuntil(b"\n")
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line.rpartition(_MARK)[2])
            if isinstance(answer, dict) and answer.get("return") == number:
                return True
