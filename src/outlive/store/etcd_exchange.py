"""One exchange with one member of etcd: its JSON over HTTP, and how surely a request that failed was not sent.

A request counts as sent from the moment its first byte is handed to the kernel. Which member is asked, and whether
another one may be, is decided in `etcd_gateway`.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from outlive.config.store_address import Endpoint

from .base import StoreUnavailable
from .etcd_faults import Meaning, meaning
from .etcd_messages import Fault, Garbled, read_fault

MOST_LINE_BYTES = 256 * 1024 * 1024
LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=60.0)
_SENDING = "http11.send_request_headers.started"
# A client that was closed meanwhile raises RuntimeError.
_BROKEN = (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. ca: None for the authorities that the system trusts; certificate and key: both or none."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Refusal(Exception):
    """A refusal that the caller makes something of: see `meaning`."""

    def __init__(self, meaning: Meaning, fault: Fault) -> None:
        super().__init__(fault.message)
        self.meaning = meaning
        self.fault = fault


class MemberFailed(Exception):
    """One attempt failed. sent: whether the member may have got the request; reached: whether anybody was there."""

    def __init__(self, why: str, *, sent: bool, reached: bool = True) -> None:
        super().__init__(why)
        self.sent = sent
        self.reached = reached


class LoginNeeded(Exception):
    """The member wants another token; it did nothing."""


class Exchange:
    """Connections to members, by TLS if there is any; to be closed in the loop that it was made in.

    Raises StoreUnavailable for files of TLS that cannot be used.
    """

    def __init__(self, tls: Tls | None) -> None:
        self._scheme = "https" if tls else "http"
        self._client = httpx.AsyncClient(
            verify=_trust(tls) if tls else False, limits=LIMITS, trust_env=False, follow_redirects=False
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()
        # Sockets close in a step of their own, for which a loop that ends now would have no time.
        await asyncio.sleep(0)

    async def post(
        self, endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str], attempt_s: float, connect_s: float
    ) -> httpx.Response:
        """Ask, and read the whole answer. Raises MemberFailed."""
        sent = False

        async def trace(event: str, _: Any) -> None:
            nonlocal sent
            sent = sent or event == _SENDING

        try:
            async with asyncio.timeout(attempt_s):
                return await self._client.post(
                    f"{self._scheme}://{endpoint}{path}",
                    content=body,
                    headers=headers,
                    timeout=httpx.Timeout(attempt_s, connect=connect_s, pool=connect_s),
                    extensions={"trace": trace},
                )
        except TimeoutError as error:
            raise MemberFailed(f"no answer within {attempt_s:.2g} s", sent=sent, reached=sent) from error
        except _BROKEN as error:
            raise MemberFailed(_reason(error), sent=sent, reached=sent) from error

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str], begin_s: float
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Ask for an answer of many lines, and give them as they come, however long that takes once it has begun.

        Raises MemberFailed when the connection ends or nothing comes for `begin_s`, LoginNeeded and Refusal.
        """
        asking = self._client.build_request(
            "POST",
            f"{self._scheme}://{endpoint}{path}",
            content=body,
            headers=headers,
            timeout=httpx.Timeout(None, connect=begin_s, pool=begin_s),
        )
        try:
            async with asyncio.timeout(begin_s):
                response = await self._client.send(asking, stream=True)
            async with aclosing(response):
                if response.status_code != 200:
                    async with asyncio.timeout(begin_s):
                        raise as_raised(read_fault(await response.aread()))
                async with aclosing(_lines(response)) as lines:
                    yield lines
        except TimeoutError as error:
            raise MemberFailed(f"nothing came in {begin_s:g} s", sent=True) from error
        except Garbled as error:
            raise MemberFailed(f"it does not speak as etcd does: {error}", sent=True) from error
        except _BROKEN as error:
            raise MemberFailed(_reason(error), sent=True) from error


def as_raised(fault: Fault) -> MemberFailed | LoginNeeded | Refusal:
    """What a refusal is raised as."""
    what = meaning(fault)
    if what is Meaning.ASK_ANOTHER:
        return MemberFailed(fault.message, sent=False)
    if what is Meaning.LOGIN:
        return LoginNeeded(fault.message)
    if what is Meaning.UNSURE:
        return MemberFailed(fault.message or f"error {fault.code}", sent=True)
    return Refusal(what, fault)


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    async for chunk in response.aiter_raw():
        rest += chunk
        if b"\n" in chunk:
            *whole, last = rest.split(b"\n")
            rest = bytearray(last)
            for line in whole:
                if line.strip():
                    yield bytes(line)
        if len(rest) > MOST_LINE_BYTES:
            raise Garbled(f"a line of more than {MOST_LINE_BYTES} bytes")
    raise OSError("the member ended the answer")


def _trust(tls: Tls) -> ssl.SSLContext:
    """Raises StoreUnavailable for files that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate and tls.key:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise StoreUnavailable(
            "The files of [store_tls] cannot be used.", cause=str(error), remedy="name PEM files that root can read"
        ) from error
    return context


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
