"""Taps: made once, recognised as ours, and removed when nobody wants them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.cluster.host import NAME
from outlive.network.tap import alias, read_alias, tap_name

from .conftest import DriverError, Host, Lan

MAC = "52:54:00:00:00:01"


@pytest.fixture
def host(alpha: Host) -> Iterator[Host]:
    alpha.ip("link add br-test up mtu 1400 type bridge")
    yield alpha
    alpha.do("reconcile_taps", [])
    alpha.ip("link del br-test")


def wanted(**changes: object) -> dict[str, Any]:
    return {"workload": "web", "nic": "lan", "generation": 7, "mac": MAC, "bridge": "br-test", **changes}


def link(host: Host, name: str) -> Any:
    return host.ip(f"-details link show dev {name}")[0]


def pinned(host: Host, name: str) -> bool:
    return MAC in host.run("bridge", "fdb", "show", "dev", name)


def test_a_tap_is_in_its_bridge_and_says_whose_it_is(host: Host) -> None:
    name = host.do("ensure_tap", wanted())["name"]
    there = link(host, name)
    assert there["master"] == "br-test"
    assert there["mtu"] == 1400
    assert there["ifalias"] == "outlive:web:7:lan"
    assert "UP" in there["flags"]
    assert there["linkinfo"]["info_data"]["persist"]
    assert there["address"].startswith("fe:"), "a bridge does not take its MAC from it"
    assert there["inet6_addr_gen_mode"] == "none"
    assert pinned(host, name)


def test_making_a_tap_again_changes_only_what_is_different(host: Host) -> None:
    first = host.do("ensure_tap", wanted())
    index = link(host, first["name"])["ifindex"]
    again = host.do("ensure_tap", wanted(generation=8, mtu=1300, live=False))
    there = link(host, first["name"])
    assert (again["name"], there["ifindex"]) == (first["name"], index)
    assert (there["ifalias"], there["mtu"]) == ("outlive:web:8:lan", 1300)
    assert not pinned(host, first["name"]), "a standby's card is where its primary runs"
    host.do("ensure_tap", wanted(generation=9))
    assert pinned(host, first["name"])


def test_a_tap_outlives_the_program_that_had_it_open_and_goes_on_being_ours(host: Host) -> None:
    name = host.do("ensure_tap", wanted())["name"]
    host.do("open_tap", name)
    with pytest.raises(DriverError):
        host.do("ensure_tap", wanted(bridge="nosuch"))
    assert host.do("ensure_tap", wanted(generation=8))["name"] == name
    host.do("close_tap", name)
    assert [tap["generation"] for tap in host.do("our_taps")] == [8]


def test_leftovers_are_removed_and_others_taps_are_left_alone(host: Host) -> None:
    kept = host.do("ensure_tap", wanted())["name"]
    host.do("ensure_tap", wanted(workload="old", mac="52:54:00:00:00:02"))
    host.ip("tuntap add name theirs mode tap")
    host.ip("link set theirs alias outlive:old:3:lan")
    removed = host.do("reconcile_taps", [["web", "lan"]])
    assert [tap["workload"] for tap in removed] == ["old"]
    assert [tap["name"] for tap in host.do("our_taps")] == [kept]
    assert link(host, "theirs")
    host.ip("link del theirs")


def test_a_device_of_another_that_has_our_name_is_refused(host: Host) -> None:
    host.ip(f"link add {tap_name('web', 'lan')} type bridge")
    with pytest.raises(DriverError) as refusal:
        host.do("ensure_tap", wanted())
    assert refusal.value.id == "network.device_foreign"
    with pytest.raises(DriverError):
        host.do("remove_tap", "web", "lan")
    host.ip(f"link del {tap_name('web', 'lan')}")
    assert not host.do("remove_tap", "web", "lan")


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"bridge": "nosuch"}, "bridge.missing"),
        ({"bridge": "eth0"}, "bridge.unsuitable"),
        ({"mac": "53:54:00:00:00:01"}, "network.mac-invalid"),
    ],
)
def test_a_tap_that_cannot_be_is_refused_and_not_made(host: Host, change: dict[str, object], id: str) -> None:
    with pytest.raises(DriverError) as refusal:
        host.do("ensure_tap", wanted(**change))
    assert refusal.value.id == id
    assert host.do("our_taps") == []


def test_a_bridge_that_is_off_is_refused(host: Host) -> None:
    host.ip("link set br-test down")
    with pytest.raises(DriverError) as refusal:
        host.do("ensure_tap", wanted())
    assert refusal.value.id == "bridge.unsuitable"


def test_a_program_of_the_owner_may_open_the_tap(host: Host) -> None:
    name = host.do("ensure_tap", wanted(owner=65534))["name"]
    program = (
        "import fcntl, os, struct, sys\n"
        "tap = os.open('/dev/net/tun', os.O_RDWR)\n"
        "os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "fcntl.ioctl(tap, 0x400454CA, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))\n"
    )

    def opens(user: int) -> bool:
        command = host.inside(sys.executable, "-c", program, name, str(user))
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode == 0

    assert opens(65534)
    assert not opens(65533)


def is_forwarding(host: Host, port: str) -> bool:
    return "state forwarding" in host.run("bridge", "link", "show", "dev", port)


def test_a_machine_on_the_lan_is_reached_at_its_new_host_once_that_announced_it(
    lan: Lan, waiting: Callable[[Callable[[], object], str], float]
) -> None:
    frames, everybody, client_mac = "88b5", "ff:ff:ff:ff:ff:ff", "52:54:00:00:0c:01"

    def on_lan(workload: str, mac: str, *, live: bool = True) -> Host:
        host, tap = lan.host(addressed=False), tap_name(workload, "lan")
        host.ip("link add br-lan up type bridge forward_delay 0")
        host.ip("link set eth0 master br-lan")
        host.do("ensure_tap", wanted(workload=workload, mac=mac, bridge="br-lan", live=live))
        host.do("open_tap", tap)
        for port in ("eth0", tap):
            waiting(partial(is_forwarding, host, port), "the port forwards")
        return host

    hosts = {"a": on_lan("web", MAC), "b": on_lan("web", MAC, live=False), "c": on_lan("client", client_mac)}
    web, client = tap_name("web", "lan"), tap_name("client", "lan")
    hosts["a"].do("send", web, MAC, everybody, "I am web")
    assert hosts["c"].do("heard", client, 1, frames) == ["I am web"]
    hosts["c"].do("send", client, client_mac, MAC, "to web")
    assert hosts["a"].do("heard", web, 1, frames) == ["to web"]
    assert hosts["b"].do("heard", web, 1, frames) == ["I am web"], "the standby hears what is for everybody"

    hosts["b"].do("ensure_tap", wanted(generation=8, bridge="br-lan"))
    hosts["b"].do("announce_machine", "br-lan", MAC, [])
    hosts["c"].do("send", client, client_mac, MAC, "to web again")
    assert hosts["b"].do("heard", web, 1, frames) == ["to web again"]
    assert hosts["a"].do("heard", web, 0, frames) == []


NAMES = st.from_regex(NAME, fullmatch=True)


@given(NAMES, NAMES, st.integers(1, 10**18 - 1))
def test_names_are_short_and_aliases_read_back(workload: str, nic: str, generation: int) -> None:
    assert len(tap_name(workload, nic)) == 15
    assert tap_name(workload, nic).isascii()
    assert read_alias(alias(workload, nic, generation)) == (workload, nic, generation)


def test_names_differ_where_workload_and_card_do() -> None:
    names = {tap_name(f"vm{number}", nic) for number in range(1000) for nic in ("a", "b")}
    assert len(names) == 2000
    assert tap_name("a", "b-c") != tap_name("a-b", "c")


@given(st.text(max_size=60) | st.from_regex(r"outlive:[a-z0-9:./-]{0,40}"))
def test_any_alias_is_ours_or_nobodys(text: str) -> None:
    said = read_alias(text)
    assert said is None or alias(said[0], said[1], said[2]).split(":")[:2] == text.split(":")[:2]
