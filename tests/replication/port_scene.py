"""A guest's port with QEMU's end and the tap's outside played by the test, in sockets that keep frames apart."""

import select
import socket
from pathlib import Path

from outlive.replication.frames import FrameHold, guest_socket

# How long to wait for a frame that must come, and to make sure that none does.
PATIENCE_S = 60.0
MOMENT_S = 0.05


def readable(fd: int, wait_s: float = PATIENCE_S) -> bool:
    return bool(select.select([fd], [], [], wait_s)[0])


class Port:
    """`qemu` is not connected, as QEMU's own socket is not; `outside` is the network behind the tap."""

    def __init__(
        self,
        folder: Path,
        *,
        connected: bool = True,
        collect: bool = False,
        held_bytes: int = 1 << 20,
        inbound_bytes: int = 1 << 20,
        copied_bytes: int = 1 << 20,
    ) -> None:
        self.ours, self.theirs = folder / "ours", folder / "theirs"
        self.tap, self.outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Small, so that a guest which takes no frames soon makes itself felt.
        self.guest = guest_socket(self.ours, buffer_bytes=100_000)
        self.qemu = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.qemu.bind(str(self.theirs))
        if connected:
            self.guest.connect(str(self.theirs))
        self.hold = FrameHold(
            self.tap.fileno(),
            self.guest.fileno(),
            collect=collect,
            held_bytes=held_bytes,
            inbound_bytes=inbound_bytes,
            copied_bytes=copied_bytes,
        )

    def guest_sends(self, *frames: bytes) -> None:
        for frame in frames:
            self.qemu.sendto(frame, str(self.ours))

    def outside_sends(self, *frames: bytes) -> None:
        for frame in frames:
            self.outside.send(frame)

    def outside_gets(self, count: int, wait_s: float = PATIENCE_S) -> list[bytes]:
        return self._gets(self.outside, count, wait_s)

    def guest_gets(self, count: int, wait_s: float = PATIENCE_S) -> list[bytes]:
        return self._gets(self.qemu, count, wait_s)

    def nothing_comes_out(self) -> bool:
        return not readable(self.outside.fileno(), MOMENT_S)

    def nothing_comes_in(self) -> bool:
        return not readable(self.qemu.fileno(), MOMENT_S)

    def close(self) -> None:
        self.hold.close()
        for end in (self.tap, self.outside, self.guest, self.qemu):
            end.close()

    @staticmethod
    def _gets(end: socket.socket, count: int, wait_s: float) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < count and readable(end.fileno(), wait_s):
            frames.append(end.recv(100_000))
        return frames
