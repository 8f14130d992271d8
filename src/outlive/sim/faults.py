"""What goes wrong, as values: a moment, a verb, its arguments, and how long it lasts.

The same form is drawn from a seed, read from a scenario, and printed with a violation, so that what a seed found can
be kept as a scenario. Each verb says here what it does to the world and how it is undone; a fault without a
length stays.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from .operators import Operators
from .parts import Parts
from .runtime import Life

Undo = Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class Fault:
    """at_s: seconds since the run began. for_s: how long it lasts; None: it is not undone."""

    at_s: float
    verb: str
    args: tuple[str, ...] = ()
    for_s: float | None = None

    def __str__(self) -> str:
        words = f"at {self.at_s:g} s: {' '.join((self.verb, *self.args))}"
        return words if self.for_s is None else f"{words} for {self.for_s:g} s"


class UnknownVerb(ValueError):
    """A fault that no world knows."""


class Breaker:
    """Does faults to a world, and undoes them when their time is over."""

    def __init__(self, parts: Parts, operators: Operators) -> None:
        self._parts = parts
        self._operators = operators

    def plan(self, faults: Iterable[Fault]) -> None:
        """Put all of them on the agenda."""
        for fault in faults:
            check(fault, self._parts.hosts)
            self._parts.agenda.at(fault.at_s, self._do, fault)

    def _do(self, fault: Fault) -> None:
        parts = self._parts
        lasts = "" if fault.for_s is None else f" for {fault.for_s:g} s"
        parts.timeline.happened(parts.agenda.now, " ".join((fault.verb, *fault.args)) + lasts)
        undo = _VERBS[fault.verb].act(parts, self._operators, *fault.args)
        if undo is not None and fault.for_s is not None:
            parts.agenda.after(fault.for_s, self._undo, fault, undo)

    def _undo(self, fault: Fault, undo: Callable[[], None]) -> None:
        self._parts.timeline.happened(
            self._parts.agenda.now, f"{' '.join((fault.verb, *fault.args))}: over"
        )
        undo()


@dataclass(frozen=True, slots=True)
class Verb:
    """args: how many arguments it takes, least and most; hosts: which of them name hosts."""

    act: Callable[..., Undo]
    least: int
    most: int
    hosts: tuple[int, ...]


_VERBS: dict[str, Verb] = {}


def _verb(name: str, least: int, most: int | None = None, hosts: tuple[int, ...] = ()) -> Callable[..., Any]:
    def known(act: Callable[..., Undo]) -> Callable[..., Undo]:
        _VERBS[name] = Verb(act, least, least if most is None else most, hosts)
        return act

    return known


def check(fault: Fault, hosts: Iterable[str]) -> None:
    """Raise UnknownVerb, saying what is wrong, when no world could do this."""
    verb = _VERBS.get(fault.verb)
    if verb is None:
        raise UnknownVerb(f"no verb {fault.verb!r}; there are: {', '.join(sorted(_VERBS))}")
    if not verb.least <= len(fault.args) <= verb.most:
        raise UnknownVerb(f"{fault.verb} takes {verb.least} to {verb.most} arguments, not {len(fault.args)}")
    known = set(hosts)
    for position in verb.hosts:
        if position < len(fault.args):
            for name in fault.args[position].split("+"):
                if name not in known:
                    raise UnknownVerb(f"{fault.verb}: there is no host {name!r}")


# Hosts.


@_verb("crash", 1, hosts=(0,))
def _crash(parts: Parts, _: Operators, host: str) -> Undo:
    """Power is lost; undone: it boots."""
    parts.hosts[host].crash()
    return parts.hosts[host].boot  # type: ignore[no-any-return]


@_verb("pause", 1, hosts=(0,))
def _pause(parts: Parts, _: Operators, host: str) -> Undo:
    """All of the host stands still."""
    parts.hosts[host].pause()
    return parts.hosts[host].resume  # type: ignore[no-any-return]


@_verb("kill-agent", 1, hosts=(0,))
def _kill_agent(parts: Parts, _: Operators, host: str) -> Undo:
    """The agent's process dies; undone: it is started again."""
    there = parts.hosts[host]
    there.kill_agent()

    def start() -> None:
        if there.powered:
            there.start_agent_after(0.0)

    return start


@_verb("kill-agent-midway", 2, hosts=(0,))
def _kill_agent_midway(parts: Parts, _: Operators, host: str, commands: str) -> Undo:
    """The agent dies after so many commands more, in the middle of a step; it is started again by itself."""
    agent = parts.hosts[host].agent
    if agent is not None:
        agent.crash_in = int(commands)
    return None


