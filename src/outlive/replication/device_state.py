"""The state of a machine's devices: saved without its memory, and made loadable by what stands before it.

`xen-save-devices-state` writes the devices alone, within a millisecond. To load it again (and to be able to reset the
machine afterwards) QEMU wants a whole migration stream. So one real `migrate` is made early, with shared memory left
out, and cut at the place where the devices begin: that is the *prefix*. Prefix and a later device state, without its
8 bytes of magic and version, are a migration stream. The invariant: only what begins like the state that the same QEMU
saved at the same stop is ever spliced.
"""

import os
from pathlib import Path

from outlive.errors import Failed
from outlive.replication.qmp_line import QmpLine, command, memory_file

MAGIC = b"QEVM"
HEAD_BYTES = 8
_MATCHED_BYTES = 48
MOST_PREFIX_BYTES = 48 << 20
MOST_STATE_BYTES = 32 << 20
_MIGRATE_S = 30.0

STOP = command("stop")
CONTINUE = command("cont")


class DeviceStateUnusable(Failed):
    """QEMU's saved state does not look as it must."""

    id = "replication.device_state_unusable"


def save_command(path: Path) -> bytes:
    """The command that saves the devices of a stopped machine to that file."""
    return command("xen-save-devices-state", {"filename": str(path), "live": False})


def read_saved(path: Path) -> bytes:
    """What the last save wrote. Raises DeviceStateUnusable when it is no device state."""
    state = path.read_bytes()
    check(state)
    return state


def check(state: bytes | memoryview) -> None:
    """Raise DeviceStateUnusable unless these bytes can be a device state."""
    if not HEAD_BYTES + _MATCHED_BYTES <= len(state) <= MOST_STATE_BYTES or bytes(state[:4]) != MAGIC:
        raise DeviceStateUnusable("A saved device state does not begin as one.", cause=f"{len(state)} bytes")


def find_prefix(stream: bytes, state: bytes) -> bytes:
    """What stands before the devices in a migration stream. Both must be of the same stop of the same machine."""
    check(state)
    begin = state[HEAD_BYTES : HEAD_BYTES + _MATCHED_BYTES]
    position = stream.find(begin)
    if position <= 0 or stream[:4] != MAGIC or stream.find(begin, position + 1) >= 0:
        raise DeviceStateUnusable("The devices cannot be found in QEMU's migration stream.")
    if position > MOST_PREFIX_BYTES:
        raise DeviceStateUnusable(
            "QEMU's migration stream begins with too much memory of its own.", cause=str(position)
        )
    return stream[:position]


def splice(prefix: bytes, state: bytes | memoryview) -> bytes:
    """A migration stream that brings a waiting QEMU to that state, its memory being there already."""
    check(state)
    return b"".join((prefix, memoryview(state)[HEAD_BYTES:]))


def take_prefix(qmp: QmpLine, scratch: Path) -> bytes:
    """Take the prefix of a machine, running or stopped, which is as before afterwards.

    The guest is paused for some tens of milliseconds. To be done before disks are mirrored. scratch: a file in memory.
    """
    was_running = qmp.run("query-status")["status"] == "running"
    if was_running:
        qmp.run("stop")
    descriptor = memory_file("prefix", b"")
    try:
        ignore_shared(qmp)
        qmp.run("getfd", {"fdname": "prefix"}, descriptors=[descriptor])
        qmp.run("migrate", {"uri": "fd:prefix"})
        qmp.wait(lambda: _ended(qmp), within_s=_MIGRATE_S)
        qmp.write(save_command(scratch), 1)
        qmp.answer()
        stream = os.pread(descriptor, MOST_PREFIX_BYTES + MOST_STATE_BYTES, 0)
        return find_prefix(stream, read_saved(scratch))
    finally:
        os.close(descriptor)
        if was_running:
            qmp.run("cont")


def ignore_shared(qmp: QmpLine) -> None:
    """Leave memory that is shared out of migrations, both ways."""
    qmp.run("migrate-set-capabilities", {"capabilities": [{"capability": "x-ignore-shared", "state": True}]})


def load(qmp: QmpLine, prefix: bytes, state: bytes | memoryview, *, within_s: float = _MIGRATE_S) -> None:
    """Bring a QEMU that waits (`-incoming defer`) to that state; it is not running yet. Raises Failed's kinds."""
    descriptor = memory_file("state", splice(prefix, state))
    try:
        qmp.run("getfd", {"fdname": "state"}, descriptors=[descriptor])
    finally:
        os.close(descriptor)
    qmp.run("migrate-incoming", {"uri": "fd:state"})
    qmp.wait(lambda: qmp.run("query-status")["status"] != "inmigrate", within_s=within_s, nap_s=0.0005)


def _ended(qmp: QmpLine) -> bool:
    status = qmp.run("query-migrate").get("status")
    if status in ("failed", "cancelled"):
        raise DeviceStateUnusable("QEMU could not write its migration stream.", cause=str(status))
    return bool(status == "completed")
