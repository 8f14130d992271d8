"""All network cards of one protected machine, and the one place where its frames are let go.

The frames themselves are moved by `frames`, in C. Here stands the rule: in hold, frames leave only when the epoch that
sent them is acknowledged; all at once only when the caller shows that its agent won the store, or that nobody followed
yet. What is sent again after a takeover is sorted out here too: only what a receiver must bear twice anyway.
"""

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from outlive.replication.comm_config import Held
from outlive.replication.frames import FrameHold, guest_socket, join_frames, split_frames
from outlive.replication.library import KernelFailed

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_RARP = 0x8035
_QUEUE_LENGTH = Path("/proc/sys/net/unix/max_dgram_qlen")
_FRAMES_QUEUED = 2000


class Freedom(Enum):
    """Why a guest's frames may leave without an acknowledgement."""

    WON_THE_STORE = "the placement says that this host goes on alone"
    TOOK_OVER = "the placement says that this host is the primary"


class Ports:
    """The ports of one machine, in the order of its configuration. Methods may be called from several threads."""

    def __init__(self, nics: Sequence[Held], *, collect: bool, owner: tuple[int, int] | None = None) -> None:
        """Open taps and sockets. collect: keep incoming frames, as a standby does. Raises KernelFailed.

        owner: the user and group that QEMU runs as, who may send to our sockets; None: ours.
        """
        self._nics = tuple(nics)
        self._taps: list[int] = []
        self._sockets: list[socket.socket] = []
        self._holds: list[FrameHold] = []
        self._connected = [False] * len(nics)
        self._held = False
        self._marks: dict[int, tuple[int, ...]] = {}
        self._last_marks: tuple[int, ...] = ()
        self._acknowledged = 0
        self._lock = threading.Lock()
        _lengthen_queues()
        try:
            for nic in nics:
                self._taps.append(_open_tap(nic.tap))
                self._sockets.append(guest_socket(Path(nic.local_socket)))
                if owner is not None:
                    os.chown(nic.local_socket, *owner)
                self._holds.append(FrameHold(self._taps[-1], self._sockets[-1].fileno(), collect=collect))
        except BaseException:
            self.close()
            raise
        self.connect()

    def connect(self) -> bool:
        """Connect to QEMU's ends where that is still to be done; returns whether all are."""
        for index, nic in enumerate(self._nics):
            if not self._connected[index]:
                try:
                    self._sockets[index].connect(nic.remote_socket)
                    self._connected[index] = True
                except OSError:
                    continue
        return all(self._connected)

    @property
    def waiting(self) -> list[int]:
        """Descriptors that are readable while a held frame waits for the next cut."""
        return [hold.waiting_fd for hold in self._holds]

    @property
    def copied(self) -> list[int]:
        """Descriptors that are readable when incoming frames were copied for the standby."""
        return [hold.copied_fd for hold in self._holds]

    @property
    def anything_waits(self) -> bool:
        waiting = self.waiting
        return bool(waiting and select.select(waiting, [], [], 0)[0])

    @property
    def held_frames(self) -> int:
        return sum(hold.counts().held_frames for hold in self._holds)

    def hold(self) -> None:
        """Let nothing leave from now on but by `acknowledged`; and copy incoming frames for the standby."""
        with self._lock:
            self._marks.clear()
            self._acknowledged = 0
            self._held = True
        for hold in self._holds:
            hold.hold()
            hold.copy_inbound(True)
        self._last_marks = tuple(hold.cut() for hold in self._holds)

    def cut(self, epoch: int) -> None:
        """Take what the stopped guest has sent into this epoch."""
        assert self._held
        marks = tuple(hold.cut() for hold in self._holds)
        with self._lock:
            self._marks[epoch] = marks

    def output(self, epoch: int) -> list[bytes]:
        """The frames of this epoch, the newest cut, for each port; they have not left yet."""
        marks, before = self._marks[epoch], self._last_marks
        self._last_marks = marks
        return [hold.output(first, last) for hold, first, last in zip(self._holds, before, marks, strict=True)]

    def acknowledged(self, epoch: int) -> None:
        """The standby has this epoch whole: its frames leave."""
        with self._lock:
            assert self._held, "an acknowledgement without hold"
            assert epoch in self._marks, "an acknowledgement of what was never cut"
            self._acknowledged = max(self._acknowledged, epoch)
            self._release(epoch)

    def _release(self, epoch: int) -> None:
        # The one place where held frames leave.
        assert epoch <= self._acknowledged, "a frame may not leave before the standby has the state that sent it"
        marks = self._marks[epoch]
        for old in [number for number in self._marks if number <= epoch]:
            del self._marks[old]
        for hold, mark in zip(self._holds, marks, strict=True):
            hold.release(mark)

    def free(self, because: Freedom) -> int:
        """Let go of all that is held, and hold nothing from now on. Returns how many frames were held."""
        assert isinstance(because, Freedom)
        count = self.held_frames
        with self._lock:
            self._held = False
            self._marks.clear()
        for hold in self._holds:
            hold.copy_inbound(False)
            hold.free()
        return count

    def discard(self) -> None:
        """Forget what is held: it never was."""
        for hold in self._holds:
            hold.discard()

    def take_copied(self) -> list[tuple[int, bytes]]:
        """Incoming frames since the last call: (port, list of frames)."""
        taken = [(index, hold.take_copied()) for index, hold in enumerate(self._holds)]
        return [(index, frames) for index, frames in taken if frames]

    def forget_kept(self) -> None:
        """A standby's ports: what was kept so far is known to the state that just arrived."""
        for hold in self._holds:
            hold.forget_kept()

    def announce(self) -> None:
        """Tell switches where the machine's addresses are now (RARP, as other hypervisors do)."""
        for nic, hold in zip(self._nics, self._holds, strict=True):
            hold.send_out(join_frames([rarp(nic.mac)]))

    def replay(self, inbound: Sequence[tuple[int, bytes]], output: Sequence[Sequence[bytes]]) -> int:
        """After a takeover: repeat what may have been lost with the old primary; returns how many frames.

        inbound: frames that the old primary took, by port, oldest first. output: the last epochs' frames, by epoch
        and port. Then the frames that reached the standby's own port are delivered, which the guest never saw.
        """
        count = 0
        for epoch in output:
            for hold, frames in zip(self._holds, epoch, strict=True):
                again = [frame for frame in split_frames(frames) if may_repeat(frame)]
                count += len(again)
                hold.send_out(join_frames(again))
        for port, frames in inbound:
            again = [frame for frame in split_frames(frames) if may_repeat(frame)]
            count += len(again)
            self._holds[port].inject_inbound(join_frames(again))
        for hold in self._holds:
            count += hold.counts().kept_frames
            hold.deliver()
        return count

    def close(self) -> None:
        """End all ports; held frames are lost."""
        for hold in self._holds:
            hold.close()
        for port in self._sockets:
            port.close()
        for tap in self._taps:
            os.close(tap)
        self._holds, self._sockets, self._taps = [], [], []


