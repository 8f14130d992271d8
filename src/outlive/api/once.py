"""Requests that are done once: a client that never heard the answer asks again with the same key, and hears it.

The key and the answer are written in the very transaction that does what was asked (`transact`), under a key of the
store that must be absent. So of two requests with one key at most one is done, whichever agents they reach, whenever
these die, and also where the store cannot say whether a write happened. What is no change of the store is noted as
begun before it is done; whether it was done cannot be known when its agent ends midway, and asking again is refused.

Refusals are not kept: nothing was done, and the same request may be tried again. Kept answers are forgotten by age and
number (`agent.forgetting`).
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.cluster.transaction import Delete, KeyValue, Put, Transaction, TransactionResult, absent
from outlive.errors import ClusterUnreachable, OutliveError, UsageInvalid

from .bodies import body
from .declaring import Declared, Handler, tries_out
from .problems import Conflict, Encoded
from .view import View

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
BEGINS = 3
_KEY = re.compile(r"[!-~]{1,200}")


class KeyReused(UsageInvalid):
    """A key of a request that was another."""

    id = "idempotency.reused"


class Begun(Conflict):
    """The same request is being done, or was when its agent ended."""

    id = "idempotency.begun"


class _Known(Exception):
    """The request was done meanwhile, by another agent or in another try."""

    def __init__(self, kept: KeyValue) -> None:
        super().__init__()
        self.kept = kept


@dataclass(slots=True)
class _Once:
    """The request being answered. kept: its answer stands in the store."""

    key: str
    record: rec.RequestRecord
    kept: bool = False


_present: ContextVar[_Once | None] = ContextVar("once", default=None)


async def transact(
    view: View, transaction: Transaction, answer: Mapping[str, Any], status: int = 200
) -> TransactionResult:
    """Try a transaction by which a request is done, and have `answer` kept with it where the request has a key.

    answer: what the request is answered if it succeeds; for its `revision` the transaction's own is put when it is
    answered again. Raises what `view.transact` raises.
    """
    once = _present.get()
    if once is None:
        return await view.transact(transaction)
    kept = replace(once.record, status=status, answer=msgspec.to_builtins(answer, str_keys=True))
    whole = Transaction(
        (*transaction.compares, absent(once.key)), (*transaction.writes, Put(once.key, rec.encode(kept)))
    )
    done = await view.transact(whole)
    if done.succeeded:
        once.kept = True
    elif (known := await view.read(once.key)) is not None:
        raise _Known(known)
    return done


async def answered(view: View, declared: Declared, handler: Handler, request: Request) -> Response:
    """Answer a request, or answer it again if one with its key was done. Raises KeyReused, Begun and UsageInvalid."""
    given = request.headers.get(KEY_HEADER)
    if given is None or not declared.writes or declared.large:
        return await handler(request)
    if not _KEY.fullmatch(given):
        raise UsageInvalid(f"{given[:80]!r} cannot be an {KEY_HEADER}.", cause="it has 1 to 200 printable characters")
    if tries_out(request):
        return await handler(request)
    name = sha256(given.encode()).hexdigest()[:40]
    record = rec.RequestRecord(name, await _fingerprint(request), view.host, int(time.time() * 1000))
    once = _Once(rec.REQUESTS + name, record)
    if (known := await view.read(once.key)) is not None:
        return _again(known, record)
    try:
        if declared.acts:
            return await _acted(view, once, handler, request)
        return await _written(view, once, handler, request)
    except _Known as meanwhile:
        return _again(meanwhile.kept, record)


async def _written(view: View, once: _Once, handler: Handler, request: Request) -> Response:
    token = _present.set(once)
    try:
        response = await handler(request)
        if not once.kept and response.status_code < 300:
            # Nothing had to be changed. That is an answer too, and holds however things change until it is asked again;
            # it is given also where it cannot be kept.
            with suppress(OutliveError):
                await transact(view, Transaction((), ()), _content(response), response.status_code)
        return response
    except OutliveError as error:
        # Another try may have been faster, or this one: what was done is not told as refused.
        if not isinstance(error, ClusterUnreachable) and (known := await _kept(view, once.key)) is not None:
            raise _Known(known) from error
        raise
    finally:
        _present.reset(token)


async def _acted(view: View, once: _Once, handler: Handler, request: Request) -> Response:
    await _begin(view, once)
    try:
        response = await handler(request)
    except OutliveError as error:
        if not isinstance(error, ClusterUnreachable):
            await _note(view, Delete(once.key))
        raise
    if response.status_code < 300:
        kept = replace(once.record, status=response.status_code, answer=_content(response))
        await _note(view, Put(once.key, rec.encode(kept)))
    elif response.status_code < 500:
        await _note(view, Delete(once.key))
    return response


async def _begin(view: View, once: _Once) -> None:
    """Note that a request is being done. Raises _Known, Begun, and what `view.transact` raises: then it may not be."""
    note = Transaction((absent(once.key),), (Put(once.key, rec.encode(once.record)),))
    for _ in range(BEGINS):
        if (await view.transact(note)).succeeded:
            return
        if (known := await view.read(once.key)) is not None:
            raise _Known(known)
        # Another try had noted it, was refused, and took that back just now.
    raise Begun(
        "The same request is being tried again and again.",
        cause="each time that this one was to begin, another had",
        remedy="ask again in a moment, with the same key",
    )


async def _kept(view: View, key: str) -> KeyValue | None:
    """What a request was answered, if that can be had."""
    with suppress(OutliveError):
        return await view.read(key)
    return None


async def _note(view: View, write: Put | Delete) -> None:
    """Say how it ended, if that can be said: it is answered in any case."""
    with suppress(OutliveError):
        await view.transact(Transaction((), (write,)))


def _again(kept: KeyValue, asked: rec.RequestRecord) -> Response:
    try:
        record = rec.decode(kept.key, kept.value)
    except rec.BadRecord as error:
        raise Begun(
            "What this request was answered cannot be read any more.",
            cause=error.cause,
            remedy="look whether it was done, before you ask with another key",
        ) from error
    assert isinstance(record, rec.RequestRecord)
    if record.fingerprint != asked.fingerprint:
        raise KeyReused(
            f"Another request came with the same {KEY_HEADER}.",
            cause=f"{record.by} has answered it",
            remedy="give each request a key of its own",
        )
    if record.answer is None:
        raise Begun(
            f"The same request is being done by {record.by}.",
            cause="or it was when that agent ended: whether it was done is not known then",
            remedy="look whether it was done, before you ask with another key",
        )
    answer = dict(record.answer)
    if "revision" in answer:
        answer["revision"] = kept.mod_revision
    return Encoded(answer, record.status, {REPLAYED_HEADER: "true"})


def _content(response: Response) -> dict[str, Any]:
    return msgspec.json.decode(bytes(response.body), type=dict[str, Any])


async def _fingerprint(request: Request) -> str:
    told = sha256()
    for part in (
        request.method, request.scope["path"], request.scope["query_string"].decode("latin-1"),
        request.headers.get("if-match", ""),
    ):  # fmt: skip
        told.update(part.encode() + b"\0")
    told.update(await body(request))
    return told.hexdigest()
