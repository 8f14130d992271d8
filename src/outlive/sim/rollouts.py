"""What must hold of packages: one workload on trial at a time, trials that end, and copies that are not lost."""

from outlive.cluster import records as rec
from outlive.cluster import rollout
from outlive.cluster.pushed import PackageRecord, copies_of

from .checker import Checker, decoded, runs_whole, wanted
from .operators import BY_HAND
from .parts import Parts
from .store import Changes


class OneTrialAtATime(Checker):
    """No workload is brought to a version while another one is down because it was: on trial there, or on its way back.

    What hands have written over is known to nobody, so it is left out.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._touched: dict[str, str] = {}
        self._spoilt: set[str] = set()

    def rewritten(self, origin: str, changes: Changes) -> str | None:
        """Look at each workload whose trial begins."""
        for change in changes:
            name = rec.name_in(change.key)
            if origin == BY_HAND:
                self._spoilt.add(name)
                continue
            record = decoded(change) if change.key.startswith(rec.WORKLOADS) else None
            if not isinstance(record, rec.WorkloadRecord) or record.rollout is None:
                self._touched.pop(name, None)
                continue
            if record.rollout.state is not rec.RolloutState.TRIAL:
                continue
            key = rollout.target(record)
            if self._touched.get(name) != key and (other := self._other(name, key)):
                return f"{name} is brought to {key} while {other} is down because of that"
            self._touched[name] = key
        return None

    def _other(self, name: str, key: str) -> str | None:
        for other, target in self._touched.items():
            record = decoded(self.parts.store.data.get(rec.WORKLOADS + other))
            if other == name or target != key or other in self._spoilt or not wanted(self.parts, other):
                continue
            if not isinstance(record, rec.WorkloadRecord) or record.rollout is None:
                continue
            if record.rollout.state is rec.RolloutState.TRIAL:
                return other
            back = record.rollout.state is rec.RolloutState.BACK and rollout.target(record) == key
            placed = decoded(self.parts.store.data.get(rec.PLACEMENTS + other))
            report = decoded(self.parts.store.data.get(rec.REPORTS + other))
            placed_old = isinstance(placed, rec.PlacementRecord) and placed.version != record.version and placed.host
            never = not isinstance(report, rec.ReportRecord)
            if back and placed_old and not never:
                return other
        return None


class TrialsEnd(Checker):
    """Once the world is calm, no workload stays on trial, or waits for a version that its host could have."""

    SPARE_S = 10.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        policies = [each.workload.upgrade for each in parts.setup.workloads]
        longest_s = max((each.healthy_within_s + each.watch_s for each in policies), default=0.0)
        self.bound_s = longest_s + self.SPARE_S
        self._since: dict[tuple[str, str], float] = {}

    def looked(self) -> str | None:
        """Look at each trial."""
        now = self.parts.agenda.now
        if now < self.parts.setup.calm_at_s:
            return None
        for each in self.parts.setup.workloads:
            name = each.workload.name
            record = decoded(self.parts.store.data.get(rec.WORKLOADS + name))
            on_trial = (
                isinstance(record, rec.WorkloadRecord)
                and record.rollout is not None
                and record.rollout.state is rec.RolloutState.TRIAL
                and wanted(self.parts, name)
            )
            key = (name, rollout.target(record) if isinstance(record, rec.WorkloadRecord) else "")
            # A workload that runs nowhere for want of a place cannot be judged; that is another checker's.
            if not on_trial or not runs_whole(self.parts, name):
                self._since.pop(key, None)
            elif now - self._since.setdefault(key, now) > self.bound_s:
                return f"{name} is still on trial with {key[1]}"
        return None


class LastCopyStays(Checker):
    """A host drops its copy of a package only when another host has one, or the package was removed."""

    def drops(self, host: str, package: str) -> str | None:
        """Look for another copy."""
        records = [decoded(value) for key, value in self.parts.store.data.items() if key.startswith(rec.PACKAGES)]
        if not any(isinstance(each, PackageRecord) and each.id == package for each in records):
            return None
        if any(package in there.depot.holds for name, there in self.parts.hosts.items() if name != host):
            return None
        return f"{host} dropped the last copy of {package[:16]}"


class PackagesAreKept(Checker):
    """Once the world is calm, every package is on as many hosts as it is to be, within BOUND_S."""

    BOUND_S = 25.0

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._since: dict[str, float] = {}

    def looked(self) -> str | None:
        """Count the copies."""
        now, parts = self.parts.agenda.now, self.parts
        if now < parts.setup.calm_at_s:
            return None
        able = [host for host in parts.hosts.values() if host.powered and not host.paused]
        members = sum(key.startswith(rec.HOSTS) for key in parts.store.data)
        for key, value in parts.store.data.items():
            record = decoded(value) if key.startswith(rec.PACKAGES) else None
            if not isinstance(record, PackageRecord) or record.removing:
                self._since.pop(key, None)
                continue
            have = sum(record.id in host.depot.holds for host in able)
            if have == 0 or have >= min(copies_of(record, members), len(able)):
                self._since.pop(key, None)
            elif now - self._since.setdefault(key, now) > self.BOUND_S:
                return f"{record.key} is on {have} hosts only"
        return None
