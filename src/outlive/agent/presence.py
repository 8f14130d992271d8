"""Whether an agent runs on this host, and which process it is, by asking the kernel who listens at its socket.

No file with a number in it can be out of date here: the kernel names the process itself.
"""

import os
import socket
import struct
from pathlib import Path

API_SOCKET = "api.sock"
GUARD_SOCKET = "guard.sock"
CONNECT_S = 2.0
_CREDENTIALS = struct.Struct("iII")


def listener(path: Path) -> int | None:
    """The pid of the process that listens at a Unix socket, None when nobody does. It may block for CONNECT_S."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as connection:
            connection.settimeout(CONNECT_S)
            try:
                connection.connect(str(path))
                raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            except OSError:
                continue
            pid, _, _ = _CREDENTIALS.unpack(raw)
            return int(pid)
    return None


def agent_pid(run_folder: Path) -> int | None:
    """The pid of the agent whose run folder this is."""
    return listener(run_folder / API_SOCKET)


def kept_by(pid: int) -> int | None:
    """The pid of the keeper that starts this agent again when it dies; None without one."""
    try:
        fields = _after_name(pid)
        parent = int(fields[1])
        words = _command(parent)
    except (OSError, ValueError, IndexError):
        return None
    return parent if "agent" in words and "--keep" in words else None


def _after_name(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before them may hold anything."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _command(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")]
