"""A receiver's memory of what it has heard, and the rules by which it refuses what is old.

Bytes and numbers in, a message or a `Refused` out. A heartbeat must have a higher sequence than every
heartbeat before it of that host. Anything else may come a little late, as networks reorder, but only once:
each sender has a window of the last 64 sequences (as in RFC 4303, 3.4.3). Memory is bounded by MOST_SENDERS; it
is kept by `senders`, so that what only repeats a heartbeat that was accepted here need not come here.
"""

from outlive.cluster.heartbeat import Heartbeat

from .datagram import Message, unpack
from .record import Reason, Refused
from .seal import Seal
from .senders import MOST_SENDERS, Sender, Senders

WINDOW = 64
FORGOTTEN_S = 3600.0

_ALL = (1 << WINDOW) - 1


class Receiver:
    """Accepts or refuses the datagrams that one host gets.

    host: this host's own name; what comes under it is an echo, and refused.
    """

    def __init__(self, seal: Seal, host: str) -> None:
        self._seal = seal
        self._host = host
        self.senders = Senders(seal)

    def accept(self, data: bytes, now: float) -> Message | Refused:
        """The message that `data` is, unless something about it is wrong or old. Raises nothing.

        now: seconds on any clock that does not go back; it only decides which sender is forgotten first.
        """
        message = unpack(data, self._seal)
        if isinstance(message, Refused):
            return message
        host, sequence = message.host, message.sequence
        if host == self._host:
            return Refused(Reason.OWN, "this host's own message came back", host)
        heard = self.senders.get(host) or self._admit(host, now)
        if heard is None:
            return Refused(Reason.TOO_MANY_SENDERS, f"{MOST_SENDERS} senders are known already", host)
        if sequence <= heard.floor:
            return Refused(Reason.OLD, f"sequence {sequence} is below the floor {heard.floor}", host)
        behind = heard.highest - sequence
        if behind >= WINDOW:
            return Refused(Reason.OLD, f"sequence {sequence} is {behind} behind", host)
        if behind >= 0 and heard.seen >> behind & 1:
            return Refused(Reason.REPLAYED, f"sequence {sequence} was heard before", host)
        if type(message) is Heartbeat:
            if sequence < heard.heartbeat:
                return Refused(Reason.OLD, f"heartbeat {sequence} came after {heard.heartbeat}", host)
            heard.heartbeat = sequence
            self.senders.remember(host, data, sequence, now)
        if behind >= 0:
            heard.seen |= 1 << behind
        else:
            heard.seen = (heard.seen << -behind | 1) & _ALL if behind > -WINDOW else 1
            heard.highest = sequence
        heard.at = now
        return message

    def raise_floor(self, host: str, sequence: int, now: float = 0.0) -> None:
        """Refuse what `host` sent up to `sequence`: its claim in the store says that it had come so far.

        So a receiver that has just started cannot be told old news. For a host that is being heard the floor
        trails by one announcement: the store may be quicker than the network, and must not outrun heartbeats.
        """
        heard = None if host == self._host else self.senders.get(host) or self._admit(host, now)
        if heard is None:
            return
        if not heard.highest:
            heard.floor = heard.next_floor = max(heard.floor, sequence)
        elif sequence > heard.next_floor:
            heard.floor, heard.next_floor = heard.next_floor, sequence

    def forget(self, host: str) -> None:
        """Drop all memory of a host that is no member any more."""
        self.senders.forget(host)

    def _admit(self, host: str, now: float) -> Sender | None:
        """Room for one more sender, taken if need be from the one silent longest; None if all are recent."""
        if len(self.senders) >= MOST_SENDERS:
            oldest = self.senders.silent_longest()
            heard = self.senders.get(oldest)
            if heard is not None and now - heard.at < FORGOTTEN_S:
                return None
            self.senders.forget(oldest)
        return self.senders.admit(host, now)
