"""The lab's links: sites are joined by a router; what is cut is cut on every link, in the direction that was said."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from outlive.errors import UsageInvalid
from outlive.lab import commands, network, underlay
from outlive.lab.lab import Lab
from outlive.lab.plan import NETWORK_4, plan

WAIT_S = 20.0
GONE_S = 0.4
LISTEN = (
    "import socket, sys\n"
    "heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "heard.bind((sys.argv[1], 9))\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "heard.settimeout(float(sys.argv[2]))\n"
    "try:\n"
    "    print(heard.recv(9).decode())\n"
    "except OSError:\n"
    "    print('silence')\n"
)
SPEAK = (
    "import socket, sys, time\n"
    "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "while True:\n"
    "    try:\n"
    "        out.sendto(b'hello', (sys.argv[1], 9))\n"
    "    except OSError:\n"
    "        pass\n"
    "    print('said', flush=True)\n"
    "    time.sleep(0.1)\n"
)

_numbers = itertools.count()


class Links:
    """A lab's network without its hosts' programs, and questions about it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespaces = {host.name: host.namespace for host in lab.plan.hosts} | {"client": lab.plan.client}
        self.own = {host.name: host.address for host in lab.plan.hosts} | {"client": underlay.client_address(lab.plan)}
        self.lan = {host.name: host.lan_address for host in lab.plan.hosts} | {"client": f"{NETWORK_4}.2"}

    def python(self, name: str, program: str, *arguments: str) -> "subprocess.Popen[str]":
        command = ["nsenter", f"--net=/run/netns/{self.namespaces[name]}", sys.executable, "-S", "-c", program]
        return subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def passes(self, source: str, target: str, address: str, within_s: float) -> bool:
        """Whether one of many datagrams arrives within a time that begins when the first was sent."""
        with self.python(target, LISTEN, address, str(within_s)) as listening:
            assert listening.stdout is not None
            assert listening.stdout.readline() == "ready\n"
            with self.python(source, SPEAK, address) as speaking:
                assert speaking.stdout is not None
                try:
                    assert speaking.stdout.readline() == "said\n"
                    heard, _ = listening.communicate("listen\n")
                finally:
                    speaking.kill()
        return heard == "hello\n"

    def hears(self, target: str, source: str) -> bool:
        """Both by the hosts' own links and by the LAN."""
        return self.hears_own(target, source) and self.passes(source, target, self.lan[target], WAIT_S)

    def hears_own(self, target: str, source: str) -> bool:
        return self.passes(source, target, self.own[target], WAIT_S)

    def hears_nothing_of(self, target: str, source: str) -> bool:
        return not any(self.passes(source, target, to[target], GONE_S) for to in (self.own, self.lan))


@pytest.fixture(scope="module")
def made() -> Iterator[Links]:
    """Hosts a and b in the first site, c and d in the second; only their network."""
    planned = plan(f"n{os.getpid() % 10000}x{next(_numbers)}", 4, 2)
    try:
        network.make(planned)
        yield Links(Lab(planned))
    finally:
        network.unmake(planned)


@pytest.fixture
def links(made: Links) -> Iterator[Links]:
    yield made
    network.heal(made.lab.plan, [host.name for host in made.lab.plan.hosts])
    underlay.shape(made.lab.plan)


def test_sites_have_subnets_of_their_own_and_a_router_between_them(links: Links) -> None:
    assert (links.own["a"], links.own["c"]) == ("10.79.1.11", "10.79.2.13")
    assert links.hears("c", "a")
    assert links.hears("a", "client")
    way = commands.ip("-n", links.namespaces["a"], "route", "get", links.own["c"])
    assert "via 10.79.1.1 dev site0" in way


def test_isolated_hosts_hear_nobody_on_any_link(links: Links) -> None:
    network.isolate(links.lab.plan, "c")
    assert links.hears_nothing_of("c", "a")
    assert links.hears_nothing_of("d", "c")
    network.heal(links.lab.plan, ["c"])
    assert links.hears("c", "a")


