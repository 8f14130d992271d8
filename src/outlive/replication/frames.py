"""The network frames of a protected guest's port, between its QEMU and a tap: let through, held, released, kept.

A thin binding of `native/framehold.c`, in which a thread of its own moves the frames, so that they flow while
Python is busy. Outgoing (guest to outside) frames are free at first, or held until a `release`; incoming ones are
delivered at once, or on a standby kept. Nothing here decides when. Invariant: in hold, a frame that was not part
of a released cut never reaches the tap.

Lists of frames travel as bytes: each frame after its length (unsigned 32 bits, little endian).
"""

import ctypes
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outlive.errors import Failed
from outlive.replication.library import COUNTED, Counters, KernelFailed, done, pages_library

# What QEMU sends at most in one frame, with room for its headers.
MOST_FRAME_BYTES = 69_632


class FramesInvalid(Failed):
    """Bytes that should be a list of frames are not."""

    id = "replication.frames-invalid"


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """What went through, since the hold was opened. `held_*` is what is held at present.

    guest_*: taken from the guest; sent_*: given to the tap, send_dropped: the tap refused them (it is down);
    tap_*: taken from the tap; delivered_frames: given to the guest, deliver_dropped: no QEMU was there;
    kept_frames: kept in all on a standby, kept_dropped: the oldest, for want of room; copied_frames: copied for
    the standby, copy_dropped: not copied for want of room; full_times: how often the hold was full and the guest
    had to wait. tap_errno, guest_errno: why that end is no longer read, 0 while it is.
    """

    guest_frames: int
    guest_bytes: int
    sent_frames: int
    sent_bytes: int
    send_dropped: int
    tap_frames: int
    tap_bytes: int
    delivered_frames: int
    deliver_dropped: int
    kept_frames: int
    kept_dropped: int
    copied_frames: int
    copy_dropped: int
    held_frames: int
    held_bytes: int
    full_times: int
    tap_errno: int
    guest_errno: int


