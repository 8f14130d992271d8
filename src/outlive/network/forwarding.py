"""What a host's forwarding table is to hold, and which changes lead there.

Pure: no kernel here. The invariant: what is known of a machine is replaced only by what follows from the same or a
newer age of its whereabouts, so that a view of the store that comes late takes nothing back.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from outlive.cluster.overlay import Segment
from outlive.network.fdb import ALL_MACS

Age = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """Frames for `mac` go to `address`; shadow: by the network's shadow, besides to where they go anyway."""

    shadow: bool
    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Steps:
    """Changes in the order in which they are to be made: first what ends, then what is replaced or begins.

    In this order a frame may be lost for some microseconds while a machine moves, and none is ever doubled.
    """

    remove: tuple[Row, ...]
    put: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.remove) + len(self.put)


class Ages:
    """For each machine's card on one network: the newest age known of it, and the rows that follow from that."""

    def __init__(self) -> None:
        self._ages: dict[str, Age] = {}
        self._rows: dict[str, frozenset[Row]] = {}

    def settle(self, segment: Segment) -> frozenset[Row]:
        """Take in what is wanted; the rows that are right now. Cards that are not in it any more are forgotten."""
        wanted: dict[str, tuple[Age, set[Row]]] = {}
        for entry in segment.entries:
            _, rows = wanted.setdefault(entry.mac, (entry.age, set()))
            rows.add(Row(entry.shadow, entry.mac, entry.address))
        for here in segment.here:
            wanted.setdefault(here.mac, (here.age, set()))
        for mac, (age, rows) in wanted.items():
            if age >= self._ages.get(mac, age):
                self._ages[mac], self._rows[mac] = age, frozenset(rows)
        for mac in self._ages.keys() - wanted.keys():
            del self._ages[mac], self._rows[mac]
        return self.rows() | {Row(False, ALL_MACS, address) for address in segment.flood}

    def take(self, mac: str, age: Age) -> bool:
        """The card is on this host from now on; False if something newer is known of it."""
        if age < self._ages.get(mac, age):
            return False
        self._ages[mac], self._rows[mac] = age, frozenset()
        return True

    def rows(self) -> frozenset[Row]:
        """The rows of all cards, without those for everybody."""
        return frozenset(row for rows in self._rows.values() for row in rows)


def steps(have: Iterable[Row], want: Iterable[Row]) -> Steps:
    """What leads from one table to the other. A card's row is replaced in one step; rows for everybody stand alone."""
    before, after = set(have), set(want)
    replaced = {(row.shadow, row.mac) for row in after if row.mac != ALL_MACS}
    gone = [row for row in before - after if (row.shadow, row.mac) not in replaced]
    return Steps(tuple(sorted(gone, key=_shadows_first)), tuple(sorted(after - before)))


def _shadows_first(row: Row) -> tuple[bool, Row]:
    return not row.shadow, row
