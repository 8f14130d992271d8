"""What a receiver remembers of each sender, in memory that it shares with `liboutlive-heartbeats`.

The library takes datagrams from the socket and deals with those that only repeat what their sender said before; its
protocol is in the comment of `native/heartbeats.h`. Here is the memory, one place a sender, and a thin binding. All is
bounded by MOST_SENDERS; pages of places that were never used cost nothing. The interpreter's lock is released while
datagrams are taken, which nothing else may use this memory during: one thread does all of it.
"""

import ctypes
import mmap
from collections.abc import Mapping
from ctypes import POINTER, byref, c_double, c_int, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache

from outlive.cluster.repeats import Repeats
from outlive.errors import Failed
from outlive.native import find

from .record import MOST_BYTES
from .seal import Seal, Use

MOST_SENDERS = 16384
BATCH = 64
_SLOTS = 4 * MOST_SENDERS
_NAME_MOST = 63


class SendersUnavailable(Failed):
    """The library that receives heartbeats cannot be loaded."""

    id = "wire.library"


class Sender(ctypes.Structure):
    """`struct sender` of heartbeats.h. highest: the highest sequence; bit n of seen: whether highest - n was.

    heartbeat: the last heartbeat's.  floor: nothing up to it is accepted; next_floor: what becomes the floor with the
    next that is announced.  at: when it was last heard.
    """

    highest: int
    seen: int
    heartbeat: int
    floor: int
    next_floor: int
    at: float
    size: int
    name_size: int

    _fields_ = (
        ("highest", c_uint64),
        ("seen", c_uint64),
        ("heartbeat", c_uint64),
        ("floor", c_uint64),
        ("next_floor", c_uint64),
        ("at", c_double),
        ("size", c_uint16),
        ("name_size", c_uint8),
        ("name", c_uint8 * _NAME_MOST),
        ("last", c_uint8 * MOST_BYTES),
    )


class _Arrived(ctypes.Structure):
    _fields_ = (("source", c_uint8 * 28), ("size", c_uint32), ("data", c_uint8 * (MOST_BYTES + 4)))


class _All(ctypes.Structure):
    """`struct heartbeats`."""

    repeated: int

    _fields_ = (
        ("key", c_uint32 * 8),
        ("senders", c_void_p),
        ("index", c_void_p),
        ("said", c_void_p),
        ("said_at", c_void_p),
        ("arrived", c_void_p),
        ("left", c_void_p),
        ("slots", c_uint64),
        ("places", c_uint64),
        ("repeated", c_uint64),
    )


_FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "heartbeats_key": (None, [POINTER(_All), c_void_p, c_void_p]),
    "heartbeats_index": (None, [POINTER(_All)]),
    "heartbeats_add": (None, [POINTER(_All), c_uint64]),
    "heartbeats_take": (c_int64, [POINTER(_All), c_int, c_uint64, c_double, POINTER(c_uint32), POINTER(c_uint32)]),
    "heartbeats_repeats": (c_int, [POINTER(_All), c_void_p, c_uint64, c_double]),
    "heartbeats_drop": (c_int64, [POINTER(_All), c_int, c_uint64, POINTER(c_uint32)]),
}


@cache
def _library() -> ctypes.CDLL:
    path = find("liboutlive-heartbeats.so")
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise SendersUnavailable(
            "The library that receives heartbeats, a part of Outlive, cannot be loaded.",
            cause=str(error),
            remedy="in a checkout run ./outlive --version, which builds it; else install Outlive again",
        ) from error
    return library


@dataclass(frozen=True, slots=True)
class Taken:
    """What one look at the socket brought: how many datagrams, and of these the ones that were no mere repetitions.

    left: each with where it came from, as the kernel's raw address.  drained: none waits any more.
    """

    count: int
    left: tuple[tuple[bytes, bytes], ...]
    drained: bool


def _room(kind: type[ctypes.Structure | c_uint32 | c_uint64 | c_double], count: int) -> mmap.mmap:
    """Memory of zeros that costs nothing until it is used."""
    return mmap.mmap(-1, ctypes.sizeof(kind) * count)