@_verb("hang-agent", 1, hosts=(0,))
def _hang_agent(parts: Parts, _: Operators, host: str) -> Undo:
    """The agent's process is stopped."""
    return parts.hosts[host].hang_agent()  # type: ignore[no-any-return]


@_verb("kill-guard", 1, hosts=(0,))
def _kill_guard(parts: Parts, _: Operators, host: str) -> Undo:
    """The guard's process dies."""
    parts.hosts[host].kill_guard()
    return None


# The network between hosts.


def _cut(parts: Parts, ways: list[tuple[str, str]]) -> Undo:
    parts.network.cut(ways)
    return lambda: parts.network.mend(ways)


@_verb("cut", 2, hosts=(0, 1))
def _cut_both(parts: Parts, _: Operators, one: str, other: str) -> Undo:
    """Nothing passes between two groups of hosts (a+b c+d+e), either way."""
    pairs = [(a, b) for a, b in product(one.split("+"), other.split("+")) if a != b]
    return _cut(parts, pairs + [(b, a) for a, b in pairs])


@_verb("cut-oneway", 2, hosts=(0, 1))
def _cut_oneway(parts: Parts, _: Operators, sender: str, receiver: str) -> Undo:
    """Nothing passes from one group to the other; the other way is open."""
    pairs = product(sender.split("+"), receiver.split("+"))
    return _cut(parts, [(a, b) for a, b in pairs if a != b])


def _others(parts: Parts, host: str) -> list[str]:
    return [name for name in parts.hosts if name != host]


@_verb("isolate", 1, hosts=(0,))
def _isolate(parts: Parts, operators: Operators, host: str) -> Undo:
    """The host hears no other host, and none hears it; store and datastore are reached."""
    return _cut_both(parts, operators, host, "+".join(_others(parts, host)))  # type: ignore[no-any-return]


@_verb("unplug", 1, hosts=(0,))
def _unplug(parts: Parts, operators: Operators, host: str) -> Undo:
    """Isolated, and store and datastore are out of its reach too."""
    undo = _isolate(parts, operators, host)
    parts.ways.shut(host, to_store=True, from_store=True)
    parts.datastore.set_away(host)

    def plug() -> None:
        undo()
        parts.ways.shut(host, to_store=True, from_store=True, by=-1)
        parts.datastore.set_away(host, by=-1)

    return plug


@_verb("lose", 1)
def _lose(parts: Parts, _: Operators, ratio: str) -> Undo:
    """This part of all messages is lost."""
    before, parts.network.loss = parts.network.loss, float(ratio)

    def restore() -> None:
        parts.network.loss = before

    return restore


@_verb("double", 1)
def _double(parts: Parts, _: Operators, ratio: str) -> Undo:
    """This part of all messages arrives twice."""
    parts.network.duplication = float(ratio)

    def restore() -> None:
        parts.network.duplication = 0.0

    return restore


@_verb("delay", 1)
def _delay(parts: Parts, _: Operators, most_s: str) -> Undo:
    """Messages take up to so many seconds longer, and overtake each other."""
    parts.network.extra_delay_s = float(most_s)

    def restore() -> None:
        parts.network.extra_delay_s = 0.0

    return restore


# The store.


def _shut_store(parts: Parts, host: str, to_store: bool, from_store: bool) -> Undo:
    parts.ways.shut(host, to_store=to_store, from_store=from_store)
    return lambda: parts.ways.shut(host, to_store=to_store, from_store=from_store, by=-1)


@_verb("store-away", 1, hosts=(0,))
def _store_away(parts: Parts, _: Operators, host: str) -> Undo:
    """The host does not reach the store."""
    return _shut_store(parts, host, True, True)


@_verb("store-deaf", 1, hosts=(0,))
def _store_deaf(parts: Parts, _: Operators, host: str) -> Undo:
    """The host's requests are lost; it still sees changes."""
    return _shut_store(parts, host, True, False)


@_verb("store-mute", 1, hosts=(0,))
def _store_mute(parts: Parts, _: Operators, host: str) -> Undo:
    """The host's requests are carried out, but it learns nothing."""
    return _shut_store(parts, host, False, True)


@_verb("store-down", 0)
def _store_down(parts: Parts, _: Operators) -> Undo:
    """Nobody reaches the store."""
    parts.ways.shut_all()
    return lambda: parts.ways.shut_all(by=-1)


