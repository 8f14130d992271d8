"""Which hosts keep which packages: named by the leader, spread over sites, replaced when a host is dead.

A copy counts only when its host says that it is whole. Nothing is taken from a host before every host that is named
says that it has it; and a package's record goes only when it is certain that nothing uses it: whoever applies a
workload compares the record, which says that it is being removed before the leader looks for users.
"""

from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from operator import is_

from . import records as rec
from .commands import Act, KeepPackages, KeptPackage
from .leader_state import Turn
from .mirror import Entry, Mirror
from .pushed import PackageRecord, Pinned, copies_of
from .transaction import Delete, Put, unchanged
from .versions import parse_range, parse_version
from .workload import Workload

SEEN_TO_AT_ONCE = 16
"""How many packages have their keepers chosen anew, or their records written, in one turn."""


@dataclass(frozen=True, slots=True)
class User:
    """Why a package must stay. workload: by name; '' when it is another package, `package`, that needs it."""

    workload: str = ""
    package: str = ""

    def __str__(self) -> str:
        return f"workload {self.workload}" if self.workload else f"package {self.package}"


def pins_of(workload: Workload) -> tuple[Pinned, ...]:
    """All that must be installed for a workload."""
    return workload.package.all() if workload.package is not None else ()


def needed_by(record: rec.WorkloadRecord) -> tuple[Pinned, ...]:
    """All that a workload may have to be started with, whatever becomes of a change that is under way."""
    rollout = record.rollout
    under_way = rollout is not None and rollout.state in (rec.RolloutState.WAITING, rec.RolloutState.TRIAL)
    other = pins_of(rollout.other) if under_way and rollout is not None else ()
    return (*pins_of(record.workload), *other)


def needing(mirror: Mirror) -> dict[str, list[str]]:
    """The workloads that need each package, by its id."""
    found: dict[str, list[str]] = {}
    for name, entry in sorted(mirror.workloads.items()):
        if entry.record.workload.package is not None or entry.record.rollout is not None:
            for id in {each.id for each in needed_by(entry.record)}:
                found.setdefault(id, []).append(name)
    return found


def users(
    mirror: Mirror, package: PackageRecord, workloads: Mapping[str, Sequence[str]] | None = None
) -> tuple[User, ...]:
    """Who needs a package: workloads, and packages for which no other version that was pushed would do.

    workloads: what `needing` says, for those who ask for many packages.
    """
    index = needing(mirror) if workloads is None else workloads
    found = [User(workload=name) for name in index.get(package.id, ())]
    others = [entry.record for key, entry in sorted(mirror.packages.items()) if key != package.key]
    versions = [parse_version(each.version) for each in others if each.name == package.name and not each.removing]
    for each in others:
        wanted = each.requires.get(package.name)
        if wanted is None or each.removing:
            continue
        allowed = parse_range(wanted)
        if parse_version(package.version) in allowed and allowed.newest(versions) is None:
            found.append(User(package=each.key))
    return tuple(found)


# The leader's part.


@dataclass(frozen=True, slots=True)
class Survey:
    """What every choice of keepers rests on, counted once in a turn.

    living: the hosts that are not dead, by name.  sites: in how many sites hosts are.
    load: how many packages each host is to keep; choices made in the turn are added.
    """

    living: tuple[str, ...]
    sites: int
    load: dict[str, int]


def survey(turn: Turn) -> Survey:
    """Count them."""
    mirror, verdicts = turn.state.mirror, turn.state.verdicts
    living = tuple(name for name in sorted(mirror.hosts) if verdicts.get(name) is not rec.Verdict.DEAD)
    load = Counter(host for entry in mirror.packages.values() for host in entry.record.hosts)
    return Survey(living, len({entry.record.site for entry in mirror.hosts.values()}), load)


