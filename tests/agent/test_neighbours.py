"""Hosts in one process, joined by a wire that delivers at once: what one asks, the other answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from outlive.agent.neighbours import Identity, Neighbours
from outlive.cluster.events import Event, HeartbeatReceived, PeerHeard, ProbeAnswered, TableLearned
from outlive.cluster.heartbeat import Flags, Heartbeat, ModuleKey, ModuleStatus, ModuleTable
from outlive.cluster.host import Capacity, Host
from outlive.cluster.judging import PROBE_VIA, PROBED_AT_ONCE
from outlive.cluster.mirror import ClaimSeen, Entry, Mirror
from outlive.cluster.records import ClaimRecord
from outlive.wire.endpoint import Address
from outlive.wire.record import Refused
from outlive.wire.seal import Seal
from outlive.wire.sequence import Sequences

CLUSTER = "00112233445566ff"
BOOT = "a" * 32


class Wire:
    """Delivers datagrams between endpoints at once, except over the links in `cut`."""

    def __init__(self) -> None:
        self.hosts: dict[Address, Neighbours] = {}
        self.cut: set[tuple[int, int]] = set()
        self.refused: list[Refused] = []
        self.at = 1.0

    def endpoint(self, own: Address) -> "WireEnd":
        return WireEnd(self, own)


class WireEnd:
    def __init__(self, wire: Wire, own: Address) -> None:
        self.wire = wire
        self.own = own

    def send(self, datagram: bytes, to: Address) -> bool:
        target = self.wire.hosts.get(to)
        if target is None or (self.own.port, to.port) in self.wire.cut:
            return True
        message = target.receiver.accept(datagram, self.wire.at)
        if isinstance(message, Refused):
            self.wire.refused.append(message)
        else:
            target.heard(message, self.own, self.wire.at)
        return True


class Village:
    """Hosts a, b, c… that know each other; `told` has what each one's machines were told."""

    def __init__(self, folder: Path, names: str) -> None:
        self.wire = Wire()
        self.told: dict[str, list[Event]] = {name: [] for name in names}
        self.hosts: dict[str, Neighbours] = {}
        mirror = Mirror()
        for port, name in enumerate(names, 1):
            host = Host(name, "s", "10.0.0.1", port, 1, Capacity())
            mirror = Mirror(hosts=mirror.hosts.set(name, Entry(host, 1, 1)))
        for port, name in enumerate(names, 1):
            own = Address("10.0.0.1", port)
            sequences = Sequences(folder / f"sequence.{name}", 1000)
            one = Neighbours(
                Identity(CLUSTER, name, BOOT), Seal(CLUSTER, b"k" * 32), sequences, self.tell(name), lambda: 1.0
            )
            one.open_with(self.wire.endpoint(own))  # type: ignore[arg-type]
            one.know(mirror, 0.0)
            self.hosts[name] = self.wire.hosts[own] = one
        self.mirror = mirror

    def tell(self, name: str) -> Callable[[Event], None]:
        return self.told[name].append

    def cut(self, one: str, other: str) -> None:
        ports = {name: port for port, name in enumerate(self.hosts, 1)}
        self.wire.cut |= {(ports[one], ports[other]), (ports[other], ports[one])}


@pytest.fixture
def village(tmp_path: Path) -> Village:
    return Village(tmp_path, "abc")


def heartbeat(host: str) -> Heartbeat:
    return Heartbeat(CLUSTER, host, BOOT, 0, Flags.NONE, 0.5, 7, b"\0" * 8, (ModuleStatus.RUNNING,))


def test_a_heartbeat_reaches_whom_it_is_sent_to_and_nobody_else(village: Village) -> None:
    village.hosts["a"].send_heartbeat(heartbeat("a"), ("b", "unknown"))
    (received,) = village.told["b"]
    assert isinstance(received, HeartbeatReceived)
    assert received.heartbeat.sequence == village.hosts["a"].sequence
    assert village.told["c"] == []


def test_a_probe_is_answered_directly(village: Village) -> None:
    village.hosts["a"].probe("b", None)
    assert ProbeAnswered(1.0, "b", "a") in village.told["a"]


def test_a_peer_that_still_reaches_the_target_probes_for_the_asker(village: Village) -> None:
    village.cut("a", "c")
    village.hosts["a"].probe("c", None)
    assert village.told["a"] == []
    village.hosts["a"].probe("c", "b")
    assert ProbeAnswered(1.0, "c", "b") in village.told["a"]
    assert ProbeAnswered(1.0, "c", "b") not in village.told["b"]


def test_the_first_of_all_that_a_leader_asks_in_one_turn_is_heard_when_it_answers_after_the_last(
    village: Village,
) -> None:
    class Held:
        def __init__(self) -> None:
            self.sent: list[tuple[bytes, Address]] = []

        def send(self, datagram: bytes, to: Address) -> bool:
            self.sent.append((datagram, to))
            return True

    held = Held()
    village.hosts["a"].open_with(held)  # type: ignore[arg-type]
    for _ in range(PROBED_AT_ONCE * (1 + PROBE_VIA)):
        village.hosts["a"].probe("b", None)
    village.wire.endpoint(Address("10.0.0.1", 1)).send(*held.sent[0])
    assert ProbeAnswered(1.0, "b", "a") in village.told["a"]


def test_nothing_is_told_when_the_target_is_silent_for_all(village: Village) -> None:
    village.cut("a", "c")
    village.cut("b", "c")
    village.hosts["a"].probe("c", "b")
    assert [event for event in village.told["a"] if isinstance(event, ProbeAnswered)] == []


def test_a_module_table_is_learnt_whole_however_many_parts_it_has(village: Village) -> None:
    table = ModuleTable(tuple(ModuleKey(f"workload-{number}", 3, "server") for number in range(500)))
    village.hosts["b"].show(table)
    village.hosts["a"].request_table("b", table.digest())
    assert village.told["a"][-1] == TableLearned(1.0, "b", table)
    village.hosts["a"].request_table("b", b"12345678")
    assert len([event for event in village.told["a"] if isinstance(event, TableLearned)]) == 1


def test_any_message_is_a_sign_of_life(village: Village) -> None:
    village.hosts["a"].request_table("b", b"12345678")
    assert village.told["b"] == [PeerHeard(1.0, "a")]


def test_what_a_claim_says_was_used_already_is_refused(village: Village) -> None:
    claim = ClaimRecord("a", BOOT, "r", 1, 1, heartbeats=village.hosts["a"].sequence + 1)
    seen = ClaimSeen(5, True, 0.0, 5, claim, 0.0)
    village.hosts["b"].know(Mirror(hosts=village.mirror.hosts, claims=village.mirror.claims.set("a", seen)), 0.0)
    village.hosts["a"].send_heartbeat(heartbeat("a"), ("b",))
    assert village.told["b"] == []
    village.hosts["a"].send_heartbeat(heartbeat("a"), ("b",))
    assert len(village.told["b"]) == 1
