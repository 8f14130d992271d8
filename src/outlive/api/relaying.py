"""Passing a request on to the agent that can answer it, and its answer back, problems too.

Nothing is kept of what passes, and what it may cost is bounded: by size and time where an answer is read whole, and
by its reader's presence where it is a stream.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response, StreamingResponse

from outlive.errors import ClusterUnreachable

from .view import PeerAnswer, View

MOST_PROBLEM_BYTES = 64 * 1024
PROBLEM_S = 5.0
STILL_S = 0.5
"""How often it is asked whether a stream still comes from the right host."""

Ending = Callable[[], Awaitable[None]]
T = TypeVar("T")


class Piecewise(StreamingResponse):
    """An answer in pieces, whose end is always told: also when its reader goes before the first one."""

    def __init__(self, pieces: AsyncIterator[bytes], ending: Ending, headers: Mapping[str, str], kind: str) -> None:
        super().__init__(pieces, headers=headers, media_type=kind)
        self._ending = ending

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._ending()


async def whole(
    view: View, host: str, method: str, path: str, body: bytes = b"", *, most_bytes: int, within_s: float
) -> Response:
    """Pass a request on, and its answer back as one. Raises ClusterUnreachable."""
    try:
        async with asyncio.timeout(within_s):
            answer = await view.ask_peer(host, method, path, body, answer_s=within_s)
            try:
                content = await answer.whole(most_bytes, within_s)
            finally:
                answer.close()
    except TimeoutError as error:
        raise ClusterUnreachable(
            f"The agent of {host} did not answer within {within_s:g} s.", remedy="see `outlive status`, and try again"
        ) from error
    return Response(content, answer.status, _kept(answer), answer.headers.get("content-type"))


async def refusal(answer: PeerAnswer) -> Response:
    """What a peer answered that refuses, as it is; the answer is closed. Raises ClusterUnreachable."""
    try:
        content = await answer.whole(MOST_PROBLEM_BYTES, PROBLEM_S)
    finally:
        answer.close()
    return Response(content, answer.status, _kept(answer), "application/problem+json")


def told(content: bytes, kind: type[T]) -> T:
    """What an answer's JSON says. Raises ClusterUnreachable, and nothing else for any bytes."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ClusterUnreachable(
            "What another agent answered cannot be understood.",
            cause=str(error),
            remedy="see that all hosts run the same version: outlive status",
        ) from error


def _kept(answer: PeerAnswer) -> dict[str, str]:
    """The headers that hold wherever an answer comes from."""
    return {name: answer.headers[name] for name in ("retry-after",) if name in answer.headers}


async def stream(
    view: View, host: str, path: str, *, kind: str, headers: tuple[str, ...], still: Callable[[], bool]
) -> Response:
    """Pass a request on, and its answer back piece by piece, with these headers. Raises ClusterUnreachable.

    still: whether it still comes from the right host; the stream ends soon after it does not.
    """
    answer = await view.ask_peer(host, "GET", path)
    if answer.status != 200:
        return await refusal(answer)

    async def close() -> None:
        answer.close()

    passed = {name: answer.headers.get(name.lower(), "") for name in headers}
    return Piecewise(_pieces(answer, still), close, passed, kind)


async def _pieces(answer: PeerAnswer, still: Callable[[], bool]) -> AsyncIterator[bytes]:
    reading = asyncio.create_task(answer.piece())
    try:
        while True:
            if not (await asyncio.wait([reading], timeout=STILL_S))[0]:
                if still():
                    continue
                return
            try:
                piece = reading.result()
            except ClusterUnreachable:
                return
            if not piece:
                return
            yield piece
            reading = asyncio.create_task(answer.piece())
    finally:
        reading.cancel()


async def lines(answer: PeerAnswer, last: bytes) -> AsyncGenerator[bytes, None]:
    """The lines of an answer until the one that says that it is whole. Raises ClusterUnreachable without that."""
    rest = b""
    try:
        while piece := await answer.piece():
            *found, rest = (rest + piece).split(b"\n")
            for line in found:
                if line == last:
                    return
                yield line + b"\n"
            if len(rest) > MOST_PROBLEM_BYTES:
                break
    finally:
        answer.close()
    raise ClusterUnreachable("What another agent answered broke off.", remedy="see `outlive status`, and try again")