@_verb("store-slow", 1)
def _store_slow(parts: Parts, _: Operators, most_s: str) -> Undo:
    """Requests and answers each take up to so many seconds longer."""
    parts.ways.slow_s = float(most_s)

    def restore() -> None:
        parts.ways.slow_s = 0.0

    return restore


# The datastore.


@_verb("datastore-away", 1, hosts=(0,))
def _datastore_away(parts: Parts, _: Operators, host: str) -> Undo:
    """The host does not reach the datastore."""
    parts.datastore.set_away(host)
    return lambda: parts.datastore.set_away(host, by=-1)


@_verb("datastore-hung", 1, hosts=(0,))
def _datastore_hung(parts: Parts, _: Operators, host: str) -> Undo:
    """The datastore does not answer the host; what it wrote last happens in the end."""
    parts.datastore.set_hung(host)

    def answer() -> None:
        parts.datastore.set_hung(host, by=-1)
        parts.hosts[host].datastore_answers()

    return answer


@_verb("datastore-down", 0)
def _datastore_down(parts: Parts, _: Operators) -> Undo:
    """Nobody reaches the datastore."""
    parts.datastore.set_down()
    return lambda: parts.datastore.set_down(by=-1)


@_verb("datastore-stale", 2, hosts=(0,))
def _datastore_stale(parts: Parts, _: Operators, host: str, age_s: str) -> Undo:
    """The host reads slots as they were so many seconds ago."""
    parts.datastore.stale_s[host] = float(age_s)
    return lambda: parts.datastore.stale_s.pop(host, None)


# Workloads.


def _where(parts: Parts, workload: str) -> list[Any]:
    return [host for host in parts.hosts.values() if workload in host.runtime.programs and not host.paused]


@_verb("crash-module", 2)
def _crash_module(parts: Parts, _: Operators, workload: str, module: str) -> Undo:
    """The module's process ends, wherever it runs."""
    for host in _where(parts, workload):
        host.runtime.crash(workload, module)
    return None


@_verb("hang-module", 2)
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


@_verb("fail-starts", 1, 2, hosts=(1,))
def _fail_starts(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """Modules of the workload end as soon as they are started (on that host); the first running one ends now."""
    for there in _where(parts, workload):
        if host in ("", there.name):
            program = there.runtime.programs[workload]
            running = [name for name, process in program.processes.items() if process.life is Life.RUNNING]
            if running:
                there.runtime.crash(workload, running[0])
    return _ill(parts.ills.starts_fail, workload, host)


@_verb("fail-prepares", 1, 2, hosts=(1,))
def _fail_prepares(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """The workload cannot be made ready (on that host): its address is taken."""
    return _ill(parts.ills.prepares_fail, workload, host)


@_verb("hang-stops", 1, 2, hosts=(1,))
def _hang_stops(parts: Parts, _: Operators, workload: str, host: str = "") -> Undo:
    """Modules of the workload do not stop when asked, but only when killed."""
    return _ill(parts.ills.stops_hang, workload, host)


# Operators, and hands in the store.


@_verb("apply", 1)
def _apply(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.apply(workload)
    return None


@_verb("stop", 1)
def _stop(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.stop(workload)
    return None


@_verb("start", 1)
def _start(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.start(workload)
    return None


@_verb("remove", 1)
def _remove(parts: Parts, operators: Operators, workload: str) -> Undo:
    operators.remove(workload)
    return None


@_verb("migrate", 1, 2, hosts=(1,))
def _migrate(parts: Parts, operators: Operators, workload: str, host: str | None = None) -> Undo:
    operators.migrate(workload, host)
    return None


@_verb("failover", 1, 2, hosts=(1,))
def _failover(parts: Parts, operators: Operators, workload: str, host: str | None = None) -> Undo:
    operators.failover(workload, host)
    return None


@_verb("maintenance", 1, hosts=(0,))
def _maintenance(parts: Parts, operators: Operators, host: str) -> Undo:
    """The host gets no new workloads; undone: it does again."""
    operators.maintenance(host, True)
    return lambda: operators.maintenance(host, False)


@_verb("garble", 1)
def _garble(parts: Parts, operators: Operators, key: str) -> Undo:
    """Somebody writes nonsense into the store by hand."""
    operators.garble(key)
    return None


@_verb("delete", 1)
def _delete(parts: Parts, operators: Operators, key: str) -> Undo:
    """Somebody removes a key from the store by hand."""
    operators.delete(key)
    return None
