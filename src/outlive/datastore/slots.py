"""A host's slot: its heartbeat record in a tagged block, and how a reader judges what it finds there.

Pure: bytes in, a Slot or the reason for refusing it out. No time stands in a slot: whether it is fresh is for
the reader to judge, by its own clock, from the sequence changing. A sequence may jump ahead; a lower one than
this reader has seen is an old copy of the slot, and refused.
"""

from dataclasses import dataclass

from outlive.cluster.heartbeat import Heartbeat
from outlive.wire.datagram import pack, unpack
from outlive.wire.record import Reason, Refused, length_of, refuse_foreign
from outlive.wire.seal import Seal, Use

from .block import BLOCK_BYTES, BLOCK_TAG_BYTES, untagged, whole

MOST_HOSTS = 1024


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is whole and this cluster's.

    changed: it is newer than when this reader last read it; what is read for the first time may be of any age.
    """

    heartbeat: Heartbeat
    changed: bool


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """A slot that is not believed, and why."""

    reason: Reason
    detail: str


def pack_slot(heartbeat: Heartbeat, seal: Seal) -> bytes:
    """The 4096 bytes to write. ValueError or struct.error when the heartbeat breaks a bound."""
    block = untagged(pack(heartbeat, seal))
    return block + seal.tag(Use.SLOT, block)


def unpack_slot(host: str, raw: bytes, seal: Seal) -> Heartbeat | SlotRefused:
    """Read the slot of `host`. raw: the file's bytes, as many as it has."""
    if len(raw) != BLOCK_BYTES:
        reason = Reason.TOO_SHORT if len(raw) < BLOCK_BYTES else Reason.TOO_LARGE
        return SlotRefused(reason, f"a slot has {BLOCK_BYTES} bytes, not {len(raw)}")
    foreign = refuse_foreign(raw)
    if foreign is not None and foreign.reason is Reason.OTHER_VERSION:
        return SlotRefused(foreign.reason, foreign.detail)
    if not whole(raw):
        return SlotRefused(Reason.HALF_WRITTEN, "the block's checksum does not hold")
    message = unpack(raw[: length_of(raw)], seal)
    if isinstance(message, Refused):
        return SlotRefused(message.reason, message.detail)
    if not seal.holds(Use.SLOT, raw[:-BLOCK_TAG_BYTES], raw[-BLOCK_TAG_BYTES:]):
        return SlotRefused(Reason.WRONG_TAG, "the block's tag is not of this cluster's key")
    if not isinstance(message, Heartbeat):
        return SlotRefused(Reason.MALFORMED, "it holds something else than a heartbeat")
    if message.host != host:
        return SlotRefused(Reason.OTHER_HOST, f"it holds the heartbeat of {message.host!r}")
    return message


class SlotReader:
    """Remembers the highest sequence of each host's slot, over at most MOST_HOSTS hosts."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._seen: dict[str, int] = {}

    def read(self, host: str, raw: bytes) -> Slot | SlotRefused:
        """Judge the bytes of the slot of `host`. Raises nothing."""
        heartbeat = unpack_slot(host, raw, self._seal)
        if isinstance(heartbeat, SlotRefused):
            return heartbeat
        seen = self._seen.get(host, 0)
        if heartbeat.sequence < seen:
            return SlotRefused(Reason.OLD, f"sequence {heartbeat.sequence} after {seen}")
        if seen or len(self._seen) < MOST_HOSTS:
            self._seen[host] = heartbeat.sequence
        return Slot(heartbeat, changed=0 < seen < heartbeat.sequence)

    def forget(self, host: str) -> None:
        """Drop the memory of a host that is no member any more."""
        self._seen.pop(host, None)