class FrameHold:
    """One port's frames. Opening starts its thread, `close` ends it; methods may be called from any one thread."""

    def __init__(
        self,
        tap_fd: int,
        guest_fd: int,
        *,
        collect: bool = False,
        held_bytes: int = 16 << 20,
        inbound_bytes: int = 2 << 20,
        copied_bytes: int = 2 << 20,
    ) -> None:
        """Begin to move frames: outgoing ones free, incoming ones delivered, or with `collect` kept.

        tap_fd:    an open tap (no packet information, no offload header); becomes non-blocking, stays the caller's.
        guest_fd:  our datagram socket, see `guest_socket`; likewise.
        held_bytes, inbound_bytes, copied_bytes: bounds of frames held, kept or waiting for the guest, and copied
                   for the standby; each from 256 KiB to 4 GiB.
        Raises KernelFailed.
        """
        handle = ctypes.c_void_p()
        opened = pages_library().framehold_open(
            tap_fd, guest_fd, held_bytes, inbound_bytes, copied_bytes, int(collect), ctypes.byref(handle)
        )
        done(opened, "move a guest's frames")
        self._handle: ctypes.c_void_p | None = handle
        self._copied_room = bytearray(copied_bytes)
        self._held_bytes = held_bytes

    @property
    def waiting_fd(self) -> int:
        """Readable once a frame is held that came after the last cut; `cut` makes it unreadable again."""
        return int(pages_library().framehold_waiting_fd(self._open))

    @property
    def copied_fd(self) -> int:
        """Readable once an incoming frame was copied; `take_copied` makes it unreadable again."""
        return int(pages_library().framehold_copied_fd(self._open))

    def hold(self) -> None:
        """Hold outgoing frames from now on; what was taken from the guest before still goes out."""
        done(pages_library().framehold_hold(self._open), "hold a guest's frames")

    def free(self) -> None:
        """Send all that is held, and let outgoing frames through from now on."""
        done(pages_library().framehold_free(self._open), "free a guest's frames")

    def cut(self) -> int:
        """Take all frames that the guest, which stands still, has sent, and return the mark behind them."""
        return int(pages_library().framehold_cut(self._open))

    def release(self, mark: int) -> None:
        """Send the held frames up to a mark; one before what was released already changes nothing.

        Raises KernelFailed for a mark that no cut returned yet.
        """
        done(pages_library().framehold_release(self._open, mark), "release a guest's frames")

    def discard(self) -> None:
        """Forget all that is held: this guest's epoch never was."""
        done(pages_library().framehold_discard(self._open), "discard a guest's frames")

    def output(self, after: int, until: int) -> bytes:
        """Return the frames held between two marks, as a list; not to be called for released ones.

        Raises KernelFailed when some of them were sent already.
        """
        room = bytearray(max(4, min(until - after, self._held_bytes)))
        address = (ctypes.c_ubyte * len(room)).from_buffer(room)
        length = done(
            pages_library().framehold_output(self._open, after, until, address, len(room)), "copy a guest's frames"
        )
        return bytes(memoryview(room)[:length])

    def collect(self) -> None:
        """Keep incoming frames from now on instead of delivering them; the oldest go when there is no room."""
        done(pages_library().framehold_collect(self._open), "keep incoming frames")

    def forget_kept(self) -> None:
        """Forget the incoming frames kept so far: an epoch arrived that knows them, or makes them come again."""
        done(pages_library().framehold_forget(self._open), "forget incoming frames")

    def deliver(self, max_age_s: float = 10.0) -> None:
        """Deliver the frames kept that are not older than this, then incoming ones at once."""
        done(pages_library().framehold_deliver(self._open, int(max_age_s * 1e9)), "deliver incoming frames")

    def copy_inbound(self, on: bool) -> None:
        """Copy each incoming frame aside for the standby from now on, or stop; what was copied is forgotten."""
        done(pages_library().framehold_copy_inbound(self._open, int(on)), "copy incoming frames")

    def take_copied(self) -> bytes:
        """Return, as a list, the incoming frames copied since the last call."""
        room = (ctypes.c_ubyte * len(self._copied_room)).from_buffer(self._copied_room)
        length = done(
            pages_library().framehold_take_copied(self._open, room, len(self._copied_room)), "copy incoming frames"
        )
        return bytes(memoryview(self._copied_room)[:length])

    def inject_inbound(self, frames: bytes) -> None:
        """Deliver a list of frames to the guest before any other, as if they came from outside.

        Raises KernelFailed when it is no list of frames, or more than a few megabytes wait already.
        """
        done(pages_library().framehold_inject(self._open, frames, len(frames)), "inject frames")

    def send_out(self, frames: bytes) -> int:
        """Send a list of frames to the tap now, past anything held; return how many the tap took.

        Raises KernelFailed when it is no list of frames.
        """
        return done(pages_library().framehold_send_out(self._open, frames, len(frames)), "send frames")

    def counts(self) -> FrameCounts:
        """Return what went through so far."""
        counters = Counters()
        pages_library().framehold_count(self._open, ctypes.byref(counters))
        return FrameCounts(*(getattr(counters, name) for name in COUNTED))

    def close(self) -> None:
        """End the thread; what is held is lost, the caller's descriptors stay open."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            pages_library().framehold_close(handle)

    @property
    def _open(self) -> ctypes.c_void_p:
        assert self._handle is not None, "the hold was closed"
        return self._handle


def guest_socket(ours: Path, buffer_bytes: int = 4 << 20) -> socket.socket:
    """Bind our end of a guest's port: a datagram socket at `ours`, in place of any left there.

    QEMU: `-netdev dgram,id=…,local.type=unix,local.path=THEIRS,remote.type=unix,remote.path=OURS`. Once QEMU
    runs, call `connect(THEIRS)` on it: until then nothing is delivered. Being connected also lifts the limit of
    net.unix.max_dgram_qlen (10 frames) for what QEMU sends; the other way frames wait instead of being lost.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            made.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        ours.unlink(missing_ok=True)
        made.bind(str(ours))
        os.chmod(ours, 0o600)
    except OSError as error:
        made.close()
        raise KernelFailed(f"The guest's port cannot be opened at {ours}.", cause=str(error)) from error
    return made


def join_frames(frames: Iterable[bytes]) -> bytes:
    """Return a list of frames as bytes."""
    return b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)


def split_frames(joined: bytes) -> list[bytes]:
    """Return the frames of a list. Raises FramesInvalid when it is none."""
    frames = []
    at = 0
    while at < len(joined):
        length = int.from_bytes(joined[at : at + 4], "little")
        if len(joined) - at < 4 + length or not 0 < length <= MOST_FRAME_BYTES:
            raise FramesInvalid("What came is not a list of frames.", cause=f"at byte {at} of {len(joined)}")
        frames.append(joined[at + 4 : at + 4 + length])
        at += 4 + length
    return frames
