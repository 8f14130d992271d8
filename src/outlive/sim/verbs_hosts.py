"""Verbs for hosts, the network between them, the store and the datastore."""

from collections.abc import Callable
from itertools import product

from .operators import Operators
from .parts import Parts
from .verb import Undo, Verb

KNOWN_S, KNOWN_TRIES = 6.0, 5
"""How soon, and how often, somebody looks whether his word is asked for on a machine that was taken away."""

# Hosts.


def _crash(parts: Parts, _: Operators, host: str) -> Undo:
    """Power is lost; undone: it boots."""
    parts.hosts[host].crash()
    return parts.hosts[host].boot  # type: ignore[no-any-return]


def _replace(parts: Parts, operators: Operators, host: str) -> Undo:
    """Power is lost for good; undone: another machine has the host's name, and a person who knows says so if asked."""
    there = parts.hosts[host]
    there.crash()

    def another() -> None:
        there.replaced()
        for number in range(1, KNOWN_TRIES + 1):
            parts.agenda.after(number * KNOWN_S, operators.confirm_dead, host)

    return another


def _pause(parts: Parts, _: Operators, host: str) -> Undo:
    """All of the host stands still."""
    parts.hosts[host].pause()
    return parts.hosts[host].resume  # type: ignore[no-any-return]


def _kill_agent(parts: Parts, _: Operators, host: str) -> Undo:
    """The agent's process dies; undone: it is started again."""
    there = parts.hosts[host]
    there.kill_agent()

    def start() -> None:
        if there.powered:
            there.start_agent_after(0.0)

    return start


def _kill_agent_midway(parts: Parts, _: Operators, host: str, commands: str) -> Undo:
    """The agent dies after so many commands more, in the middle of a step; it is started again by itself."""
    agent = parts.hosts[host].agent
    if agent is not None:
        agent.crash_in = int(commands)
    return None


def _hang_agent(parts: Parts, _: Operators, host: str) -> Undo:
    """The agent's process is stopped."""
    return parts.hosts[host].hang_agent()  # type: ignore[no-any-return]


def _slow_ticks(parts: Parts, _: Operators, host: str, apart_s: str) -> Undo:
    """The agent is given its time only every so many seconds; what it is told in between it deals with at once."""
    parts.slow_ticks[host] = float(apart_s)

    def quicken() -> None:
        parts.slow_ticks.pop(host, None)

    return quicken


def _kill_guard(parts: Parts, _: Operators, host: str) -> Undo:
    """The guard's process dies."""
    parts.hosts[host].kill_guard()
    return None


# The network between hosts.


def _cut(parts: Parts, ways: list[tuple[str, str]]) -> Callable[[], None]:
    parts.network.cut(ways)
    return lambda: parts.network.mend(ways)


def _cut_both(parts: Parts, _: Operators, one: str, other: str) -> Callable[[], None]:
    """Nothing passes between two groups of hosts (a+b c+d+e), either way."""
    pairs = [(a, b) for a, b in product(one.split("+"), other.split("+")) if a != b]
    return _cut(parts, pairs + [(b, a) for a, b in pairs])


def _cut_oneway(parts: Parts, _: Operators, sender: str, receiver: str) -> Undo:
    """Nothing passes from one group to the other; the other way is open."""
    pairs = product(sender.split("+"), receiver.split("+"))
    return _cut(parts, [(a, b) for a, b in pairs if a != b])


def _others(parts: Parts, host: str) -> list[str]:
    return [name for name in parts.hosts if name != host]


def _isolate(parts: Parts, operators: Operators, host: str) -> Callable[[], None]:
    """The host hears no other host, and none hears it; store and datastore are reached."""
    return _cut_both(parts, operators, host, "+".join(_others(parts, host)))


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


def _lose(parts: Parts, _: Operators, ratio: str) -> Undo:
    """This part of all messages is lost."""
    before, parts.network.loss = parts.network.loss, float(ratio)

    def restore() -> None:
        parts.network.loss = before

    return restore


def _double(parts: Parts, _: Operators, ratio: str) -> Undo:
    """This part of all messages arrives twice."""
    parts.network.duplication = float(ratio)

    def restore() -> None:
        parts.network.duplication = 0.0

    return restore


def _delay(parts: Parts, _: Operators, most_s: str) -> Undo:
    """Messages take up to so many seconds longer, and overtake each other."""
    parts.network.extra_delay_s = float(most_s)

    def restore() -> None:
        parts.network.extra_delay_s = 0.0

    return restore


def _cut_link(parts: Parts, _: Operators, one: str, other: str) -> Undo:
    """No stream between virtual machines passes from one group to the other, nor back; all else does."""
    ways = [(a, b) for a, b in product(one.split("+"), other.split("+")) if a != b]
    ways += [(b, a) for a, b in ways]
    parts.links.cut(ways)
    return lambda: parts.links.mend(ways)


def _cut_link_oneway(parts: Parts, _: Operators, sender: str, receiver: str) -> Undo:
    """The same in one direction."""
    ways = [(a, b) for a, b in product(sender.split("+"), receiver.split("+")) if a != b]
    parts.links.cut(ways)
    return lambda: parts.links.mend(ways)


