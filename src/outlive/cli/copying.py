"""The line that tells how far a copy is: in place on a terminal, elsewhere anew at each tenth of it.

What is copied, and when to look again, is known to who waits for it.
"""

import sys
from dataclasses import dataclass

from .connect import say

_MIB = 1 << 20


@dataclass(slots=True)
class CopyLine:
    """One copy at a time. what: put before the figures. began_at, began_bytes: from when and where its rate counts."""

    what: str = ""
    began_at: float = 0.0
    began_bytes: int = 0
    tenth: int = -1
    in_place: bool = False

    def begin(self, at: float, done: int, what: str = "") -> None:
        """Another copy begins. at: seconds on our own clock; done: the bytes that are there already."""
        self.what, self.began_at, self.began_bytes, self.tenth = what, at, done, -1

    def tell(self, done: int, total: int, at: float) -> None:
        """Tell how far it is, in bytes, where that is worth a line."""
        tenth = min(10, done * 10 // total)
        rate = (done - self.began_bytes) / (at - self.began_at) if at > self.began_at else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        what = f"{self.what}: " if self.what else ""
        figures = f"{done // _MIB} of {total // _MIB} MiB, {rate / _MIB:.0f} MiB/s{left}"
        line = f"  {what}{done * 100 // total} % ({figures})"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self.in_place = True
        elif tenth != self.tenth:
            say(line)
        self.tenth = tenth

    def end(self) -> None:
        """Go on below what was told in place."""
        if self.in_place:
            sys.stderr.write("\n")
            self.in_place = False
