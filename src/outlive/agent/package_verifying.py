"""Reading through what lies in this host's depot, one package after the other, as long as the agent lives.

What is damaged is thrown out and told; whoever wants it here fetches it anew. How fast and how often is told in
`depot.verifying`.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import structlog

from outlive.depot import verifying
from outlive.depot.errors import PackageMissing
from outlive.depot.shelf import Shelf
from outlive.errors import OutliveError

from .package_threads import Threads

LOOK_S = 60.0
"""How long after a look whether something is to be read there is another one."""

log = structlog.get_logger()

ThrewOut = Callable[[dict[str, str]], Awaitable[None]]
"""Takes what was thrown out: id → what is wrong."""


class Verifying:
    """threw_out: told of each damage. clock: seconds since 1970, since files' times are what is compared."""

    def __init__(self, shelf: Shelf, threw_out: ThrewOut, clock: Callable[[], float] = time.time) -> None:
        self._shelf = shelf
        self._threw_out = threw_out
        self._clock = clock
        self._threads = Threads("package-verify", 1)

    async def run(self) -> None:
        """Read what is due, until cancelled."""
        while True:
            try:
                found = await self.look()
            except (OutliveError, OSError) as error:
                log.error("depot.not_verified", reason=str(error))
                found = False
            await asyncio.sleep(1.0 if found else LOOK_S)

    async def look(self) -> bool:
        """Read the package that was read longest ago, if one is due; whether one was."""
        id = await self._threads.left(verifying.due, self._shelf, self._clock())
        if id is None:
            return False
        cancelled = threading.Event()
        damage = await self._threads.run(self._read, id, verifying.Pace(cancelled), cancelled=cancelled)
        if damage:
            await self._threw_out(damage)
        return True

    def _read(self, id: str, pace: verifying.Pace) -> dict[str, str]:
        """Read one package, and throw out what is damaged: id → what is wrong."""
        try:
            wrong = verifying.damaged(self._shelf, id, pace, self._clock())
        except PackageMissing as missing:
            return {id: missing.cause} if missing.cause else {}  # else it was removed just now
        except OutliveError:
            self._shelf.was_read(id, self._clock())  # as far as it could be; the others have their turn
            raise
        if not wrong or id not in self._shelf.ids():
            return {}
        what = f"{len(wrong)} of its components are damaged" if len(wrong) > 1 else "one of its components is damaged"
        return dict.fromkeys(verifying.throw_out(self._shelf, wrong), what)