def may_repeat(frame: bytes) -> bool:
    """Whether whoever gets this frame twice is unharmed: TCP numbers its bytes, ARP and neighbour discovery repeat.

    A datagram's receiver may well act twice, so those are left to their senders' own patience.
    """
    kind = int.from_bytes(frame[12:14], "big")
    if kind in (0x0806, _RARP):
        return True
    if kind == 0x0800 and len(frame) >= 34:
        return frame[23] == socket.IPPROTO_TCP
    if kind == 0x86DD and len(frame) >= 54:
        return frame[20] == socket.IPPROTO_TCP
    return False


def rarp(mac: str) -> bytes:
    """The frame by which a machine says where it is, though it has no address yet (RFC 903)."""
    own = bytes(int(part, 16) for part in mac.split(":"))
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 3) + own + bytes(4) + own + bytes(4)
    return (b"\xff" * 6 + own + struct.pack(">H", _RARP) + body).ljust(60, b"\0")


def frame_count(lists: Iterable[bytes]) -> int:
    """How many frames these lists have together."""
    return sum(len(split_frames(frames)) for frames in lists)


def _open_tap(name: str) -> int:
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KernelFailed("This host has no taps.", cause=str(error)) from error
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22s", name.encode(), _IFF_TAP_NO_PI, b""))
    except OSError as error:
        os.close(tap)
        raise KernelFailed(f"The tap {name} cannot be opened.", cause=str(error)) from error
    return tap


def _lengthen_queues() -> None:
    # Ten frames, the system's default, is less than one burst of a guest; the setting is the network namespace's.
    try:
        if int(_QUEUE_LENGTH.read_text()) < _FRAMES_QUEUED:
            _QUEUE_LENGTH.write_text(str(_FRAMES_QUEUED))
    except (OSError, ValueError):
        return
