"""Installing packages for workloads: in threads of their own, and of each name one at a time.

What is installed already is looked for in others: whoever needs no more waits for no command of another package.
An installation that nobody waits for any more ends soon by itself. Until it has, nobody else installs that name: its
thread may still have the folder in hand.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakValueDictionary

from outlive.cluster.pushed import Pinned
from outlive.depot.install import Installations, Progress, Step
from outlive.depot.installed import Installed

from .package_threads import Threads

MOST_AT_ONCE = 4
MOST_LOOKS = 2

Said = Callable[[str, str, str], None]
"""Takes a package, the step that it has come to, and a text about that."""


class Installing:
    """What is being installed on one host."""

    def __init__(self, installations: Installations) -> None:
        self._installations = installations
        self._threads = Threads("package-install", MOST_AT_ONCE)
        self._looks = Threads("package-look", MOST_LOOKS)
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Installed]] = set()

    async def installed(self, pins: Sequence[Pinned], said: Said) -> Installed:
        """Have these installed, each with those before it that it needs, and each step told; the last of them.

        Raises as `Installations.install`.
        """
        done: dict[str, Installed] = {}
        for pinned in pins:
            one = await self._one(pinned, tuple(done.values()), said)
            done[one.manifest.name] = one
        return done[pins[-1].name]

    async def _one(self, pinned: Pinned, before: tuple[Installed, ...], said: Said) -> Installed:
        cancelled = threading.Event()
        task = asyncio.create_task(self._in_turn(pinned, before, said, cancelled))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def _in_turn(
        self, pinned: Pinned, before: tuple[Installed, ...], said: Said, cancelled: threading.Event
    ) -> Installed:
        # Weak: a lock is there for as long as anybody is at it.
        turn = self._names.setdefault(pinned.name, asyncio.Lock())
        async with turn:
            found = await self._looks.left(self._installations.found_after, pinned.id, before)
            if found is not None:
                said(f"{found.manifest.name}@{found.manifest.version}", Step.INSTALLED.value, str(found.folder))
                return found
            loop = asyncio.get_running_loop()

            def report(progress: Progress) -> None:
                if progress.step not in (Step.FETCHING, Step.VERIFYING):
                    key = f"{progress.name}@{progress.version}"
                    loop.call_soon_threadsafe(said, key, progress.step.value, progress.detail)

            install = partial(self._installations.install_after, report=report, cancelled=cancelled)
            return await self._threads.run(install, pinned.id, before, cancelled=cancelled)

    def _ended(self, task: asyncio.Task[Installed]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen by whoever still waits
