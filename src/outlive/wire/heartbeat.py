"""A heartbeat's body as bytes, and back.

What a heartbeat says is in `outlive.cluster.heartbeat`; its envelope is in `record`. The body: flags, load,
claim, table digest, number of statuses, then two bits a status, the first in the highest bits. The largest
body, of MOST_MODULES statuses under the longest name, still fits one datagram.
"""

from itertools import chain
from math import isfinite
from struct import Struct

from outlive.cluster.heartbeat import DIGEST_BYTES, MOST_MODULES, Flags, Heartbeat, ModuleStatus

_FIXED = Struct(f">BdQ{DIGEST_BYTES}sH")
_FIXED_BYTES = _FIXED.size
_FLAGS = tuple(Flags(bits) for bits in range(16))
_FOUR = tuple(tuple(ModuleStatus(byte >> shift & 3) for shift in (6, 4, 2, 0)) for byte in range(256))


def pack_body(heartbeat: Heartbeat) -> bytes:
    """The body's bytes. ValueError when the heartbeat breaks a bound; that is a mistake of this host."""
    count = len(heartbeat.statuses)
    if count > MOST_MODULES or len(heartbeat.table) != DIGEST_BYTES:
        raise ValueError(f"a heartbeat cannot carry {count} statuses under a digest {heartbeat.table!r}")
    if not (isfinite(heartbeat.load) and heartbeat.load >= 0):
        raise ValueError(f"{heartbeat.load} is no load")
    fixed = _FIXED.pack(heartbeat.flags, heartbeat.load, heartbeat.claim, heartbeat.table, count)
    return fixed + pack_statuses(heartbeat.statuses)


def unpack_body(cluster: str, host: str, boot_id: str, sequence: int, data: bytes, start: int, end: int) -> Heartbeat:
    """Read the body data[start:end] of an opened envelope. ValueError says what is wrong with it."""
    if end - start < _FIXED_BYTES:
        raise ValueError("the heartbeat ends early")
    bits, load, claim, table, count = _FIXED.unpack_from(data, start)
    if bits >= len(_FLAGS):
        raise ValueError(f"flags {bits:#x} are unknown")
    if not (isfinite(load) and load >= 0):
        raise ValueError(f"{load} is no load")
    statuses = unpack_statuses(data[start + _FIXED_BYTES : end], count) if count else ()
    if not count and end - start != _FIXED_BYTES:
        raise ValueError("the heartbeat has bytes after its end")
    return Heartbeat(cluster, host, boot_id, sequence, _FLAGS[bits], load, claim, table, statuses)


def pack_statuses(statuses: tuple[ModuleStatus, ...]) -> bytes:
    """Four statuses a byte; the last byte is filled up with zeros."""
    packed = bytearray((len(statuses) + 3) // 4)
    for place, status in enumerate(statuses):
        packed[place >> 2] |= status << (6 - 2 * (place & 3))
    return bytes(packed)


def unpack_statuses(packed: bytes, count: int) -> tuple[ModuleStatus, ...]:
    """The first `count` statuses of `packed`. ValueError unless it holds exactly those, then zeros."""
    if count > MOST_MODULES or len(packed) != (count + 3) // 4:
        raise ValueError(f"{len(packed)} bytes cannot hold {count} statuses")
    statuses = tuple(chain.from_iterable([_FOUR[byte] for byte in packed]))
    if any(statuses[count:]):
        raise ValueError("there are statuses after the last")
    return statuses[:count]