def tend_all(turn: Turn) -> None:
    """See to the packages' records: who keeps each, whether it goes, whether its trial is over.

    Whoever keeps one well goes on doing so until packages, hosts, depots or verdicts are others; so many are chosen and
    written in one turn, and the next turn goes on with those that are left.
    """
    _begin_round(turn)
    left, some, up_to = set(turn.state.unchosen), SEEN_TO_AT_ONCE, turn.state.chosen_up_to
    packages, found = turn.state.mirror.packages, None
    urgent = sorted(key for key, entry in packages.items() if entry.record.removing or entry.record.trial)
    for key in dict.fromkeys((*urgent, *turn.state.unchosen)):
        entry = packages.get(key)
        if some <= 0:
            break
        if entry is None or entry.record.removing:
            left.discard(key)
        if entry is None or turn.is_busy(rec.PACKAGES + key):
            continue
        if entry.record.removing:
            _remove(turn, entry)
            some -= 1
            continue
        record = replace(entry.record, trial=_trial(turn, entry.record))
        if key in left:
            found, up_to = survey(turn) if found is None else found, key
            if not _are_well(turn, record, found):
                some -= 1
                record = replace(record, hosts=keepers(turn, record, found))
        if record != entry.record:
            # It is left until the store shows it: who does not know whether it was written looks again.
            _write(turn, entry, record)
        else:
            left.discard(key)
    unchosen = tuple(key for key in turn.state.unchosen if key in left)
    turn.set(unchosen=unchosen, chosen_up_to=up_to, copies_due=some <= 0)


def _begin_round(turn: Turn) -> None:
    """Have the keepers of all packages looked at anew if anything that they rest on has changed."""
    state, mirror = turn.state, turn.state.mirror
    rests_on = (mirror.packages, mirror.hosts, mirror.depots, state.verdicts)
    if len(state.chosen_on) == len(rests_on) and all(map(is_, rests_on, state.chosen_on)):
        return
    keys = sorted(mirror.packages)
    begin = bisect(keys, state.chosen_up_to)
    turn.set(chosen_on=rests_on, unchosen=(*keys[begin:], *keys[:begin]))


def _write(turn: Turn, entry: Entry[PackageRecord], record: PackageRecord) -> None:
    key = rec.PACKAGES + record.key
    because = record.because
    if added := [host for host in record.hosts if host not in entry.record.hosts]:
        because = turn.note("package.placed", text=f"{record.key} on {', '.join(added)}", because=because)
    turn.write(Act.PACKAGE, key, (unchanged(key, entry.mod_revision),), (Put(key, rec.encode(record)),), because)


def _remove(turn: Turn, entry: Entry[PackageRecord]) -> None:
    record, key = entry.record, rec.PACKAGES + entry.record.key
    here = (unchanged(key, entry.mod_revision),)
    if needing := users(turn.state.mirror, record):
        text = f"{record.key}: {', '.join(map(str, needing))} needs it"
        cause = turn.note("package.kept", text=text, because=record.because)
        kept = Put(key, rec.encode(replace(record, removing=False)))
        turn.write(Act.PACKAGE, key, here, (kept,), cause)
        return
    cause = turn.note("package.removed", text=record.key, because=record.because)
    turn.write(Act.PACKAGE, key, here, (Delete(key),), cause)


def _trial(turn: Turn, package: PackageRecord) -> str:
    """Who is on trial: the one that is named, until it runs again or is not meant to."""
    mirror, name = turn.state.mirror, package.trial
    entry, placed = mirror.workloads.get(name), mirror.placements.get(name)
    if not name or turn.is_busy(rec.WORKLOADS + name):
        return name
    if entry is None or entry.record.desired is not rec.Desired.RUNNING or entry.record.rollout is None:
        return ""
    state, pins = entry.record.rollout.state, pins_of(entry.record.workload)
    if state is rec.RolloutState.TRIAL:
        return name if any(each.id == package.id for each in pins) else ""
    if state is not rec.RolloutState.BACK or placed is None or placed.record.host is None:
        return ""
    report = mirror.reports.get(name)
    mine = report is not None and report.record.generation == placed.record.generation
    back = placed.record.version == entry.record.version and mine
    return "" if back and report is not None and report.record.stage is rec.Stage.RUNNING else name