def test_partitioned_hosts_hear_each_other_across_sites_and_nobody_else(links: Links) -> None:
    links.lab.partition("a", "c")
    assert links.hears("a", "c")
    assert links.hears("b", "d")
    assert links.hears("d", "client")
    assert links.hears_nothing_of("b", "a")
    assert links.hears_nothing_of("c", "client")
    network.heal(links.lab.plan, ["a"])
    assert links.hears("b", "a")
    assert links.hears_nothing_of("c", "a")


def test_a_site_is_cut_off_as_a_whole(links: Links) -> None:
    links.lab.partition_sites("site2")
    assert links.hears("d", "c")
    assert links.hears_nothing_of("a", "c")
    assert links.hears_nothing_of("c", "a")
    with pytest.raises(UsageInvalid):
        links.lab.partition_sites("site3")


def test_a_link_is_cut_in_one_direction(links: Links) -> None:
    links.lab.cut_link("a", "c")
    links.lab.cut_link("a", "b")
    for cut in ("b", "c"):
        assert not links.passes("a", cut, links.own[cut], GONE_S)
        assert links.hears_own("a", cut)
    assert links.hears("d", "a")
    network.heal(links.lab.plan, ["c"])
    assert links.hears("c", "a")
    assert not links.passes("a", "b", links.own["b"], GONE_S)


def test_sites_are_cut_in_one_direction(links: Links) -> None:
    links.lab.cut_sites("site2", "site1")
    assert not links.passes("c", "a", links.own["a"], GONE_S)
    assert not links.passes("d", "b", links.own["b"], GONE_S)
    assert links.hears_own("c", "a")
    assert links.hears_own("d", "c")


def test_a_host_that_lost_power_comes_back_with_its_own_links_alone(links: Links) -> None:
    planned = links.lab.plan
    commands.ip("-n", links.namespaces["d"], "link", "add", "olbr9", "type", "bridge")
    commands.ip("-n", links.namespaces["d"], "tuntap", "add", "dev", "oltap", "mode", "tap")
    network.cut_power(planned, "d")
    assert links.hears_nothing_of("d", "a")
    network.reset(planned, "d")
    network.heal(planned, ["d"])
    assert links.hears("d", "a")
    shown = commands.ip("-n", links.namespaces["d"], "-o", "link", "show")
    assert {line.split()[1].rstrip(":").partition("@")[0] for line in shown.splitlines()} == network.OWN_LINKS


def test_links_between_sites_have_a_rate(links: Links) -> None:
    links.lab.slow_sites(rate_mbit=20)
    shown = commands.tc(links.lab.plan.switch, ["qdisc show dev net-site2"])
    assert "tbf" in shown
    assert "rate 20Mbit" in shown
    assert links.hears("c", "a")


def test_the_client_is_a_member_of_a_virtual_network_that_learns(links: Links) -> None:
    """A host's end of it is made by hand here: what agents do is tested where they are."""
    name = underlay.join(links.lab.plan, 77, "10.90.0.2/24", "52:54:00:00:77:02", 1450)
    far, own = links.namespaces["d"], links.own["d"]
    end = ["id", "77", "local", own, "dstport", "4789", "nolearning"]
    commands.ip("-n", far, "link", "add", "there", "mtu", "1450", "type", "vxlan", *end)
    client = links.own["client"]
    commands.ip("netns", "exec", far, "bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "there", "dst", client)
    commands.ip("-n", far, "addr", "add", "10.90.0.4/24", "dev", "there")
    commands.ip("-n", far, "link", "set", "dev", "there", "up")
    assert links.passes("client", "d", "10.90.0.4", WAIT_S)
    assert links.passes("d", "client", "10.90.0.2", WAIT_S)
    learned = commands.ip("netns", "exec", links.namespaces["client"], "bridge", "fdb", "show", "dev", name)
    assert f"dst {own} self" in learned.replace("dst " + own + " via", "")
    underlay.leave(links.lab.plan, 77)
    commands.ip("-n", far, "link", "del", "dev", "there")
