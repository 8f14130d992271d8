"""One agent at a time for a data folder and for a run folder.

Held by a lock on a small file in each, which the kernel lets go of with the process, however that ends. The file
says who holds it, for people only.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from outlive.errors import Failed, RefusedForSafety

NAME = "agent.lock"
LOCKS = Path("/proc/locks")


class AgentRunning(RefusedForSafety):
    """Another agent has this folder."""

    id = "agent.running"


class FolderUnusable(Failed):
    """A folder that the agent needs cannot be made or written."""

    id = "agent.folder-unusable"


@contextmanager
def alone_in(*folders: Path) -> Iterator[None]:
    """Have these folders to oneself until the block ends, making those that are missing (mode 0711).

    Raises AgentRunning or FolderUnusable.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(folders):
            held.callback(os.close, _locked(folder))
        yield


def holder(folder: Path) -> int | None:
    """The pid of the agent that has this folder, also of one that is only starting; None when nobody has it.

    By the kernel's list of locks (proc(5), /proc/locks), since trying the lock would be in an agent's way.
    """
    try:
        found = (folder / NAME).stat()
        lines = LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        words = line.split()
        if len(words) == 8 and words[1] == "FLOCK" and words[5] == file:
            return int(words[4])
    return None


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise FolderUnusable(
            f"The agent cannot use its folder {folder}.",
            cause=error.strerror or str(error),
            remedy="make it writable for root, or name another in the agent file",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise AgentRunning(
            f"Another agent uses {folder}.",
            cause=f"it is process {holder}" if holder.isdigit() else "",
            remedy="end that one first; one machine needs only one agent",
        ) from error
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
