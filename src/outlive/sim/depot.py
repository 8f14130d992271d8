"""A simulated host's depot: which packages are whole on its disk, and which of them are installed.

It survives the agent and a loss of power. Fetching takes time, and needs another host that truly has the package, has
power and can be reached; what is asked for is tried again until it is there. Installing happens as part of preparing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from outlive.cluster import events as ev
from outlive.cluster.commands import KeepPackages
from outlive.cluster.pushed import PackageUse, Pinned, split
from outlive.cluster.workload import Workload

from .runtime import Ills

if TYPE_CHECKING:
    from .host import SimHost

AGAIN_S = 1.0
PATIENCE_S = 4.0


def id_of(key: str) -> str:
    """The id of a package in every simulated world."""
    return key.encode().hex()[:64].ljust(64, "0")


def use_of(text: str) -> PackageUse:
    """What a workload takes, written as `app@1.0.0`, or `app@1.0.0+lib@1.0.0` where that needs another."""
    first, *needed = text.split("+")
    needs = tuple(Pinned(*split(key), id_of(key)) for key in needed)
    name, version = split(first)
    return PackageUse(name, "*", version, id_of(first), needs)


class SimDepot:
    """One host's. holds: id → NAME@VERSION."""

    def __init__(self, host: "SimHost") -> None:
        self._host = host
        self.holds: dict[str, str] = {}
        self.installed: set[str] = set()
        self.dropped: list[tuple[str, str]] = []
        self._wanted = KeepPackages(())
        self._troubles: dict[str, str] = {}
        self._turn = 0

    # Keeping.

    def keep(self, wanted: KeepPackages) -> None:
        """Have these, soon."""
        self._wanted = wanted
        self._turn += 1
        for id in [each for each in wanted.free if each in self.holds]:
            self.dropped.append((id, self.holds.pop(id)))
            self._host.parts.dropped(self._host.name, id)
        self._fetch_next(self._turn)

    def retell(self) -> None:
        """An agent begins: it is told what is here."""
        self._tell_held()

    def take(self, key: str) -> None:
        """A package is pushed here."""
        self.holds[id_of(key)] = key
        self._tell_held()

    def damage(self, key: str) -> None:
        """Its copy is found damaged: it is thrown out and brought anew, where another host has one."""
        others = (there for name, there in self._host.parts.hosts.items() if name != self._host.name)
        if id_of(key) not in self.holds or not any(id_of(key) in there.depot.holds for there in others):
            return
        del self.holds[id_of(key)]
        self._host.tell(ev.PackageDamaged, package=key, reason="one of its components is damaged")
        self._turn += 1
        self._fetch_next(self._turn)

    def _tell_held(self) -> None:
        self._host.tell(ev.PackagesHeld, holds=dict(self.holds), troubles=dict(self._troubles))

    def _fetch_next(self, turn: int) -> None:
        if turn != self._turn:
            return
        missing = [each.pinned for each in self._wanted.kept if each.pinned.id not in self.holds]
        keys = {each.key for each in missing}
        gone = [key for key in self._troubles if key not in keys]
        for key in gone:
            del self._troubles[key]
        self._tell_held()
        if missing:
            delay_s = self._host.parts.draw(self._host.parts.setup.delays.fetch_s)
            self._host.gate.after(delay_s, self._fetched, missing, turn)

    def _fetched(self, missing: list[Pinned], turn: int) -> None:
        if turn != self._turn or self._host.agent is None:
            return
        again = False
        for each in missing:
            if self._can_fetch(each):
                self.holds[each.id] = each.key
            else:
                self._troubles[each.key] = "no host that has it can be reached"
                again = True
        if again:
            self._tell_held()
            self._host.gate.after(AGAIN_S, self._fetch_next, turn)
        else:
            self._fetch_next(turn)

    def _can_fetch(self, wanted: Pinned) -> bool:
        parts, me = self._host.parts, self._host.name
        if Ills.has(parts.ills.fetches_fail, wanted.key, me):
            return False
        return any(
            there.powered
            and not there.paused
            and there.agent is not None
            and wanted.id in there.depot.holds
            and parts.network.passes(me, name)
            and parts.network.passes(name, me)
            for name, there in parts.hosts.items()
            if name != me
        )

    # Making a workload's package ready.

    def make_ready(
        self, workload: Workload, generation: int, done: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        """Fetch and install what the workload needs, in order, then call one of the two."""
        needed = list(workload.package.all()) if workload.package is not None else []
        if not needed:
            done()
            return
        self._ready_next(workload.name, generation, needed, done, failed, self._host.gate.now + PATIENCE_S)

    def _ready_next(
        self,
        workload: str,
        generation: int,
        needed: list[Pinned],
        done: Callable[[], None],
        failed: Callable[[str], None],
        until: float,
    ) -> None:
        host, now = self._host, self._host.gate.now
        again = (workload, generation, needed, done, failed, until)
        for each in needed:
            if each.id in self.holds:
                continue
            if self._can_fetch(each):
                self._say(workload, generation, each, "fetching")
                self.holds[each.id] = each.key
                self._tell_held()
                self._say(workload, generation, each, "verified")
            elif now >= until:
                failed(f"{each.key}: no host that has it can be reached")
                return
            else:
                host.gate.after(AGAIN_S, self._ready_next, *again)
                return
            host.gate.after(host.parts.draw(host.parts.setup.delays.fetch_s), self._ready_next, *again)
            return
        for each in needed:
            if each.id in self.installed:
                continue
            self._say(workload, generation, each, "installing")
            if Ills.has(host.parts.ills.installs_fail, each.key, host.name):
                failed(f"{each.key}: its install command ended with status 1")
                return
            self.installed.add(each.id)
            self._say(workload, generation, each, "installed")
            host.gate.after(host.parts.draw(host.parts.setup.delays.install_s), self._ready_next, *again)
            return
        done()

    def _say(self, workload: str, generation: int, pinned: Pinned, step: str) -> None:
        self._host.tell(
            ev.PackageStep, workload=workload, generation=generation, package=pinned.key, step=step, text=""
        )
