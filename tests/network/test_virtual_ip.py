"""Virtual IPs in real network namespaces, joined by a bridge."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Wait = Callable[[Callable[[], object], str], float]
Host = Any
Lan = Any


def ip_of(vip: str) -> str:
    return vip.split("/")[0]


def on_host(vip: str) -> str:
    return vip.split("%")[0]


def subnet_route(vip: str) -> str:
    subnet = "-6 route show fd77::/64" if ":" in vip else "-4 route show 10.77.0.0/24"
    return f"{subnet} dev eth0"


def refusal(host: Host, call: str, *arguments: object) -> tuple[str, str]:
    """The error's id and its text."""
    with pytest.raises(Exception) as caught:  # noqa: PT011, the class is the conftest's own
        host.do(call, *arguments)
    return caught.value.id, caught.value.sentence  # type: ignore[attr-defined]


def test_adding_is_idempotent_and_removing_too(alpha: Host, vip: str) -> None:
    assert alpha.do("add", vip, 60) is True
    assert alpha.do("add", vip, 60) is False
    assert on_host(vip) in alpha.addresses()
    assert vip in alpha.do("ours")

    assert alpha.do("remove", vip) is True
    assert alpha.do("remove", vip) is False
    assert on_host(vip) not in alpha.addresses()
    assert vip not in alpha.do("ours")


def test_address_that_moves_is_found_at_its_new_host_by_a_neighbour_that_says_nothing(
    alpha: Host, beta: Host, client: Host, vip: str, waiting: Wait
) -> None:
    alpha.do("add", vip, 60)
    client.do("talk_to", ip_of(vip))
    waiting(lambda: client.mac_of_neighbour(ip_of(vip)) == alpha.mac(), "the client knows the first holder")

    alpha.do("remove", vip)
    assert beta.do("detect_duplicate", vip) is None
    beta.do("add", vip, 60)
    assert client.mac_of_neighbour(ip_of(vip)) == alpha.mac()
    assert beta.do("announce", vip, 1, 0.1) == 1

    waiting(lambda: client.mac_of_neighbour(ip_of(vip)) == beta.mac(), "the client knows the second holder")
    beta.do("remove", vip)


def test_duplicate_is_found_with_its_mac_before_it_is_claimed(alpha: Host, beta: Host, vip: str) -> None:
    assert beta.do("detect_duplicate", vip) is None
    alpha.do("add", vip, 60)

    assert beta.do("detect_duplicate", vip) == alpha.mac()
    id, sentence = refusal(beta, "refuse_duplicate", vip)
    assert id == "virtual_ip.in_use"
    assert f"{ip_of(vip)} is already used by the machine with MAC {alpha.mac()}" in sentence
    alpha.do("remove", vip)


def test_own_address_and_own_reflected_packets_are_no_duplicate(lan: Lan, vip: str) -> None:
    host = lan.host()
    lan.reflect(host)
    host.do("add", vip, 60)
    assert host.do("detect_duplicate", vip) is None


def test_two_hosts_that_ask_for_an_address_at_once_do_not_both_find_it_free(alpha: Host, beta: Host, vip: str) -> None:
    asked = alpha.driver.begin("detect_duplicate", vip, 0.8), beta.driver.begin("detect_duplicate", vip, 0.8)

    found = alpha.driver.finish(asked[0]), beta.driver.finish(asked[1])
    assert found in {(beta.mac(), alpha.mac()), (beta.mac(), None), (None, alpha.mac())}


def test_kernel_drops_the_address_of_a_stopped_process_that_kept_renewing_it(lan: Lan, vip: str, waiting: Wait) -> None:
    host = lan.host(addressed=False)
    host.do("add", vip, 1.0)
    host.driver.begin("keep_renewing", vip, 1.0)
    for _ in range(8):  # more than a lifetime, with the route that only this address brings
        assert host.addresses() == {on_host(vip)}
        assert host.ip(subnet_route(vip))
        time.sleep(0.2)

    host.driver.process.send_signal(signal.SIGSTOP)
    waiting(lambda: not host.addresses(), "the kernel drops the address by itself")


def test_address_that_is_gone_is_not_renewed_into_life(alpha: Host, vip: str) -> None:
    alpha.do("add", vip, 60)
    alpha.ip(f"address del {on_host(vip)} dev eth0")

    id, sentence = refusal(alpha, "renew", vip, 60)
    assert (id, on_host(vip) in alpha.addresses()) == ("virtual_ip.missing", False)
    assert f"{ip_of(vip)} is no longer on eth0" in sentence


