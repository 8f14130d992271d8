"""Asking an etcd cluster through the JSON gateways of its members: which member, for how long, and what is sure.

What was asked is repeated at another member only where that cannot do it twice: when it surely was not sent, when the
member surely did nothing, or when doing it twice is the same as once. Everything else that goes wrong is uncertain.
Deadlines are counted by the boot clock, so an answer that was read only after a long standstill is no answer. Tokens
and passwords are never told to anybody but etcd.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

import httpx

from outlive.config.store_address import Endpoint, EtcdAddress

from .base import StoreReplaced, StoreTimeout, StoreUnavailable, StoreUncertain
from .boot_clock import boot_time_s
from .etcd_exchange import Exchange, LoginNeeded, MemberFailed, Refusal, Tls, as_raised
from .etcd_faults import Meaning, denied
from .etcd_login import PATH as LOGIN_PATH
from .etcd_login import Login, Tokens
from .etcd_messages import Fault, Garbled, Header, Token, read, read_fault, read_streamed

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
LEAST_ATTEMPT_S = 0.25
MOST_LOGINS = 2
LONGEST_CONNECT_S = 2.0
PASSED_OVER_S = 2.0


class Kind(Enum):
    """What asking twice would do."""

    READ = auto()
    REPEATABLE = auto()
    """It changes something, and twice is as good as once."""
    ONCE = auto()


@dataclass(slots=True)
class _Sent:
    """What became of one request so far. why: how the last attempt failed."""

    maybe_done: bool = False
    why: str = ""


class Gateway:
    """The members of one etcd cluster. Make it inside the loop that uses it; close it there."""

    def __init__(self, address: EtcdAddress, tls: Tls | None = None, login: Login | None = None) -> None:
        self.address = address
        self._exchange = Exchange(tls or Tls() if address.tls else None)
        self._passed_over: dict[Endpoint, float] = {}
        # Hosts that all begin with the first member would leave the others idle.
        self._preferred = random.randrange(len(address.endpoints))
        self._tokens = Tokens(login, self._authenticate)
        self._cluster_id = 0
        self._closed = False

    @property
    def preferred(self) -> Endpoint:
        """The member that is asked first."""
        return self.address.endpoints[self._preferred]

    async def close(self) -> None:
        """Let go of all connections; what is being asked fails."""
        self._closed = True
        await self._exchange.close()

    def check_open(self) -> None:
        """Raise StoreUnavailable once this is closed."""
        if self._closed:
            raise StoreUnavailable(f"The store {self.address} was closed by this program.")

    def turn(self, away_from: Endpoint) -> None:
        """Ask another member first from now on, unless that has happened since."""
        if self.preferred == away_from:
            self._preferred = (self._preferred + 1) % len(self.address.endpoints)

    def check_cluster(self, header: Header) -> None:
        """Raise StoreReplaced when another cluster answers than the one that did first."""
        if not header.cluster_id:
            return
        self._cluster_id = self._cluster_id or header.cluster_id
        if header.cluster_id != self._cluster_id:
            raise replaced(self.address, f"the cluster {header.cluster_id:x} answers in place of {self._cluster_id:x}")

    async def ask(
        self,
        what: str,
        path: str,
        body: bytes,
        answer: type[T],
        *,
        until: float,
        kind: Kind,
        at: Endpoint | None = None,
    ) -> T:
        """Ask until there is an answer.

        what:  for sentences: "The store's {what} …".
        until: deadline on the boot clock, in seconds.
        at:    this member only, and once.
        Raises StoreUnavailable, StoreUncertain (not for reads), Refusal, RequestRefused.
        """
        sent = _Sent()
        try:
            return await self._asked(what, path, body, answer, until, kind, at, sent)
        except (StoreUnavailable, Refusal) as error:
            refused = isinstance(error, StoreUnavailable) or error.meaning is Meaning.REFUSED
            if sent.maybe_done and refused and kind is not Kind.READ:
                # What came after says nothing of what was sent before.
                raise self._uncertain(what, sent.why or str(error)) from error
            raise

    async def _asked(
        self,
        what: str,
        path: str,
        body: bytes,
        answer: type[T],
        until: float,
        kind: Kind,
        at: Endpoint | None,
        sent: "_Sent",
    ) -> T:
        """As `ask`, and notes in `sent` whether it may have been done: then "unavailable" is no answer."""
        began, pause_s, logins = boot_time_s(), FIRST_PAUSE_S, 0
        while True:
            renewed = False
            turn = [at] if at else self._in_turn()
            for number, endpoint in enumerate(turn):
                self.check_open()
                left_s = until - boot_time_s()
                if left_s <= 0:
                    break
                others, token = len(turn) - number - 1, self._tokens.current
                try:
                    return await self._attempt(endpoint, path, body, answer, left_s, others, kind, until)
                except LoginNeeded as error:
                    logins += 1
                    if path == LOGIN_PATH:
                        raise
                    if logins > MOST_LOGINS:
                        raise denied(str(error)) from None
                    await self._tokens.renew(token, str(error), until)
                    renewed = True
                except StoreReplaced:
                    sent.maybe_done = True
                    raise
                except MemberFailed as error:
                    if not error.sent:
                        self.check_open()
                    sent.why = f"{endpoint}: {error}"
                    sent.maybe_done |= error.sent
                    if not error.reached:
                        self._passed_over[endpoint] = boot_time_s() + PASSED_OVER_S
                    self.turn(endpoint)
                    if sent.maybe_done and kind is Kind.ONCE:
                        raise self._uncertain(what, sent.why) from error
            left_s = until - boot_time_s()
            if left_s <= pause_s or (at and not renewed):
                break
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        raise StoreTimeout(
            f"The store's {what} was not done within {boot_time_s() - began:.2g} s; it will not be done.",
            cause=sent.why or "the time was over before it could be asked",
            remedy="try again; if it lasts, see `outlive doctor`",
        )

    def _in_turn(self) -> list[Endpoint]:
        """Whom to ask, in this order: not those that could not be reached a moment ago, as long as there are others."""
        ends = self.address.endpoints
        turn = [*ends[self._preferred :], *ends[: self._preferred]]
        now = boot_time_s()
        return [end for end in turn if self._passed_over.get(end, 0.0) <= now] or turn

    async def _attempt(
        self,
        endpoint: Endpoint,
        path: str,
        body: bytes,
        answer: type[T],
        left_s: float,
        others: int,
        kind: Kind,
        until: float,
    ) -> T:
        """Ask one member, and leave time for the others where they could be asked after it."""
        share_s = min(left_s, max(LEAST_ATTEMPT_S, left_s / (others + 1)))
        connect_s = min(share_s, LONGEST_CONNECT_S)
        attempt_s = left_s if kind is Kind.ONCE else share_s
        headers = self._headers(attempt_s, shown=path != LOGIN_PATH)
        response = await self._exchange.post(endpoint, path, body, headers, attempt_s, connect_s)
        if boot_time_s() > until:
            raise MemberFailed("the answer was read too late", sent=True)
        return self._understood(response, answer)

    def _headers(self, attempt_s: float | None = None, *, shown: bool = True) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
        if attempt_s is not None:
            headers["Grpc-Timeout"] = f"{max(1, int(attempt_s * 1000))}m"
        if shown and self._tokens.current:
            headers["Authorization"] = self._tokens.current
        return headers

    def _understood(self, response: httpx.Response, answer: type[T]) -> T:
        """The answer as a value. Raises Refusal, LoginNeeded and MemberFailed."""
        raw = response.content
        try:
            if response.status_code != 200:
                raise as_raised(read_fault(raw))
            if raw.startswith((b'{"result"', b'{"error"')):
                told = read_streamed(raw.partition(b"\n")[0], answer)
                if isinstance(told, Fault):
                    raise as_raised(told)
            else:
                told = read(raw, answer)
        except Garbled as error:
            # An answer to a login may have the token in it, however garbled.
            why = "" if answer is Token else f": {error}"
            raise MemberFailed(f"what answers there does not speak as etcd does{why}", sent=True) from None
        header = getattr(told, "header", None)
        if isinstance(header, Header):
            self.check_cluster(header)
        return told

    async def _authenticate(self, body: bytes, until: float) -> Token:
        return await self.ask("login", LOGIN_PATH, body, Token, until=until, kind=Kind.READ)

    async def log_in(self, until: float) -> None:
        """Get a token if there is somebody to be. Raises StoreDenied and StoreUnavailable."""
        await self._tokens.first(until)

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, path: str, body: bytes, *, begin_s: float
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Ask one member for an answer of many lines, and give them as they come.

        Raises StoreUnavailable when the connection ends or nothing comes for `begin_s`, LoginNeeded and Refusal.
        """
        try:
            async with self._exchange.stream(endpoint, path, body, self._headers(), begin_s) as lines:
                yield lines
        except MemberFailed as error:
            self.check_open()
            raise StoreUnavailable(f"etcd at {endpoint} does not serve a watch.", cause=str(error)) from error

    async def renew_token(self, stale: str, why: str, timeout_s: float) -> None:
        """Get another token than the one with which a stream was refused. Raises StoreDenied and StoreUnavailable."""
        await self._tokens.renew(stale, why, boot_time_s() + timeout_s)

    @property
    def token(self) -> str:
        """What shows etcd who we are, at present."""
        return self._tokens.current

    def _uncertain(self, what: str, why: str) -> StoreUncertain:
        return StoreUncertain(
            f"It is not known whether the store's {what} was done; it may have been, or may yet be.",
            cause=why,
            remedy="read the store again to see",
        )


def replaced(address: EtcdAddress, cause: str) -> StoreReplaced:
    """The error for a store that is no longer the one that was opened."""
    return StoreReplaced(
        f"The store {address} is no longer the one that was opened.",
        cause=cause,
        remedy="if etcd was restored or replaced on purpose, start the agents again, one host after the other",
    )
