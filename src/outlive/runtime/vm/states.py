"""What a virtual machine is doing, in words of ours, from what the emulator says.

Pure. The invariant: a state that is not known is never taken for a bad one, since what is held to be bad is ended.
"""

from enum import StrEnum


class GuestState(StrEnum):
    """WAITING: for state to come, as a standby does.  MOVED: its state went to another host and it stands still.

    HALTED_BY_DISK: paused by the emulator, since a disk failed.  BROKEN: the emulator met an error of its own.
    """

    UNKNOWN = "unknown"
    WAITING = "waiting"
    PAUSED = "paused"
    RUNNING = "running"
    MOVED = "moved"
    POWERED_OFF = "powered-off"
    PANICKED = "panicked"
    HALTED_BY_DISK = "halted-by-disk"
    BROKEN = "broken"


_FROM_QMP = {
    "inmigrate": GuestState.WAITING,
    "prelaunch": GuestState.PAUSED,
    "paused": GuestState.PAUSED,
    "suspended": GuestState.PAUSED,
    "finish-migrate": GuestState.PAUSED,
    "restore-vm": GuestState.PAUSED,
    "save-vm": GuestState.PAUSED,
    "colo": GuestState.PAUSED,
    "debug": GuestState.PAUSED,
    "running": GuestState.RUNNING,
    "postmigrate": GuestState.MOVED,
    "shutdown": GuestState.POWERED_OFF,
    "guest-panicked": GuestState.PANICKED,
    "io-error": GuestState.HALTED_BY_DISK,
    "watchdog": GuestState.BROKEN,
    "internal-error": GuestState.BROKEN,
}


def from_qmp(status: str) -> GuestState:
    """Read the `status` of `query-status`."""
    return _FROM_QMP.get(status, GuestState.UNKNOWN)
