"""A terminal that is lent to a guest: every key goes through, and it is given back as it was, however that ends.

Where stdin is no terminal, the same in plain: bytes in, bytes out.
"""

import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminal:
    """Raw while the block lasts. A signal that ends us, or an error, restores it first; SIGTSTP has no effect."""

    def __init__(self, keys: int, screen: int) -> None:
        self._keys, self._screen = keys, screen
        self.is_real = os.isatty(keys)
        self._before: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._is_at_end = False

    def __enter__(self) -> Self:
        if self.is_real:
            self._before = termios.tcgetattr(self._keys)
            for number in _ENDING:
                self._handlers[number] = signal.signal(number, _end)
            self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
            tty.setraw(self._keys, termios.TCSANOW)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_real:
            # A terminal that has gone away needs nothing back.
            with suppress(termios.error, OSError):
                termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
                sys.stderr.write("\r\n")
                sys.stderr.flush()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def note(self, text: str) -> None:
        """Tell the user something, on a line of its own."""
        sys.stderr.write(f"\r\n[{text}]\r\n" if self.is_real else f"{text}\n")
        sys.stderr.flush()

    def show(self, piece: bytes) -> None:
        """Show what came. Raises OSError when nobody is there to see it."""
        while piece:
            piece = piece[os.write(self._screen, piece) :]

    def typed_from(self) -> list[int]:
        """What to wait for before `typed`; nothing once stdin has ended."""
        return [] if self._is_at_end else [self._keys]

    def typed(self, most: int) -> bytes:
        """What was typed; b"" at the end of stdin, or of the terminal."""
        try:
            found = os.read(self._keys, most)
        except OSError:
            found = b""
        self._is_at_end = not found
        return found

    def waited_for_key(self, key: bytes, wait_s: float) -> bool:
        """Wait, and say whether that key was typed meanwhile; others are dropped, since nobody would get them."""
        if not self.is_real:
            select.select([], [], [], wait_s)
            return False
        ready, _, _ = select.select(self.typed_from(), [], [], wait_s)
        return bool(ready) and bool(key) and key in self.typed(4096)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
