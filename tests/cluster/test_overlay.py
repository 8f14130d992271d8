"""Virtual networks: what each host must have follows from placements, and from nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster import records as rec
from outlive.cluster.host import Capacity, Host
from outlive.cluster.machine import KernelBoot, Machine, Nic
from outlive.cluster.mirror import Mirror, snapshot
from outlive.cluster.overlay import (
    Entry,
    Here,
    MacInvalid,
    Network,
    Outside,
    Whereabouts,
    checked_mac,
    problem_with,
    wiring,
)
from outlive.cluster.transaction import KeyValue
from outlive.cluster.whereabouts import wiring_of
from outlive.cluster.workload import Kind, Module, Workload

BLUE = Network("blue", 42)
HOSTS = {"a": "10.1.0.1", "b": "10.1.0.2", "c": "10.2.0.3"}
WEB_MAC, DB_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
WEB = Machine(nics=(Nic("lan", WEB_MAC, network="blue"),))
DB = Machine(nics=(Nic("lan", DB_MAC, network="blue"), Nic("out", "52:54:00:00:00:03", bridge="br0")))
MACHINES = {"web": WEB, "db": DB}


def test_other_hosts_send_a_machines_frames_to_where_its_placement_says() -> None:
    whereabouts = [Whereabouts("web", 7, "a"), Whereabouts("db", 3, "b")]
    [segment] = wiring("b", [BLUE], MACHINES, whereabouts, HOSTS).segments
    assert segment.entries == (Entry(WEB_MAC, HOSTS["a"], (7, 0)),)
    assert segment.flood == (HOSTS["a"],)
    assert segment.here == (Here("db", "lan", DB_MAC, True, (3, 0)),)
    assert not segment.shadowed


def test_hosts_without_a_machine_of_the_network_have_nothing_of_it() -> None:
    assert wiring("c", [BLUE], MACHINES, [Whereabouts("web", 7, "a")], HOSTS).segments == ()


def test_a_paired_standby_gets_the_machines_frames_besides() -> None:
    hot = Whereabouts("web", 7, "a", standby="b", pairing=2, paired=True)
    everywhere = [hot, Whereabouts("db", 1, "c")]
    [at_c] = wiring("c", [BLUE], MACHINES, everywhere, HOSTS).segments
    assert at_c.entries == (
        Entry(WEB_MAC, HOSTS["a"], (7, 2)),
        Entry(WEB_MAC, HOSTS["b"], (7, 2), shadow=True),
    )
    assert at_c.flood == (HOSTS["a"], HOSTS["b"])
    [at_b] = wiring("b", [BLUE], MACHINES, everywhere, HOSTS).segments
    assert at_b.here == (Here("web", "lan", WEB_MAC, False, (7, 2)),)
    assert Entry(WEB_MAC, HOSTS["a"], (7, 2)) in at_b.entries
    assert not any(entry.shadow for entry in at_b.entries)
    assert at_b.shadowed
    assert at_c.shadowed


def test_a_standby_that_is_not_paired_yet_is_a_member_without_shadow() -> None:
    hot = [Whereabouts("web", 7, "a", standby="b", pairing=2), Whereabouts("db", 1, "c")]
    [segment] = wiring("c", [BLUE], MACHINES, hot, HOSTS).segments
    assert segment.flood == (HOSTS["a"], HOSTS["b"])
    assert not any(entry.shadow for entry in segment.entries)
    assert segment.shadowed, "its devices are made before they are needed"


def test_after_a_takeover_every_other_host_sends_to_the_new_one_alone() -> None:
    [segment] = wiring(
        "c", [BLUE], MACHINES, [Whereabouts("web", 8, "b", pairing=2), Whereabouts("db", 1, "c")], HOSTS
    ).segments
    assert segment.entries == (Entry(WEB_MAC, HOSTS["b"], (8, 2)),)


def test_a_stopped_machine_is_nowhere() -> None:
    both = [Whereabouts("web", 7, None), Whereabouts("db", 1, "c")]
    [segment] = wiring("c", [BLUE], MACHINES, both, HOSTS).segments
    assert segment.entries == ()
    assert segment.flood == ()


def test_members_outside_are_flooded_to_and_their_macs_are_known() -> None:
    network = Network("blue", 42, outside=(Outside("10.9.0.1", ("52:54:00:AA:00:01", WEB_MAC)), Outside("fd00::1")))
    [segment] = wiring(
        "a", [network], MACHINES, [Whereabouts("web", 1, "a"), Whereabouts("db", 1, "b")], HOSTS
    ).segments
    assert segment.flood == ("10.1.0.2", "10.9.0.1")
    assert Entry("52:54:00:aa:00:01", "10.9.0.1", (0, 0)) in segment.entries
    assert all(entry.mac != WEB_MAC for entry in segment.entries), "a placement outranks what an operator wrote"


def test_what_cannot_be_wired_is_left_out_and_named() -> None:
    machines = {
        "one": WEB,
        "same": WEB,
        "lost": Machine(nics=(Nic("lan", "52:54:00:00:00:09", network="green"),)),
        "odd": Machine(nics=(Nic("lan", "53:54:00:00:00:09", network="blue"),)),
        "far": Machine(nics=(Nic("lan", "52:54:00:00:00:0a", network="blue"),)),
    }
    where = [Whereabouts(name, 1, "six" if name == "far" else "a") for name in machines]
    networks = [BLUE, Network("red", 42), Network("zero", 0)]
    found = wiring("a", networks, machines, where, {**HOSTS, "six": "fd00::6"})
    assert [here.workload for here in found.segments[0].here] == ["one"]
    assert found.segments[0].flood == ()
    said = "\n".join(found.problems)
    for part in ("same/lan", "green", "53:54", "red", "zero", "host six"):
        assert part in said
    assert wiring("z", [BLUE], machines, where, HOSTS).problems


@pytest.mark.parametrize(
    "network",
    [
        Network("", 1),
        Network("../x", 1),
        Network("n", 0),
        Network("n", 1 << 24),
        Network("n", 1, mtu=0),
        Network("n", 1, mtu=65536),
        Network("n", 1, mtu=1000, subnet="fd00::/64"),
        Network("n", 1, subnet="10.0.0.1/24"),
        Network("n", 1, outside=(Outside("nowhere"),)),
        Network("n", 1, outside=(Outside("10.0.0.1", ("ff:ff:ff:ff:ff:ff",)),)),
    ],
)
def test_networks_that_cannot_be_are_refused_from_the_store(network: Network) -> None:
    assert problem_with(network)
    with pytest.raises(rec.BadRecord):
        rec.decode(rec.NETWORKS + network.name, rec.encode(network))


def test_a_network_reads_back_as_it_was_written() -> None:
    network = Network("blue", 42, 1400, "10.9.0.0/24", (Outside("10.0.0.1", (WEB_MAC,)),))
    assert rec.decode("networks/blue", rec.encode(network)) == network
    with pytest.raises(rec.BadRecord):
        rec.decode("networks/green", rec.encode(network))


@given(st.text(max_size=30) | st.from_regex(r"[0-9a-fA-F:]{0,20}"))
def test_any_text_is_a_mac_or_refused(text: str) -> None:
    try:
        mac = checked_mac(text)
    except MacInvalid:
        return
    raw = bytes.fromhex(mac.replace(":", ""))
    assert len(raw) == 6
    assert raw != bytes(6)
    assert not raw[0] & 1
    assert mac == text.lower()


@given(st.binary(max_size=200) | st.from_regex(rb'\{"name":"blue","vni":-?[0-9]{1,20},"mtu":[0-9]{1,6}\}'))
def test_any_bytes_are_a_network_or_refused(value: bytes) -> None:
    try:
        network = rec.decode("networks/blue", value)
    except rec.BadRecord:
        return
    assert isinstance(network, Network)
    assert problem_with(network) == ""


NAMES = st.sampled_from(["a", "b", "c"])


@given(
    st.builds(
        Whereabouts,
        st.just("web"),
        st.integers(1, 9),
        st.none() | NAMES,
        st.none() | NAMES,
        st.integers(0, 3),
        st.booleans(),
    ),
    st.builds(Whereabouts, st.just("db"), st.integers(1, 9), NAMES),
)
def test_no_host_sends_a_machines_frames_where_its_placement_does_not_say(web: Whereabouts, db: Whereabouts) -> None:
    named = {HOSTS[name] for name in (web.host, web.standby) if name is not None}
    for host in HOSTS:
        for segment in wiring(host, [BLUE], MACHINES, [web, db], HOSTS).segments:
            assert HOSTS[host] not in segment.flood
            for entry in segment.entries:
                assert entry.address != HOSTS[host]
                assert entry.mac != WEB_MAC or entry.address in named
            live = [entry for entry in segment.entries if not entry.shadow]
            assert len({entry.mac for entry in live}) == len(live)


def test_a_picture_of_the_store_gives_the_wiring() -> None:
    machine = replace(WEB, boot=KernelBoot("/boot/vmlinuz"))
    workload = Workload("web", (Module("vm", ()),), Kind.VM, machine=machine)
    placed = rec.PlacementRecord("web", 4, "a", standby="b", pairing=6, paired=True)
    listed: list[tuple[str, rec.Record]] = [
        ("networks/blue", BLUE),
        ("workloads/web", rec.WorkloadRecord(workload)),
        ("placements/web", placed),
    ]
    listed += [(f"hosts/{name}", Host(name, "s", address, 1, 2, Capacity())) for name, address in HOSTS.items()]
    values = [KeyValue(key, rec.encode(record), 1, 1) for key, record in listed]
    mirror = snapshot(Mirror(), 1, values, 0.0)
    assert not mirror.bad
    [segment] = wiring_of(mirror, "b").segments
    assert segment.here == (Here("web", "lan", WEB_MAC, False, (4, 6)),)
    assert segment.entries == (Entry(WEB_MAC, HOSTS["a"], (4, 6)),)