def _stall_managers(parts: Parts, _: Operators, host: str) -> Undo:
    """The communication managers of the host stand still, and nothing else."""
    return parts.hosts[host].guests.stall()  # type: ignore[no-any-return]


# The store.


def _shut_store(parts: Parts, host: str, to_store: bool, from_store: bool) -> Undo:
    parts.ways.shut(host, to_store=to_store, from_store=from_store)
    return lambda: parts.ways.shut(host, to_store=to_store, from_store=from_store, by=-1)


def _store_away(parts: Parts, _: Operators, host: str) -> Undo:
    """The host does not reach the store."""
    return _shut_store(parts, host, True, True)


def _store_deaf(parts: Parts, _: Operators, host: str) -> Undo:
    """The host's requests are lost; it still sees changes."""
    return _shut_store(parts, host, True, False)


def _store_mute(parts: Parts, _: Operators, host: str) -> Undo:
    """The host's requests are carried out, but it learns nothing."""
    return _shut_store(parts, host, False, True)


def _watch_stuck(parts: Parts, _: Operators, host: str) -> Undo:
    """The host's requests are answered, but it learns of no change."""
    parts.ways.set_stuck(host)
    return lambda: parts.ways.set_stuck(host, by=-1)


def _store_down(parts: Parts, _: Operators) -> Undo:
    """Nobody reaches the store."""
    parts.ways.shut_all()
    return lambda: parts.ways.shut_all(by=-1)


def _store_slow(parts: Parts, _: Operators, most_s: str) -> Undo:
    """Requests and answers each take up to so many seconds longer."""
    parts.ways.slow_s = float(most_s)

    def restore() -> None:
        parts.ways.slow_s = 0.0

    return restore


# The datastore.


def _datastore_away(parts: Parts, _: Operators, host: str) -> Undo:
    """The host does not reach the datastore."""
    parts.datastore.set_away(host)
    return lambda: parts.datastore.set_away(host, by=-1)


def _datastore_hung(parts: Parts, _: Operators, host: str) -> Undo:
    """The datastore does not answer the host; what it wrote last happens in the end."""
    parts.datastore.set_hung(host)

    def answer() -> None:
        parts.datastore.set_hung(host, by=-1)
        parts.hosts[host].datastore_answers()

    return answer


def _datastore_down(parts: Parts, _: Operators) -> Undo:
    """Nobody reaches the datastore."""
    parts.datastore.set_down()
    return lambda: parts.datastore.set_down(by=-1)


def _datastore_stale(parts: Parts, _: Operators, host: str, age_s: str) -> Undo:
    """The host reads slots as they were so many seconds ago."""
    parts.datastore.stale_s[host] = float(age_s)

    def refresh() -> None:
        parts.datastore.stale_s.pop(host, None)

    return refresh


VERBS: dict[str, Verb] = {
    "crash": Verb(_crash, 1, 1, hosts=(0,)),
    "replace": Verb(_replace, 1, 1, hosts=(0,)),
    "pause": Verb(_pause, 1, 1, hosts=(0,)),
    "kill-agent": Verb(_kill_agent, 1, 1, hosts=(0,)),
    "kill-agent-midway": Verb(_kill_agent_midway, 2, 2, hosts=(0,)),
    "hang-agent": Verb(_hang_agent, 1, 1, hosts=(0,)),
    "slow-ticks": Verb(_slow_ticks, 2, 2, hosts=(0,)),
    "kill-guard": Verb(_kill_guard, 1, 1, hosts=(0,)),
    "cut": Verb(_cut_both, 2, 2, hosts=(0, 1)),
    "cut-oneway": Verb(_cut_oneway, 2, 2, hosts=(0, 1)),
    "isolate": Verb(_isolate, 1, 1, hosts=(0,)),
    "unplug": Verb(_unplug, 1, 1, hosts=(0,)),
    "cut-link": Verb(_cut_link, 2, 2, hosts=(0, 1)),
    "cut-link-oneway": Verb(_cut_link_oneway, 2, 2, hosts=(0, 1)),
    "stall-managers": Verb(_stall_managers, 1, 1, hosts=(0,)),
    "lose": Verb(_lose, 1, 1),
    "double": Verb(_double, 1, 1),
    "delay": Verb(_delay, 1, 1),
    "store-away": Verb(_store_away, 1, 1, hosts=(0,)),
    "store-deaf": Verb(_store_deaf, 1, 1, hosts=(0,)),
    "store-mute": Verb(_store_mute, 1, 1, hosts=(0,)),
    "watch-stuck": Verb(_watch_stuck, 1, 1, hosts=(0,)),
    "store-down": Verb(_store_down, 0, 0),
    "store-slow": Verb(_store_slow, 1, 1),
    "datastore-away": Verb(_datastore_away, 1, 1, hosts=(0,)),
    "datastore-hung": Verb(_datastore_hung, 1, 1, hosts=(0,)),
    "datastore-down": Verb(_datastore_down, 0, 0),
    "datastore-stale": Verb(_datastore_stale, 2, 2, hosts=(0,)),
}
