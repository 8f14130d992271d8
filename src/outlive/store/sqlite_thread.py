"""A thread that owns one connection, and the calls that the event loop makes to it.

The loop never waits for the disk: a call is put in the thread's queue and awaited up to its time limit. Each
call has one gate that is passed once: either the thread passes it, just before COMMIT, or the waiter closes
it by giving up, and then nothing of the call can take effect. So a caller always knows which of the two it
was: surely not done, or possibly done.
"""

import asyncio
import contextlib
import math
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from .base import StoreError, StoreTimeout, StoreUnavailable, StoreUncertain
from .boot_clock import boot_time_s
from .sqlite_file import is_busy, translate
from .sqlite_locks import who_holds_up

T = TypeVar("T")

_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.01
_WHO_AFTER_S = 0.1

_jitter = random.Random()  # its own, so that a seeded generator elsewhere is left alone

log = structlog.get_logger()


class _Gate(Enum):
    OPEN = auto()
    COMMITTING = auto()
    GIVEN_UP = auto()
    FINISHED = auto()


class _Signal(Enum):
    POKE = auto()
    STOP = auto()


class Call(Generic[T]):
    """One piece of work for the thread, with a deadline, and what became of it.

    name: for messages, as in "the store's NAME". notify: called from the thread when the call has finished.
    """

    def __init__(self, name: str, work: "Callable[[Call[T]], T]", timeout_s: float, notify: Callable[[], None]) -> None:
        self.name = name
        self._work = work
        self._timeout_s = timeout_s
        self._deadline_at = boot_time_s() + timeout_s
        self._notify = notify
        self._lock = threading.Lock()
        self._gate = _Gate.OPEN
        self._hindered_by = ""
        self._committed = False
        self._abandoned = False
        self._result: T | None = None
        self._error: StoreError | None = None

    # In the thread.

    def run(self, path: Path) -> None:
        """Do the work unless its time has passed, and tell the waiter."""
        try:
            self.check_time()
            result = self._work(self)
        except Exception as error:
            self.finish(None, translate(error, path, committing=self._gate is _Gate.COMMITTING))
        else:
            self.finish(result, None)

    def hindered_by(self, obstacle: str) -> None:
        """What to tell as the cause if the time runs out; empty: not known."""
        self._hindered_by = obstacle

    def check_time(self) -> None:
        """Raise StoreTimeout when the deadline has passed or the waiter has given up."""
        if self._gate is _Gate.GIVEN_UP or boot_time_s() > self._deadline_at:
            raise self._timeout()

    def pass_gate(self) -> None:
        """From here on the work may take effect. Raises StoreTimeout when the waiter was first."""
        with self._lock:
            self.check_time()
            self._gate = _Gate.COMMITTING

    def mark_committed(self) -> None:
        """The work has taken effect, whatever happens to its answer."""
        self._committed = True

    def finish(self, result: T | None, error: StoreError | None) -> None:
        """Settle the outcome. What comes after the deadline is no answer: it is uncertain or too late."""
        with self._lock:
            if error is None and boot_time_s() > self._deadline_at:
                error = self._uncertain() if self._committed else self._timeout()
            was_reported_uncertain = self._abandoned and self._gate is _Gate.COMMITTING
            self._gate = _Gate.FINISHED
            self._result, self._error = result, error
        if was_reported_uncertain:
            log.warning("store.write_finished_late", call=self.name, committed=self._committed)
        self._notify()

    # In the waiter.

    def outcome(self) -> T:
        """The result, or its error; a call that has not finished is given up now."""
        with self._lock:
            if self._gate is _Gate.OPEN:
                self._gate = _Gate.GIVEN_UP
            if self._gate is not _Gate.FINISHED:
                self._abandoned = True
                raise self._uncertain() if self._gate is _Gate.COMMITTING else self._timeout()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # a finished call without error has its result

    def _timeout(self) -> StoreTimeout:
        return StoreTimeout(
            f"The store's {self.name} was not done within {self._timeout_s:g} s; it will not be done.",
            cause=self._hindered_by or "another process held the store's lock, or its disk did not answer",
            remedy="try again; if it lasts, look for a stuck process that has the store open",
        )

    def _uncertain(self) -> StoreUncertain:
        return StoreUncertain(
            f"The store's {self.name} did not finish within {self._timeout_s:g} s; it may have been done.",
            cause="its disk was slow to confirm the write",
            remedy="read the store again to see",
        )


def patiently(call: "Call[Any]", path: Path, step: Callable[[], T]) -> T:
    """Repeat `step` while another connection is in the way, up to the call's deadline."""
    pause_s = _FIRST_PAUSE_S
    ask_who_at = boot_time_s() + _WHO_AFTER_S
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        call.check_time()
        if boot_time_s() >= ask_who_at:
            call.hindered_by(who_holds_up(path))
            ask_who_at = math.inf
        time.sleep(pause_s * _jitter.uniform(0.5, 1.5))
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


class StoreThread:
    """Runs calls one after another, and `idle` after each and, with `interval_s`, about that often between them.

    Nothing here waits for a thread that hangs in its disk: it is left behind as a daemon.
    """

    def __init__(self, name: str, path: Path, idle: Callable[[], None], interval_s: float | None = None) -> None:
        self._path = path
        self._idle = idle
        self._interval_s = interval_s
        self._queue: queue.SimpleQueue[Call[Any] | _Signal] = queue.SimpleQueue()
        self._closing: Callable[[], None] = lambda: None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"outlive-store-{name}", daemon=True)
        self._thread.start()

    async def call(self, name: str, work: "Callable[[Call[T]], T]", timeout_s: float) -> T:
        """Have `work` done in the thread. Raises what it raised, StoreTimeout or StoreUncertain.

        A waiter that is cancelled gives the work up: it will not take effect unless it was just committing.
        """
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def wake() -> None:
            if not finished.done():
                finished.set_result(None)

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        call = Call(name, work, timeout_s, notify)
        self.submit(call)
        try:
            await asyncio.wait({finished}, timeout=timeout_s)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                call.outcome()
            raise
        return call.outcome()

    def submit(self, call: Call[Any]) -> None:
        """Put a call in the queue; nobody need wait for it."""
        if self._stopping:
            raise closed(self._path)
        self._queue.put(call)

    def poke(self) -> None:
        """Have `idle` run soon."""
        if not self._stopping:
            self._queue.put(_Signal.POKE)

    def stop(self, closing: Callable[[], None]) -> None:
        """Take no more calls; finish those begun, then run `closing` in the thread, once."""
        if not self._stopping:
            self._stopping = True
            self._closing = closing
            self._queue.put(_Signal.STOP)

    async def join(self, timeout_s: float) -> bool:
        """Wait for a stopped thread; False when it still hangs."""
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        next_idle_at = time.monotonic()
        while True:
            wait_s = None
            if self._interval_s is not None:
                wait_s = max(0.0, next_idle_at - time.monotonic())
            with contextlib.suppress(queue.Empty):
                call = self._queue.get(timeout=wait_s)
                if call is _Signal.STOP:
                    break
                if isinstance(call, Call):
                    call.run(self._path)
            self._idle()
            next_idle_at = time.monotonic() + (self._interval_s or 0.0)
        self._refuse_the_rest()
        self._closing()

    def _refuse_the_rest(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._queue.get_nowait()
                if isinstance(call, Call):
                    call.finish(None, closed(self._path))


def closed(path: Path) -> StoreUnavailable:
    """What a store that was closed answers."""
    return StoreUnavailable(f"The store {path} was closed by this program.")