class Senders:
    """The places of all senders that a receiver knows, for the tags of one cluster.

    Raises SendersUnavailable, or Failed when the library is nowhere.
    """

    def __init__(self, seal: Seal) -> None:
        self._library = _library()
        self._senders = (Sender * MOST_SENDERS).from_buffer(_room(Sender, MOST_SENDERS))
        self._index = (c_uint32 * _SLOTS).from_buffer(_room(c_uint32, _SLOTS))
        self._said = (c_uint64 * MOST_SENDERS).from_buffer(_room(c_uint64, MOST_SENDERS))
        self._said_at = (c_double * MOST_SENDERS).from_buffer(_room(c_double, MOST_SENDERS))
        self._arrived = (_Arrived * BATCH)()
        self._left = (c_uint32 * BATCH)()
        self._left_count, self._drained = c_uint32(), c_uint32()
        self._all = _All(
            senders=ctypes.addressof(self._senders),
            index=ctypes.addressof(self._index),
            said=ctypes.addressof(self._said),
            said_at=ctypes.addressof(self._said_at),
            arrived=ctypes.addressof(self._arrived),
            left=ctypes.addressof(self._left),
            slots=_SLOTS,
            places=MOST_SENDERS,
        )
        self._library.heartbeats_key(byref(self._all), seal.key, Use.DATAGRAM.value.ljust(8, b"\0"))
        self._never_used = 0
        self._free: list[int] = []
        self._places: dict[str, int] = {}
        self._shown: Mapping[str, int] = {}
        self._told = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def repeated(self) -> int:
        """How many datagrams were mere repetitions, ever."""
        return self._all.repeated

    def get(self, host: str) -> Sender | None:
        """What is remembered of a host."""
        place = self._places.get(host)
        return None if place is None else self._senders[place]

    def admit(self, host: str, now: float) -> Sender:
        """A place for a host that has none. There must be one free."""
        if self._free:
            place = self._free.pop()
        else:
            place, self._never_used = self._never_used, self._never_used + 1
        sender, name = self._senders[place], host.encode("ascii")
        ctypes.memset(byref(sender), 0, ctypes.sizeof(Sender))
        sender.at, sender.name_size = now, len(name)
        ctypes.memmove(ctypes.addressof(sender) + Sender.name.offset, name, len(name))
        self._said[place], self._said_at[place] = 0, 0.0
        self._places[host] = place
        self._shown = {}
        self._library.heartbeats_add(byref(self._all), place)
        return sender

    def forget(self, host: str) -> None:
        """Free a host's place, if it has one."""
        place = self._places.pop(host, None)
        if place is None:
            return
        self._senders[place].name_size = 0
        self._free.append(place)
        self._shown = {}
        self._library.heartbeats_index(byref(self._all))

    def silent_longest(self) -> str:
        """The host that was heard least lately. There must be one."""
        return min(self._places, key=lambda host: self._senders[self._places[host]].at)

    def remember(self, host: str, datagram: bytes, sequence: int, now: float) -> None:
        """A heartbeat of a host that has a place was accepted: what comes next may repeat it."""
        place = self._places[host]
        sender = self._senders[place]
        sender.size = len(datagram)
        ctypes.memmove(ctypes.addressof(sender) + Sender.last.offset, datagram, len(datagram))
        self._said[place], self._said_at[place] = sequence, now

    def repeats(self, datagram: bytes, now: float) -> bool:
        """Whether a datagram only repeats what its sender said before; then it counts as heard."""
        return bool(self._library.heartbeats_repeats(byref(self._all), datagram, len(datagram), now))

    def take(self, fd: int, most: int, now: float) -> Taken:
        """Take about `most` datagrams from a socket; fewer when there are no more, or some that need to be read."""
        count = self._library.heartbeats_take(
            byref(self._all), fd, most, now, byref(self._left_count), byref(self._drained)
        )
        left = tuple(self._datagram(self._left[each]) for each in range(self._left_count.value))
        return Taken(count, left, bool(self._drained.value))

    def drop(self, fd: int, most: int) -> int:
        """Take datagrams and forget them: what receiving costs at least. Returns how many."""
        return int(self._library.heartbeats_drop(byref(self._all), fd, most, byref(self._drained)))

    def _datagram(self, number: int) -> tuple[bytes, bytes]:
        arrived = self._arrived[number]
        data = ctypes.string_at(ctypes.addressof(arrived) + _Arrived.data.offset, arrived.size)
        return data, bytes(arrived.source)

    def shown(self) -> Repeats | None:
        """The newest heartbeats of all hosts, as a value; None when nothing was repeated since it was last shown."""
        if self._told == self._all.repeated:
            return None
        self._told = self._all.repeated
        if not self._shown:
            self._shown = dict(self._places)
        used = self._never_used
        sequences, heard_at = memoryview(bytes(memoryview(self._said)[:used])), bytes(memoryview(self._said_at)[:used])
        return Repeats(self._shown, sequences.cast("Q"), memoryview(heard_at).cast("d"))
