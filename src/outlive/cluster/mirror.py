"""A host's picture of the store: every record that decisions rest on, as of one revision.

Each agent keeps one by watching the store and gives it to its node and leader machines with every change.
It never moves backwards. It keeps for each host when its claim was last *seen to change*, by the watcher's own
clock: the ground on which `claims` says that a claim has certainly ended. A record that cannot be read
leaves the last good one in place and is named in `bad`; a placement removed by hand stays in `lost`, that of a
removed workload too, since generations must go on from there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from immutables import Map

from . import records as rec
from .host import Host
from .overlay import Network
from .policies import Policies
from .pushed import DepotRecord, PackageRecord
from .transaction import Delete, KeyValue

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A record with the revisions that transactions compare."""

    record: T
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """What is known of a host's claims.

    incarnation: create_revision of the newest claim seen; present: it stands in the store.
    observed_at: when the newest was last seen to change; older_observed_at: the same of all before it.
    """

    incarnation: int
    present: bool
    observed_at: float
    mod_revision: int
    record: rec.ClaimRecord
    older_observed_at: float


@dataclass(frozen=True, slots=True)
class Mirror:
    """The store as of `revision`.

    began_at: when the whole store was last read, on the watcher's clock; what came and went unseen did so before.
    there: for each host the workloads whose placement names it, to act, to follow or as a target.
    policies: the defaults, at revision 0, when none stand in the store.
    """

    revision: int = 0
    began_at: float = 0.0
    cluster: Entry[rec.ClusterRecord] | None = None
    leader: Entry[rec.LeaderRecord] | None = None
    hosts: "Map[str, Entry[Host]]" = Map()
    claims: "Map[str, ClaimSeen]" = Map()
    workloads: "Map[str, Entry[rec.WorkloadRecord]]" = Map()
    placements: "Map[str, Entry[rec.PlacementRecord]]" = Map()
    reports: "Map[str, Entry[rec.ReportRecord]]" = Map()
    standbys: "Map[str, Entry[rec.StandbyRecord]]" = Map()
    verdicts: "Map[str, Entry[rec.VerdictRecord]]" = Map()
    operations: "Map[str, Entry[rec.OperationRecord]]" = Map()
    networks: "Map[str, Entry[Network]]" = Map()
    maintenance: "Map[str, Entry[rec.MaintenanceRecord]]" = Map()
    policies: Entry[Policies] = Entry(Policies(), 0, 0)
    packages: "Map[str, Entry[PackageRecord]]" = Map()
    depots: "Map[str, Entry[DepotRecord]]" = Map()
    fences: "Map[str, Entry[rec.FenceRecord]]" = Map()
    bad: "Map[str, tuple[int, str]]" = Map()
    lost: "Map[str, rec.PlacementRecord]" = Map()
    there: "Map[str, frozenset[str]]" = Map()

    def claimed(self, host: str) -> ClaimSeen | None:
        """The claim that `host` holds in the store now, if any."""
        seen = self.claims.get(host)
        return seen if seen is not None and seen.present else None

    def holder(self, host: str, incarnation: int) -> rec.ClaimRecord | None:
        """What the claim of that incarnation said last, whether or not it stands; None: it is not known."""
        seen = self.claims.get(host)
        return seen.record if seen is not None and seen.incarnation == incarnation else None

    def placed_on(self, host: str) -> tuple[str, ...]:
        """The workloads that `host` is to act for, by name; those that it follows are not among them."""
        return tuple(sorted(name for name in self.there.get(host, ()) if self.placements[name].record.host == host))

    def in_maintenance(self, host: str) -> bool:
        """Whether `host` is to have no workloads."""
        entry = self.maintenance.get(host)
        return entry is not None and entry.record.phase is rec.MaintenancePhase.ON


_ROOMS: dict[str, str] = {
    rec.HOSTS: "hosts",
    rec.WORKLOADS: "workloads",
    rec.PLACEMENTS: "placements",
    rec.REPORTS: "reports",
    rec.STANDBYS: "standbys",
    rec.VERDICTS: "verdicts",
    rec.OPERATIONS: "operations",
    rec.NETWORKS: "networks",
    rec.MAINTENANCE: "maintenance",
    rec.PACKAGES: "packages",
    rec.DEPOTS: "depots",
    rec.FENCES: "fences",
}


def snapshot(mirror: Mirror, revision: int, values: Iterable[KeyValue], at: float) -> Mirror:
    """The picture after reading the whole store at `revision`: what is not in `values` is gone.

    at: seconds on the watcher's boot clock. A claim unchanged since it was last seen keeps its time; one that
    ended or was replaced unseen may have been renewed until just now. A reading older than the picture changes nothing.
    """
    if revision < mirror.revision:
        return mirror
    present = {value.key: value for value in values}
    fresh = replace(mirror, began_at=at)
    for key in _keys(fresh):
        if key not in present:
            fresh = _deleted(fresh, key, at, gap=True)
    for value in present.values():
        fresh = _put(fresh, value, at, gap=True)
    return replace(fresh, revision=revision)


def changed(mirror: Mirror, revision: int, changes: Iterable[KeyValue | Delete], at: float) -> Mirror:
    """The picture after the changes of one transaction; changes already in the picture change nothing."""
    if revision <= mirror.revision:
        return mirror
    for change in changes:
        mirror = _deleted(mirror, change.key, at) if isinstance(change, Delete) else _put(mirror, change, at)
    return replace(mirror, revision=revision)