def test_claim_that_ended_before_the_kernel_was_told_adds_nothing(alpha: Host, vip: str) -> None:
    id, _ = refusal(alpha, "add", vip, 1.0, 1.5)
    assert (id, on_host(vip) in alpha.addresses()) == ("virtual_ip.lifetime_ended", False)


def test_renewing_with_a_claim_that_has_ended_drops_the_address(alpha: Host, vip: str) -> None:
    alpha.do("add", vip, 60)
    id, _ = refusal(alpha, "renew", vip, 1.0, 1.5)
    assert (id, on_host(vip) in alpha.addresses()) == ("virtual_ip.lifetime_ended", False)


def test_lifetime_in_the_kernel_is_what_is_left_of_the_claim_in_whole_seconds(alpha: Host, vip: str) -> None:
    alpha.do("add", vip, 100, 59.5)
    [link] = alpha.ip("address show dev eth0")
    [info] = [info for info in link["addr_info"] if info["local"] == ip_of(vip)]
    assert 30 <= info["valid_life_time"] <= 41
    alpha.do("remove", vip)


def test_leftover_of_a_killed_process_is_removed_and_foreign_addresses_are_never_touched(lan: Lan, vip: str) -> None:
    host = lan.host()
    family = "-6" if ":" in vip else "-4"
    foreign = "fd77::fff/64" if ":" in vip else "10.77.0.240/24"
    other = "fd77::ffe/64" if ":" in vip else "10.77.0.241/24"
    host.ip(f"{family} address add {foreign} dev eth0")
    host.do("add_as_another_program", f"{other}%eth0", 42)
    kept = vip.replace("/", "0/", 1) if ":" in vip else "10.77.0.242/24%eth0"
    before = host.addresses()
    with host.another_driver() as agent:
        agent.do("add", vip, 60)
        agent.do("add", kept, 60)
        agent.process.kill()

    assert host.do("ours") == sorted([vip, kept])
    assert host.do("reconcile", [kept]) == [vip]
    assert host.addresses() == before | {on_host(kept)}
    assert host.do("reconcile", []) == [kept]
    assert host.addresses() == before
    for text in (foreign, other):
        assert host.do("remove", f"{text}%eth0") is False
        id, sentence = refusal(host, "add", f"{text}%eth0", 60)
        assert (id, "it was not added by Outlive" in sentence) == ("virtual_ip.foreign", True)
        assert refusal(host, "renew", f"{text}%eth0", 60)[0] == "virtual_ip.foreign"
    assert host.addresses() == before


def test_without_tags_in_the_kernel_the_remembered_list_tells_what_is_ours(lan: Lan, vip: str, tmp_path: Path) -> None:
    host = lan.host()
    before = host.addresses()
    options = {"tag": None, "remembered_in": str(tmp_path / "run" / "addresses")}
    with host.another_driver(**options) as agent:
        agent.do("add", vip, 60)
        agent.process.kill()

    # The driver that goes by tags sees that it is not tagged: it is as foreign to it as any other.
    assert host.do("ours") == []
    assert refusal(host, "add", vip, 60)[0] == "virtual_ip.foreign"
    with host.another_driver(**options) as agent:
        assert agent.do("ours") == [vip]
        agent.do("renew", vip, 60)
        assert agent.do("reconcile", []) == [vip]
        host.ip(f"address add {on_host(vip)} dev eth0")
        assert agent.do("reconcile", []) == []
    assert host.addresses() == before | {on_host(vip)}


def test_addresses_that_came_to_the_subnet_later_stay_when_the_virtual_ip_goes(lan: Lan, vip: str) -> None:
    host = lan.host(addressed=False)
    foreign = "fd77::fff/64" if ":" in vip else "10.77.0.240/24"
    host.do("add", vip, 60)
    host.ip(f"address add {foreign} dev eth0 nodad" if ":" in vip else f"address add {foreign} dev eth0")
    host.do("renew", vip, 60)
    host.do("remove", vip)

    assert host.addresses() == {foreign}


def test_route_to_the_subnet_outlives_the_lifetime_of_the_virtual_ip(alpha: Host, vip: str, waiting: Wait) -> None:
    alpha.do("add", vip, 1.0)
    alpha.do("renew", vip, 1.0)
    waiting(lambda: on_host(vip) not in alpha.addresses(), "the lifetime ends")

    [route] = alpha.ip(subnet_route(vip))
    assert "expires" not in route


