"""Verbs for what runs, for what operators ask, and for hands in the store."""

from typing import Any

from .operators import Operators
from .parts import Parts
from .runtime import Life
from .verb import Undo, Verb

# Workloads.


def _where(parts: Parts, workload: str) -> list[Any]:
    return [host for host in parts.hosts.values() if workload in host.runtime.programs and not host.paused]


def _crash_module(parts: Parts, _: Operators, workload: str, module: str) -> Undo:
    """The module's process ends, wherever it runs."""
    for host in _where(parts, workload):
        host.runtime.crash(workload, module)
    return None


def _hang_module(parts: Parts, _: Operators, workload: str, module: str) -> Undo:
    """The module's process does nothing more, and does not end."""
    for host in _where(parts, workload):
        host.runtime.hang(workload, module)
    return None


def _ill(ills: dict[tuple[str, str], int], workload: str, host: str) -> Undo:
    ills[workload, host] = ills.get((workload, host), 0) + 1

    def heal() -> None:
        ills[workload, host] -= 1

    return heal


def _fail_starts(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """Modules of the workload end as soon as they are started (on that host); the first running one ends now."""
    for there in _where(parts, workload):
        if host in ("", there.name):
            program = there.runtime.programs[workload]
            running = [name for name, process in program.processes.items() if process.life is Life.RUNNING]
            if running:
                there.runtime.crash(workload, running[0])
    return _ill(parts.ills.starts_fail, workload, host)


def _fail_prepares(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """The workload cannot be made ready (on that host): its address is taken."""
    return _ill(parts.ills.prepares_fail, workload, host)


def _hang_stops(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """Modules of the workload do not stop when asked, but only when killed."""
    return _ill(parts.ills.stops_hang, workload, host)


def _kill_manager(parts: Parts, _: Operators, workload: str) -> Undo:
    """The communication manager of the machine dies where it runs."""
    for host in _where(parts, workload):
        host.guests.kill_manager(workload)
    return None


def _kill_standby(parts: Parts, _: Operators, workload: str) -> Undo:
    """The communication manager that follows it dies."""
    for host in parts.hosts.values():
        follower = host.guests.followers.get(workload) if host.powered and not host.paused else None
        if follower is not None and not follower.adopting:
            follower.fail("its process was killed")
    return None


# Packages.


def _fail_fetches(parts: Parts, _: Operators, package: str, host: str = "") -> Undo:
    """The package cannot be fetched (by that host): what arrives is not what its hash says."""
    return _ill(parts.ills.fetches_fail, package, host)


def _fail_installs(parts: Parts, _: Operators, package: str, host: str = "") -> Undo:
    """The package cannot be installed (on that host): its install command fails."""
    return _ill(parts.ills.installs_fail, package, host)


def _bad_version(parts: Parts, _: Operators, package: str) -> Undo:
    """Modules of whatever runs from this package end as soon as they are started."""
    return _ill(parts.ills.versions_bad, package, "")


def _damage_copy(parts: Parts, _: Operators, package: str, host: str) -> Undo:
    """The disk of that host has lost a bit of the package, and its agent finds that; not of the last copy there is."""
    parts.hosts[host].depot.damage(package)
    return None


def _push(parts: Parts, operators: Operators, package: str, host: str) -> Undo:
    """The package is pushed to the agent of that host."""
    if parts.hosts[host].powered and not parts.hosts[host].paused:
        operators.push(package, parts.hosts[host].depot)
    return None


def _upgrade(parts: Parts, operators: Operators, workload: str, package: str) -> Undo:
    """The workload is applied with that version of its package."""
    operators.upgrade(workload, package)
    return None


def _remove_package(parts: Parts, operators: Operators, package: str) -> Undo:
    operators.remove_package(package)
    return None


# Operators, and hands in the store.


def _apply(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.apply(workload)
    return None


def _change(parts: Parts, operators: Operators, workload: str) -> Undo:
    """Its file changes, and is applied."""
    operators.change(workload)
    return None


def _stop(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.stop(workload)
    return None


def _start(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.start(workload)
    return None


def _remove(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.remove(workload)
    return None


def _migrate(parts: Parts, operators: Operators, workload: str, host: str | None = None) -> Undo:
    operators.migrate(workload, host)
    return None


def _failover(parts: Parts, operators: Operators, workload: str, host: str | None = None) -> Undo:
    operators.failover(workload, host)
    return None


def _checkpoint(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.checkpoint(workload)
    return None


def _resume(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.resume(workload)
    return None


def _cancel(parts: Parts, operators: Operators, workload: str) -> Undo:
    """What was asked of it last, and has not ended, is called off."""
    operators.cancel(workload)
    return None


def _maintenance(parts: Parts, operators: Operators, host: str, how: str = "") -> Undo:
    """The host is emptied; how: `force`, `back`, or both with a `+`. Undone: it may have workloads again."""
    operators.maintenance(host, force="force" in how)
    return lambda: operators.end_maintenance(host, back="back" in how)


def _freeze(parts: Parts, operators: Operators) -> Undo:
    """Nothing is done that nobody asks for; undone: the cluster acts by itself again."""
    operators.freeze()
    return operators.unfreeze


def _policy(parts: Parts, operators: Operators, setting: str) -> Undo:
    """A policy is set, as in `policy restarts_per_host=1`."""
    key, _, value = setting.partition("=")
    operators.set_policies({key: value})
    return None


def _garble(parts: Parts, operators: Operators, key: str) -> Undo:
    """Somebody writes nonsense into the store by hand."""
    operators.garble(key)
    return None


def _delete(parts: Parts, operators: Operators, key: str) -> Undo:
    """Somebody removes a key from the store by hand."""
    operators.delete(key)
    return None


VERBS: dict[str, Verb] = {
    "crash-module": Verb(_crash_module, 2, 2),
    "hang-module": Verb(_hang_module, 2, 2),
    "fail-starts": Verb(_fail_starts, 1, 2, hosts=(1,)),
    "fail-prepares": Verb(_fail_prepares, 1, 2, hosts=(1,)),
    "hang-stops": Verb(_hang_stops, 1, 2, hosts=(1,)),
    "kill-manager": Verb(_kill_manager, 1, 1),
    "kill-standby": Verb(_kill_standby, 1, 1),
    "fail-fetches": Verb(_fail_fetches, 1, 2, hosts=(1,)),
    "fail-installs": Verb(_fail_installs, 1, 2, hosts=(1,)),
    "bad-version": Verb(_bad_version, 1, 1),
    "damage-copy": Verb(_damage_copy, 2, 2, hosts=(1,)),
    "push": Verb(_push, 2, 2, hosts=(1,)),
    "upgrade": Verb(_upgrade, 2, 2),
    "remove-package": Verb(_remove_package, 1, 1),
    "checkpoint": Verb(_checkpoint, 1, 1),
    "resume": Verb(_resume, 1, 1),
    "cancel": Verb(_cancel, 1, 1),
    "apply": Verb(_apply, 1, 1),
    "change": Verb(_change, 1, 1),
    "stop": Verb(_stop, 1, 1),
    "start": Verb(_start, 1, 1),
    "remove": Verb(_remove, 1, 1),
    "migrate": Verb(_migrate, 1, 2, hosts=(1,)),
    "failover": Verb(_failover, 1, 2, hosts=(1,)),
    "maintenance": Verb(_maintenance, 1, 2, hosts=(0,)),
    "freeze": Verb(_freeze, 0, 0),
    "policy": Verb(_policy, 1, 1),
    "garble": Verb(_garble, 1, 1),
    "delete": Verb(_delete, 1, 1),
}