def _keys(mirror: Mirror) -> list[str]:
    keys = [prefix + name for prefix, room in _ROOMS.items() for name in getattr(mirror, room)]
    keys += [rec.CLAIMS + name for name, seen in mirror.claims.items() if seen.present]
    keys += [key for key in mirror.bad if key not in keys]
    if mirror.cluster:
        keys.append(rec.CLUSTER)
    if mirror.leader:
        keys.append(rec.LEADER)
    if mirror.policies.mod_revision:
        keys.append(rec.POLICIES)
    return keys


def _put(mirror: Mirror, value: KeyValue, at: float, gap: bool = False) -> Mirror:
    key = value.key
    if key == rec.PRUNED or key.startswith((rec.EVENTS, rec.REQUESTS)):
        return mirror  # no decision rests on them
    try:
        record = rec.decode(key, value.value)
    except rec.BadRecord as error:
        if gap and key.startswith(rec.PLACEMENTS) and mirror.bad.get(key, (0, ""))[0] != value.mod_revision:
            # It may have been written well in between: what was last seen of it is not what it last was.
            mirror = unplaced(mirror, rec.name_in(key))
        return replace(mirror, bad=mirror.bad.set(key, (value.mod_revision, error.cause or str(error))))
    if record is None:
        return mirror
    if key in mirror.bad:
        mirror = replace(mirror, bad=mirror.bad.delete(key))
    if isinstance(record, rec.ClaimRecord):
        return replace(mirror, claims=mirror.claims.set(record.host, _claim_put(mirror, record, value, at, gap)))
    entry: Entry[Any] = Entry(record, value.create_revision, value.mod_revision)
    if isinstance(record, rec.ClusterRecord):
        return replace(mirror, cluster=entry)
    if isinstance(record, rec.LeaderRecord):
        return replace(mirror, leader=entry)
    if isinstance(record, Policies):
        return replace(mirror, policies=entry)
    name = rec.name_in(key)
    room = _ROOMS[key[: key.find("/") + 1]]
    rooms: dict[str, Any] = {room: getattr(mirror, room).set(name, entry)}
    if room == "placements":
        rooms["there"] = _moved(mirror, name, entry)
        if name in mirror.lost:
            rooms["lost"] = mirror.lost.delete(name)
    return replace(mirror, **rooms)


def _claim_put(mirror: Mirror, record: rec.ClaimRecord, value: KeyValue, at: float, gap: bool) -> ClaimSeen:
    known = mirror.claims.get(record.host)
    if known is None:
        return ClaimSeen(value.create_revision, True, at, value.mod_revision, record, at)
    if known.incarnation == value.create_revision:
        observed_at = known.observed_at if known.mod_revision == value.mod_revision else at
        return replace(known, present=True, observed_at=observed_at, mod_revision=value.mod_revision, record=record)
    return ClaimSeen(
        value.create_revision,
        True,
        at,
        value.mod_revision,
        record,
        at if gap else max(known.observed_at, known.older_observed_at, mirror.began_at),
    )


def _deleted(mirror: Mirror, key: str, at: float, gap: bool = False) -> Mirror:
    if key in mirror.bad:
        mirror = replace(mirror, bad=mirror.bad.delete(key))
    if key == rec.LEADER:
        return replace(mirror, leader=None)
    if key == rec.CLUSTER:
        return replace(mirror, cluster=None)
    if key == rec.POLICIES:
        return replace(mirror, policies=Mirror().policies)
    prefix, name = key[: key.find("/") + 1], rec.name_in(key)
    if prefix == rec.CLAIMS:
        seen = mirror.claims.get(name)
        if seen is None or not seen.present:
            return mirror
        observed_at = at if gap else seen.observed_at
        return replace(mirror, claims=mirror.claims.set(name, replace(seen, present=False, observed_at=observed_at)))
    room = _ROOMS.get(prefix)
    if room is None or name not in getattr(mirror, room):
        return mirror
    rooms: dict[str, Any] = {room: getattr(mirror, room).delete(name)}
    if room == "placements":
        rooms["there"] = _moved(mirror, name, None)
    if room == "placements" and name in mirror.workloads and not gap:
        rooms["lost"] = mirror.lost.set(name, mirror.placements[name].record)
    elif room == "workloads" and name in mirror.lost:
        rooms["lost"] = mirror.lost.delete(name)
    return replace(mirror, **rooms)


def unplaced(mirror: Mirror, name: str) -> Mirror:
    """The picture without a placement, as if it had never been seen."""
    if name not in mirror.placements:
        return mirror
    return replace(mirror, placements=mirror.placements.delete(name), there=_moved(mirror, name, None))


def _moved(mirror: Mirror, name: str, entry: Entry[rec.PlacementRecord] | None) -> "Map[str, frozenset[str]]":
    """Who has which workloads once this one's placement is another."""
    there, known = mirror.there, mirror.placements.get(name)
    before, after = hosts_of(known.record if known else None), hosts_of(entry.record if entry else None)
    for host in before - after:
        left = there[host] - {name}
        there = there.set(host, left) if left else there.delete(host)
    for host in after - before:
        there = there.set(host, there.get(host, frozenset()) | {name})
    return there


def hosts_of(placed: rec.PlacementRecord | None) -> frozenset[str]:
    """The hosts that a placement names: to act, to follow, as a target."""
    if placed is None:
        return frozenset()
    return frozenset(host for host in (placed.host, placed.standby, placed.moving_to) if host is not None)