def test_address_is_usable_at_once_and_not_chosen_for_own_traffic(alpha: Host) -> None:
    alpha.do("add", "fd77::f00/64%eth0", 60)
    [link] = alpha.ip("-6 address show dev eth0")
    [info] = [info for info in link["addr_info"] if info["local"] == "fd77::f00"]
    [route] = alpha.ip("-6 route get fd77::eeee")
    assert ("tentative" in info, route["prefsrc"] != "fd77::f00") == (False, True)
    alpha.do("remove", "fd77::f00/64%eth0")


def test_announcing_stops_when_the_address_has_gone(alpha: Host, vip: str) -> None:
    alpha.do("add", vip, 60)
    announcing = alpha.driver.begin("announce", vip, 1000, 0.05)
    alpha.do("remove", vip)

    assert alpha.driver.finish(announcing) < 1000
    assert alpha.do("announce", vip, 3, 0.05) == 0


def test_interface_is_found_by_subnet(alpha: Host) -> None:
    assert alpha.do("resolve", "10.77.0.9") == "10.77.0.9/24%eth0"
    assert alpha.do("resolve", "fd77::9/64") == "fd77::9/64%eth0"
    assert alpha.do("resolve", "192.0.2.1/24", "eth0") == "192.0.2.1/24%eth0"
    assert refusal(alpha, "resolve", "192.0.2.1/24")[0] == "interface.missing"


def test_virtual_ip_itself_does_not_tell_the_subnet_of_an_interface(lan: Lan) -> None:
    host = lan.host(addressed=False)
    host.do("add", "10.77.0.250/24%eth0", 60)
    assert refusal(host, "resolve", "10.77.0.251")[0] == "interface.missing"


@pytest.mark.parametrize("call", [("add", 60), ("detect_duplicate",)])
def test_unknown_interface_is_refused_with_the_names_that_there_are(alpha: Host, call: tuple[object, ...]) -> None:
    id, sentence = refusal(alpha, str(call[0]), "10.77.0.9/24%nosuch0", *call[1:])
    assert (id, sentence) == ("interface.missing", "This host has no interface nosuch0. (it has eth0, lo)")


def test_interface_without_carrier_is_refused(lan: Lan, vip: str) -> None:
    host = lan.host()
    lan.unplug(host)
    id, sentence = refusal(host, "detect_duplicate", vip)
    assert (id, "Interface eth0 is down." in sentence) == ("interface.down", True)
    host.do("add", vip, 60)
    assert refusal(host, "announce", vip, 2, 0.05)[0] == "interface.down"


def test_interface_without_ipv6_is_refused_with_the_setting_that_forbids_it(lan: Lan) -> None:
    host = lan.host()
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    id, sentence = refusal(host, "add", "fd77::9/64%eth0", 60)
    assert (id, "IPv6 is disabled on the interface" in sentence) == ("interface.unsuitable", True)


def test_where_there_are_no_neighbours_nobody_is_asked_or_told(alpha: Host, vip: str) -> None:
    on_loopback = vip.replace("eth0", "lo").replace("/24", "/32").replace("/64", "/128")
    assert alpha.do("detect_duplicate", on_loopback) is None
    alpha.do("add", on_loopback, 60)
    assert alpha.do("announce", on_loopback, 1, 0.1) == 1
    alpha.do("remove", on_loopback)


def test_process_without_capabilities_is_told_what_it_lacks(alpha: Host, vip: str) -> None:
    powerless = ("setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw")
    with alpha.another_driver(wrapper=powerless) as agent:
        id, sentence = refusal(agent, "add", vip, 60)
        assert (id, "it lacks CAP_NET_ADMIN" in sentence) == ("network.not_permitted", True)
        id, sentence = refusal(agent, "detect_duplicate", vip)
        assert (id, "it lacks CAP_NET_RAW" in sentence) == ("network.not_permitted", True)


@pytest.mark.parametrize("lifetime_s", [0, -1, float("nan"), float("inf"), 1e9])
def test_senseless_lifetime_is_refused(alpha: Host, lifetime_s: float) -> None:
    assert refusal(alpha, "add", "10.77.0.9/24%eth0", lifetime_s)[0] == "virtual_ip.lifetime_invalid"


def test_same_ip_with_another_prefix_replaces_the_old_holding(alpha: Host) -> None:
    alpha.do("add", "10.77.0.253/24%eth0", 60)
    alpha.do("add", "10.77.0.253/32%eth0", 60)
    assert alpha.do("ours") == ["10.77.0.253/32%eth0"]
    assert alpha.do("remove", "10.77.0.253/24%eth0") is True
    assert alpha.do("ours") == []