def keepers(turn: Turn, package: PackageRecord, known: Survey) -> tuple[str, ...]:
    """The hosts that shall keep a package: in as many sites as there are; those that do before others, emptier ones."""
    mirror, verdicts, load = turn.state.mirror, turn.state.verdicts, known.load
    count = copies_of(package, len(mirror.hosts))
    chosen: list[str] = []

    def rank(host: str) -> tuple[object, ...]:
        depot = mirror.depots.get(host)
        has = depot is not None and package.id in depot.record.holds
        troubled = depot is not None and package.key in depot.record.troubles
        crowd = sum(mirror.hosts[each].record.site == mirror.hosts[host].record.site for each in chosen)
        doubted = verdicts.get(host, rec.Verdict.ALIVE) is not rec.Verdict.ALIVE
        return (troubled, crowd, host not in package.hosts, doubted, not has, load.get(host, 0), host)

    while len(chosen) < count and (left := [host for host in known.living if host not in chosen]):
        chosen.append(min(left, key=rank))
    for host in set(chosen) - set(package.hosts):
        load[host] = load.get(host, 0) + 1
    return tuple(sorted(chosen))


def _are_well(turn: Turn, package: PackageRecord, known: Survey) -> bool:
    """Whether the hosts that keep a package are as many as they are to be, alive, and in as many sites as can be."""
    mirror, hosts = turn.state.mirror, package.hosts
    if len(hosts) != copies_of(package, len(mirror.hosts)) or any(host not in mirror.hosts for host in hosts):
        return False
    if any(turn.state.verdicts.get(host) is rec.Verdict.DEAD for host in hosts):
        return False
    if any(host not in mirror.depots or package.id not in mirror.depots[host].record.holds for host in hosts):
        return False
    sites = len({mirror.hosts[host].record.site for host in hosts})
    return sites in (len(hosts), known.sites)


# A host's part.


def kept_on(mirror: Mirror, host: str) -> KeepPackages:
    """What a host shall have in its depot, and what it need not keep: where it is named, and what runs there needs."""
    wanted = {
        entry.record.id: Pinned(entry.record.name, entry.record.version, entry.record.id)
        for entry in mirror.packages.values()
        if host in entry.record.hosts
    }
    for name in mirror.placed_on(host):
        entry = mirror.workloads.get(name)
        if entry is None:
            continue
        wanted |= {each.id: each for each in needed_by(entry.record)}
        rollout = entry.record.rollout
        if rollout is not None and rollout.state is rec.RolloutState.DONE:
            # What went before stays at hand as long as it is a package at all.
            wanted |= {each.id: each for each in pins_of(rollout.other) if _stands(mirror, each)}
    depot = mirror.depots.get(host)
    here = depot.record.holds if depot is not None else {}
    free = tuple(sorted(id for id, key in here.items() if id not in wanted and _may_go(mirror, id, key)))
    holders = _all_holders(mirror, wanted.keys(), host)
    kept = tuple(KeptPackage(each, holders.get(each.id, ())) for _, each in sorted(wanted.items()))
    return KeepPackages(kept, free)


def _stands(mirror: Mirror, pinned: Pinned) -> bool:
    entry = mirror.packages.get(pinned.key)
    return entry is not None and entry.record.id == pinned.id


def _may_go(mirror: Mirror, id: str, key: str) -> bool:
    """Whether a copy is one too many: its package is gone, or all hosts that are named have it."""
    entry = mirror.packages.get(key)
    if rec.PACKAGES + key in mirror.bad:
        return False
    if entry is None or entry.record.id != id:
        return True
    hosts = entry.record.hosts
    return bool(hosts) and all(host in mirror.depots and id in mirror.depots[host].record.holds for host in hosts)


def holders_of(mirror: Mirror, id: str, host: str) -> tuple[str, ...]:
    """The other hosts that have it: the living first, of those the ones in the same site."""
    return _all_holders(mirror, {id}, host).get(id, ())


def _all_holders(mirror: Mirror, ids: Set[str], host: str) -> dict[str, tuple[str, ...]]:
    """The same for many packages, by id: each depot is looked at once."""
    own = mirror.hosts.get(host)
    site = own.record.site if own is not None else ""

    def rank(name: str) -> tuple[bool, bool, str]:
        verdict, there = mirror.verdicts.get(name), mirror.hosts[name]
        alive = verdict is not None and verdict.record.verdict is rec.Verdict.ALIVE
        return (not alive, there.record.site != site, name)

    having: dict[str, list[str]] = {}
    for name, entry in mirror.depots.items():
        here = entry.record.holds.keys() & ids
        if here and name != host and name in mirror.hosts:
            for id in here:
                having.setdefault(id, []).append(name)
    return {id: tuple(sorted(names, key=rank)) for id, names in having.items()}
