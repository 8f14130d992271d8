"""Making the journal durable in the background, and waiting for that where it matters.

One save at a time runs in a thread; of those that wait only the newest is written, since it says all that the
others said. A disk that cannot take it is told once, tried again, and known to whoever must not go on
without.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from outlive.cluster.commands import Journal

from . import journal as journals

RETRY_S = 1.0
SAVED_WITHIN_S = 10.0

log = structlog.get_logger()


class JournalKeeper:
    """Keeps the journal in `folder`: `save` hands one over, `run` writes, `saved` waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted = Journal()
        self._handed = 0
        self._written = 0
        self._problem = ""
        self._moved = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    @property
    def handed(self) -> int:
        """The number of the newest journal handed over: what `saved` is asked about."""
        return self._handed

    def save(self, journal: Journal) -> None:
        """Have this journal written in place of all before it."""
        self._wanted = journal
        self._handed += 1
        self._wake()

    async def saved(self, number: int) -> str:
        """Wait until the journal of that number, or a newer one, is durable; '' then, otherwise why it is not."""
        try:
            async with asyncio.timeout(SAVED_WITHIN_S):
                while self._written < number:
                    if self._problem:
                        return self._problem
                    await self._moved.wait()
        except TimeoutError:
            return f"the disk did not take it within {SAVED_WITHIN_S:g} s"
        return ""

    async def run(self) -> None:
        """Write what is handed over until cancelled."""
        while True:
            if self._written == self._handed:
                await self._moved.wait()
                continue
            number, wanted = self._handed, self._wanted
            try:
                # A thread of its own: others may all hang in a directory service or a slow disk.
                await asyncio.get_running_loop().run_in_executor(self._thread, journals.save, self._folder, wanted)
            except OSError as error:
                if not self._problem:
                    log.error("journal.not_saved", folder=str(self._folder), reason=error.strerror or str(error))
                self._problem = error.strerror or str(error)
                self._wake()
                await asyncio.sleep(RETRY_S)
                continue
            self._written, self._problem = number, ""
            self._wake()

    def _wake(self) -> None:
        """Wake everybody who waits; an event of their own, so that nobody's clearing robs another."""
        self._moved.set()
        self._moved = asyncio.Event()
