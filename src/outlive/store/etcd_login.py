"""Being somebody to etcd: the token that it wants to see, and getting another one when it wants that.

Whoever needs a new token waits for the one login that is under way, for as long as its own call lasts. Password and
token are told to nobody but etcd: not even what it answers to a login is told on, since either may be in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from .base import StoreTimeout
from .boot_clock import boot_time_s
from .etcd_exchange import LoginNeeded, Refusal
from .etcd_faults import denied
from .etcd_messages import Token, request

PATH = "/v3/auth/authenticate"
MOST_PASSWORD_BYTES = 4096

Authenticate = Callable[[bytes, float], Awaitable[Token]]
"""Sends a login's body to etcd, until a moment on the boot clock; raises as `Gateway.ask` does."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to etcd. The password's file is read anew for each token."""

    user: str
    password_file: Path


class Tokens:
    """The token of one user, or of nobody."""

    def __init__(self, login: Login | None, authenticate: Authenticate) -> None:
        self._login = login
        self._authenticate = authenticate
        self._turn = asyncio.Lock()
        self.current = ""

    async def first(self, until: float) -> None:
        """Get a token if there is somebody to be, and none yet. Raises what `renew` raises."""
        if self._login is not None and not self.current:
            await self.renew("", "", until)

    async def renew(self, stale: str, why: str, until: float) -> None:
        """Get another token than `stale`, unless there is one by now, before `until` on the boot clock.

        why: what etcd said.  Raises StoreDenied and StoreUnavailable.
        """
        if self._login is None:
            raise denied(why or "it asks for a user, and none is configured")
        try:
            async with asyncio.timeout(max(0.0, until - boot_time_s())), self._turn:
                if self.current in (stale, ""):
                    self.current = ""
                    self.current = await self._got(self._login, until)
        except TimeoutError as error:
            raise StoreTimeout("The store's login was not done in time.", cause=why) from error

    async def _got(self, login: Login, until: float) -> str:
        try:
            password = await asyncio.to_thread(_password, login.password_file)
        except (OSError, ValueError) as error:
            why = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise denied(f"the password's file {login.password_file} cannot be read: {why}") from None
        try:
            return (await self._authenticate(request(name=login.user, password=password), until)).token
        except (Refusal, LoginNeeded) as error:
            raise denied(_without(str(error), password)) from None
        except StoreTimeout as error:
            raise StoreTimeout(
                "The store's login was not done in time.", cause=_without(str(error), password)
            ) from None


def _password(path: Path) -> str:
    """The file's one line."""
    with path.open("rb") as file:
        return file.read(MOST_PASSWORD_BYTES).decode().rstrip("\r\n")


def _without(text: str, secret: str) -> str:
    return text.replace(secret, "…") if secret else text
