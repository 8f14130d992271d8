"""Signs of life between two communication managers, sent and judged by a thread that does nothing else.

A datagram each 20 ms, both ways, with a keyed tag: a stalled `stop`, a long epoch or a slow disk delays none of them,
and after a power cut they simply cease. Beside them counts whatever the stream brings. The thread measures how late it
runs itself and does not count that as the peer's silence, up to a limit. That the peer is alive but gets nowhere is
judged too, from the progress it tells. What to do about it is the caller's.
"""

import contextlib
import hashlib
import hmac
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from outlive.replication.link import boot_s
from outlive.replication.stream import Reign

INTERVAL_S = 0.02
KEY_BYTES = 32
_TAG_BYTES = 16
_MAGIC = b"OLKA"
_BODY = struct.Struct("<4sBxxxQQQQQ")
SIZE = _BODY.size + _TAG_BYTES
_LATE_S = 0.03
_LEAST_NAP_S = 0.001
_MOST_DISCOUNT_S = 1.0


class Silence:
    """How long a peer has been silent, in seconds, apart from our own lateness. Pure: times are arguments."""

    def __init__(self, now: float, *, tick_s: float = INTERVAL_S, most_discount_s: float = _MOST_DISCOUNT_S) -> None:
        self._tick_s = tick_s
        self._most = most_discount_s
        self._heard = self._ticked = now
        self._discount = 0.0
        self.stalled_s = 0.0

    def tick(self, now: float) -> None:
        """The observer runs; to be said each `tick_s`."""
        late = now - self._ticked - self._tick_s
        self._ticked = now
        if late > _LATE_S:
            self._discount = min(self._most, self._discount + late)
            self.stalled_s += late

    def heard(self, at: float) -> None:
        """Something of the peer came."""
        if at > self._heard:
            self._heard = at
            self._discount = 0.0

    def silent_s(self, now: float) -> float:
        return max(0.0, now - self._heard - self._discount)


@dataclass(frozen=True, slots=True)
class Pulse:
    """One sign of life. from_primary: which side. progress: grows while its sender gets anywhere."""

    from_primary: bool
    counter: int
    progress: int


def pack(pulse: Pulse, reign: Reign, key: bytes) -> bytes:
    """The datagram of a pulse."""
    body = _BODY.pack(
        _MAGIC, pulse.from_primary, reign.scope, reign.generation, reign.pairing, pulse.counter, pulse.progress
    )
    return body + _tag(body, key)


def unpack(datagram: bytes, reign: Reign, key: bytes) -> Pulse | None:
    """Read a datagram; None when it is not a pulse of this reign."""
    if len(datagram) != SIZE:
        return None
    body, tag = datagram[: _BODY.size], datagram[_BODY.size :]
    if not hmac.compare_digest(tag, _tag(body, key)):
        return None
    magic, side, scope, generation, pairing, counter, progress = _BODY.unpack(body)
    if magic != _MAGIC or side > 1 or (scope, generation, pairing) != (reign.scope, reign.generation, reign.pairing):
        return None
    return Pulse(bool(side), counter, progress)


class KeepAlive:
    """The thread of one pairing. told_at: when we last gave a sign of life, in seconds on the boot clock.

    primary:    which side we are; the standby learns the primary's address from its first valid datagram.
    progress:   what we tell of our own, asked each time; must not block.
    other_sign: when else something of the peer came, in seconds on the boot clock: the stream's last byte.
    judge:      called each time with (silence in seconds, seconds without the peer's progress); must not block.
    limit_s:    how long a silence is going to matter: the thread wakes up just then.
    """

    def __init__(
        self,
        port: socket.socket,
        reign: Reign,
        key: bytes,
        *,
        primary: bool,
        progress: Callable[[], int],
        other_sign: Callable[[], float],
        judge: Callable[[float, float], None],
        limit_s: Callable[[], float],
    ) -> None:
        self._port = port
        self._reign = reign
        self._key = key
        self._primary = primary
        self._progress = progress
        self._other_sign = other_sign
        self._judge = judge
        self._limit_s = limit_s
        self._peer: tuple[str, int] | None = None
        self._ended = threading.Event()
        self.silence = Silence(boot_s())
        self.told_at = boot_s()
        port.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; nothing is judged any more once this returns, though the thread may take a moment to go."""
        self._ended.set()

    def _run(self) -> None:
        # Where it is allowed, ahead of everybody else: a loaded host must not look like a dead one.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        counter, newest, progress, progressed_at = 0, -1, -1, boot_s()
        next_at = boot_s()
        while not self._ended.is_set():
            try:
                now = boot_s()
                ripe_s = max(_LEAST_NAP_S, self._limit_s() - self.silence.silent_s(now))
                select.select([self._port], [], [], max(0.0, min(next_at - now, ripe_s)))
            except (OSError, ValueError):
                return  # the port was closed, after `stop`
            for pulse in self._arrived():
                if pulse.counter > newest:
                    newest = pulse.counter
                    self.silence.heard(boot_s())
                    if pulse.progress > progress:
                        progress, progressed_at = pulse.progress, boot_s()
            now = boot_s()
            self.silence.heard(self._other_sign())
            due = now >= next_at
            if due:
                next_at = max(next_at + INTERVAL_S, now)
                self.silence.tick(now)
            # Before the next sign of life, since it matters how long there was none.
            self._judge(self.silence.silent_s(now), now - progressed_at)
            if due and not self._ended.is_set():
                counter += 1
                self._send(Pulse(self._primary, counter, self._progress()))
                self.told_at = now

    def _arrived(self) -> list[Pulse]:
        pulses = []
        for _ in range(64):
            try:
                datagram, sender = self._port.recvfrom(SIZE + 1)
            except OSError:
                break  # nothing more, or the peer's port is closed: its silence will tell
            pulse = unpack(datagram, self._reign, self._key)
            if pulse is not None and pulse.from_primary is not self._primary:
                pulses.append(pulse)
                if not self._primary:
                    self._peer = (sender[0], sender[1])
        return pulses

    def _send(self, pulse: Pulse) -> None:
        datagram = pack(pulse, self._reign, self._key)
        try:
            if self._primary:
                self._port.send(datagram)
            elif self._peer is not None:
                self._port.sendto(datagram, self._peer)
        except OSError:
            return  # a link that is down shows as silence at both ends


def _tag(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=_TAG_BYTES).digest()
