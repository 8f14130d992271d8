"""Virtual networks between real hosts: frames reach the one host that a placement names, and its paired standby."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from outlive.cluster.machine import Machine, Nic
from outlive.cluster.overlay import Network, Outside, Whereabouts, wiring
from outlive.network.tap import tap_name

from .conftest import DriverError, Host, Lan, Namespace, wait_until

BLUE = Network("blue", 4211)
BRIDGE = "olbr4211"
WEB, DB, SHY = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
MOST_LOST = 200
EVERYBODY = "ff:ff:ff:ff:ff:ff"
OUR_FRAMES = "88b5"
MACS = {"web": WEB, "db": DB, "shy": SHY}
MACHINES = {name: Machine(nics=(Nic("lan", mac, network="blue"),)) for name, mac in MACS.items()}
AT_REST = [Whereabouts("web", 3, "a"), Whereabouts("db", 1, "c")]
PAIRED = [Whereabouts("web", 3, "a", standby="b", pairing=1, paired=True), Whereabouts("db", 1, "c")]
TAKEN_OVER = [Whereabouts("web", 4, "b", pairing=1), Whereabouts("db", 1, "c")]


@dataclass
class Cluster:
    """Three hosts, and what each believes; machines are the test itself behind their taps."""

    hosts: dict[str, Host]
    addresses: dict[str, str]
    network: Network = BLUE
    opened: set[tuple[str, str]] = field(default_factory=set)

    def update(self, name: str, whereabouts: list[Whereabouts], *, look_again: bool = False) -> Any:
        """Have one host see these whereabouts, and make the taps of its machines."""
        wired = wiring(name, [self.network], MACHINES, whereabouts, self.addresses)
        told = self.hosts[name].do("update", self.addresses[name], msgspec.to_builtins(wired), look_again)
        for segment in wired.segments:
            for here in segment.here:
                tap = {"workload": here.workload, "nic": here.nic, "mac": here.mac, "generation": here.age[0]}
                self.hosts[name].do("ensure_tap", {**tap, "bridge": BRIDGE, "mtu": BLUE.mtu, "live": here.live})
                if (name, here.workload) not in self.opened:
                    self.open(name, here.workload)
        return told

    def everywhere(self, whereabouts: list[Whereabouts]) -> None:
        for name in self.hosts:
            self.update(name, whereabouts)

    def send(self, name: str, workload: str, destination: str, text: str) -> None:
        self.hosts[name].do("send", tap_name(workload, "lan"), MACS[workload], destination, text)

    def heard(self, name: str, workload: str, count: int, ethertype: str = OUR_FRAMES) -> list[str]:
        """What came to a machine: so many frames, and any that came besides."""
        found = self.hosts[name].do("heard", tap_name(workload, "lan"), count, ethertype)
        assert isinstance(found, list)
        return found

    def open(self, name: str, workload: str) -> None:
        """Be the machine behind its tap, and wait until its bridge has noticed."""
        host, tap = self.hosts[name], tap_name(workload, "lan")
        host.do("open_tap", tap)
        self.opened.add((name, workload))
        wait_until(lambda: "state forwarding" in host.run("bridge", "link", "show", "dev", tap), "the port forwards")

    def forwarded(self, name: str, device: str = "olvx4211") -> set[tuple[str, str]]:
        shown = self.hosts[name].run("bridge", "fdb", "show", "dev", device)
        words = [line.split() for line in shown.splitlines() if " dst " in line]
        return {(line[0], line[line.index("dst") + 1]) for line in words}

    def address_6(self, name: str) -> str:
        return next(each.partition("/")[0] for each in self.hosts[name].addresses() if each.startswith("fd77"))

    def close(self) -> None:
        for name, host in self.hosts.items():
            for holder, workload in self.opened:
                if holder == name:
                    host.do("close_tap", tap_name(workload, "lan"))
            host.do("reconcile_taps", [])
            host.do("update", self.addresses[name], {})


@pytest.fixture(scope="module")
def hosts(lan: Lan) -> Iterator[dict[str, Host]]:
    with ExitStack() as resources:
        yield {name: lan.host() for name in ("a", "b", "c")}
        resources.close()


@pytest.fixture
def cluster(hosts: dict[str, Host]) -> Iterator[Cluster]:
    addresses = {
        name: next(each.partition("/")[0] for each in host.addresses() if each.startswith("10."))
        for name, host in hosts.items()
    }
    made = Cluster(hosts, addresses)
    yield made
    made.close()
    assert not any("olbr" in host.run("ip", "link") or "olvx" in host.run("ip", "link") for host in hosts.values())


def test_a_frame_goes_to_the_host_of_its_receiver_and_to_no_other(cluster: Cluster) -> None:
    where = [*AT_REST, Whereabouts("shy", 1, "b")]
    cluster.everywhere(where)
    cluster.send("a", "web", DB, "hello")
    cluster.send("c", "db", WEB, "and back")
    assert cluster.heard("c", "db", 1) == ["hello"]
    assert cluster.heard("a", "web", 1) == ["and back"]
    assert cluster.heard("b", "shy", 0) == []
    cluster.send("a", "web", EVERYBODY, "all of you")
    assert cluster.heard("c", "db", 1) == ["all of you"]
    assert cluster.heard("b", "shy", 1) == ["all of you"]
    assert cluster.heard("a", "web", 0) == []


def test_machines_on_one_host_reach_each_other_and_nobody_else_hears_it(cluster: Cluster) -> None:
    cluster.everywhere([Whereabouts("web", 3, "a"), Whereabouts("db", 1, "a"), Whereabouts("shy", 1, "b")])
    cluster.send("a", "web", DB, "neighbour")
    assert cluster.heard("a", "db", 1) == ["neighbour"]
    assert cluster.heard("b", "shy", 0) == []


def test_nothing_is_learned_from_traffic(cluster: Cluster) -> None:
    where = [*AT_REST, Whereabouts("shy", 1, "b")]
    cluster.everywhere(where)
    cluster.hosts["b"].do("send", tap_name("shy", "lan"), DB, EVERYBODY, "I am db")
    assert cluster.heard("a", "web", 1) == ["I am db"]
    cluster.send("a", "web", DB, "for db")
    assert cluster.heard("c", "db", 2) == ["I am db", "for db"]
    assert cluster.heard("b", "shy", 0) == []


def test_a_paired_standby_hears_what_its_primary_hears_and_nothing_is_doubled(cluster: Cluster) -> None:
    cluster.everywhere(PAIRED)
    cluster.send("c", "db", WEB, "one")
    cluster.send("c", "db", EVERYBODY, "two")
    assert cluster.heard("a", "web", 2) == ["one", "two"]
    assert cluster.heard("b", "web", 2) == ["one", "two"]
    assert cluster.heard("c", "db", 0) == []


def test_after_a_takeover_frames_arrive_before_any_other_host_knows_of_it(cluster: Cluster) -> None:
    cluster.everywhere(PAIRED)
    assert cluster.hosts["b"].do("take", cluster.addresses["b"], BLUE.vni, WEB, 4, 1)
    cluster.send("c", "db", WEB, "to whoever is web now")
    assert cluster.heard("b", "web", 1) == ["to whoever is web now"]
    cluster.update("b", PAIRED)
    assert not any(mac == WEB for mac, _ in cluster.forwarded("b")), "an older view takes nothing back"
    cluster.update("b", TAKEN_OVER)
    cluster.update("c", TAKEN_OVER)
    cluster.heard("a", "web", 1)
    cluster.send("c", "db", WEB, "to b alone")
    cluster.send("b", "web", DB, "from b")
    assert cluster.heard("b", "web", 1) == ["to b alone"]
    assert cluster.heard("a", "web", 0) == []
    assert cluster.heard("c", "db", 1) == ["from b"]


def test_a_stream_goes_on_through_a_takeover_and_no_frame_is_doubled(cluster: Cluster) -> None:
    cluster.everywhere(PAIRED)
    b, c = cluster.hosts["b"], cluster.hosts["c"]
    stream = c.driver.begin("send_many", tap_name("db", "lan"), DB, WEB, 400, 0.0005)
    b.do("take", cluster.addresses["b"], BLUE.vni, WEB, 4, 1)
    cluster.update("b", TAKEN_OVER)
    cluster.update("c", TAKEN_OVER)
    c.driver.finish(stream)
    heard = [int(text) for text in cluster.heard("b", "web", 400 - MOST_LOST)]
    print(f"frames lost on the way to the new host: {400 - len(heard)} of 400")
    assert heard == sorted(set(heard)), "none is doubled, and none comes out of order"
    assert not cluster.forwarded("c", "olvs4211")


def test_a_machine_beside_a_standby_reaches_the_primary_until_the_takeover(cluster: Cluster) -> None:
    where = [PAIRED[0], Whereabouts("db", 1, "b")]
    cluster.update("a", where)
    cluster.update("b", where)
    cluster.send("b", "db", WEB, "before")
    assert cluster.heard("a", "web", 1) == ["before"]
    assert cluster.heard("b", "web", 1) == ["before"]
    cluster.hosts["b"].do("take", cluster.addresses["b"], BLUE.vni, WEB, 4, 1)
    cluster.update("b", [TAKEN_OVER[0], Whereabouts("db", 1, "b")])
    cluster.send("b", "db", WEB, "after")
    assert cluster.heard("b", "web", 1) == ["after"]
    assert cluster.heard("a", "web", 0) == []


def test_a_machine_beside_the_old_primary_reaches_the_new_one_although_the_old_tap_is_still_there(
    cluster: Cluster,
) -> None:
    beside = Whereabouts("db", 1, "a")
    cluster.update("a", [PAIRED[0], beside])
    cluster.update("b", [PAIRED[0], beside])
    cluster.update("b", [TAKEN_OVER[0], beside])
    cluster.update("a", [TAKEN_OVER[0], beside])
    cluster.send("a", "db", WEB, "moved")
    assert cluster.heard("b", "web", 1) == ["moved"]
    assert cluster.heard("a", "web", 0) == []


def test_an_agent_that_starts_again_finds_its_networks_and_mends_them(cluster: Cluster) -> None:
    cluster.everywhere(PAIRED)
    host = cluster.hosts["c"]
    before = host.ip("link show dev olvx4211")[0]["ifindex"]
    host.run("bridge", "fdb", "del", WEB, "dev", "olvx4211", "dst", cluster.addresses["a"])
    host.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "olvx4211", "dst", "10.99.99.99")
    with host.another_driver() as other:
        wired = msgspec.to_builtins(wiring("c", [BLUE], MACHINES, PAIRED, cluster.addresses))
        assert other.do("update", cluster.addresses["c"], wired)["entries"] == 2
        assert other.do("update", cluster.addresses["c"], wired)["entries"] == 0
    assert host.ip("link show dev olvx4211")[0]["ifindex"] == before
    assert (WEB, cluster.addresses["a"]) in cluster.forwarded("c")
    assert cluster.forwarded("c", "olvs4211") == {(WEB, cluster.addresses["b"])}


def test_a_device_that_was_removed_is_made_again_when_one_looks(cluster: Cluster) -> None:
    cluster.everywhere(AT_REST)
    cluster.hosts["c"].ip("link del olvx4211")
    assert cluster.update("c", AT_REST, look_again=True)["made"] == ["blue"]
    cluster.send("c", "db", WEB, "again")
    assert cluster.heard("a", "web", 1) == ["again"]


def test_a_network_goes_when_its_last_machine_has_left_and_not_before(cluster: Cluster) -> None:
    cluster.everywhere(AT_REST)
    moved = [AT_REST[0], Whereabouts("db", 2, "a")]
    assert cluster.update("c", moved)["removed"] == [], "its machine's tap is still there"
    host = cluster.hosts["c"]
    host.do("close_tap", tap_name("db", "lan"))
    cluster.opened.discard(("c", "db"))
    host.do("remove_tap", "db", "lan")
    assert cluster.update("c", moved)["removed"] == ["blue"]


def test_a_bridge_of_another_is_left_alone(cluster: Cluster) -> None:
    host = cluster.hosts["a"]
    host.ip(f"link add {BRIDGE} type bridge")
    host.ip(f"link set {BRIDGE} alias theirs")
    with pytest.raises(DriverError) as refusal:
        cluster.update("a", AT_REST)
    assert refusal.value.id == "network.device_foreign"
    assert host.ip(f"link show dev {BRIDGE}")[0]["ifalias"] == "theirs"
    host.ip(f"link del {BRIDGE}")
    assert cluster.update("a", AT_REST)["made"] == ["blue"], "the next update tries again"


def test_a_machine_is_announced_to_a_member_outside_that_learns(
    cluster: Cluster, lan: Lan, waiting: Callable[[Callable[[], object], str], float]
) -> None:
    outside = lan.host()
    own = next(each.partition("/")[0] for each in outside.addresses() if each.startswith("10."))
    outside.ip(f"link add vx type vxlan id 4211 local {own} dstport 4789")
    outside.ip("link set vx up")
    cluster.network = Network("blue", 4211, outside=(Outside(own),))
    cluster.everywhere(TAKEN_OVER)
    assert cluster.hosts["b"].do("announce_machine", BRIDGE, WEB, ["10.9.0.5", "fd00::5"]) == 2

    def learned() -> bool:
        shown = outside.run("bridge", "fdb", "show", "dev", "vx")
        return any(line.startswith(WEB) and f"dst {cluster.addresses['b']} " in line for line in shown.splitlines())

    waiting(learned, "the outside member learns where the machine is")
    assert cluster.heard("c", "db", 2, ethertype="8035"), "machines see it too"


def test_an_update_for_a_takeover_takes_milliseconds(cluster: Cluster) -> None:
    cluster.everywhere(PAIRED)
    took = []
    for turn in range(5):
        took.append(cluster.update("c", [Whereabouts("web", 4 + turn, "b"), AT_REST[1]])["took_ms"])
        cluster.update("c", [Whereabouts("web", 4 + turn, "a", "b", 1, True), AT_REST[1]])
    print("update for a takeover: " + " ".join(f"{each:.2f}" for each in took) + " ms")
    assert min(took) < 1000


@pytest.fixture
def far(lan: Lan) -> Iterator[Host]:
    """A host in another subnet, 10.78.0.0/24, behind a router."""
    with ExitStack() as resources:
        router, host = resources.enter_context(Namespace()), Host(resources)
        lan.plug_into(router, "near")
        router.ip(f"link add beyond up type veth peer name eth0 netns {host.pid}")
        router.ip("address add 10.77.0.250/24 dev near")
        router.ip("address add 10.78.0.1/24 dev beyond")
        router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        host.ip("link set eth0 up")
        host.ip("address add 10.78.0.9/24 dev eth0")
        host.ip("route add default via 10.78.0.1")
        host.start()
        yield host


def test_a_network_spans_routed_links(cluster: Cluster, far: Host) -> None:
    near = cluster.hosts["a"]
    near.ip("route add 10.78.0.0/24 via 10.77.0.250")
    spanning = Cluster({"a": near, "far": far}, {"a": cluster.addresses["a"], "far": "10.78.0.9"})
    spanning.everywhere([Whereabouts("web", 1, "a"), Whereabouts("db", 1, "far")])
    spanning.send("a", "web", DB, "far away")
    spanning.send("far", "db", EVERYBODY, "everybody")
    assert spanning.heard("far", "db", 1) == ["far away"]
    assert spanning.heard("a", "web", 1) == ["everybody"]
    spanning.close()
    near.ip("route del 10.78.0.0/24")


def test_hosts_may_reach_each_other_over_ipv6(cluster: Cluster) -> None:
    over6 = Cluster(cluster.hosts, {name: cluster.address_6(name) for name in cluster.hosts})
    over6.everywhere(PAIRED)
    over6.send("c", "db", WEB, "one")
    assert over6.heard("a", "web", 1) == ["one"]
    assert over6.heard("b", "web", 1) == ["one"]
    over6.close()
