"""Entering a named network namespace from a thread, which stays in it: one that does this should be of its own."""

import ctypes
import os

_CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    """Bring the calling thread, and it alone, into the namespace. Raises OSError."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
