"""Who keeps others from writing: the process that holds a lock of the store's log, as the kernel lists it.

For telling a person, and for whoever stops processes on purpose: one that is stopped in the middle of a
transaction keeps the lock, and with it the whole store, until it goes on or is killed. Nothing is locked here,
and the files are not opened: closing a descriptor would drop this process's own locks on them.
"""

import os
from pathlib import Path

# Bytes of the -shm file that SQLite locks to write, to take the log in, and to recover it.
_FIRST_BYTE, _LAST_BYTE = 120, 122

_LOCKS = Path("/proc/locks")


def write_lock_holder(path: Path) -> int | None:
    """The id of the process that holds up writing to the store at `path` now; None when none is seen.

    Processes outside the caller's process-id namespace cannot be seen.
    """
    try:
        inode = os.stat(f"{path}-shm").st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # "7: POSIX  ADVISORY  WRITE 1234 fe:00:5678 120 120"; the line of one that waits has "->" before POSIX.
        words = line.split()
        if words[1:2] != ["POSIX"] or words[3:4] != ["WRITE"] or len(words) < 8:
            continue
        holder, place, first, last = words[4:8]
        if place.rpartition(":")[2] != str(inode) or last == "EOF":
            continue
        if int(first) <= _LAST_BYTE and int(last) >= _FIRST_BYTE and int(holder) > 0:
            return int(holder)
    return None


def who_holds_up(path: Path) -> str:
    """The same as a clause for people, with what is known of the process; empty when none is seen."""
    holder = write_lock_holder(path)
    if holder is None:
        return ""
    try:
        # "1234 (name (of) it) T 1 …": the name may hold anything, so it ends at the last parenthesis.
        name, _, rest = Path(f"/proc/{holder}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    except OSError:
        return f"process {holder} held the store's lock"
    state = ", which is stopped," if rest.split()[:1] == ["T"] else ""
    return f"process {holder} ({name}){state} held the store's lock"
