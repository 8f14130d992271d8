"""A virtual network across the lab's sites: a hot machine's clients go on when the other site takes it over."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.lab import commands, machines, ready, underlay
from outlive.lab.guests.clients import Asking, Clients
from outlive.lab.guests.tiny import tiny
from outlive.lab.lab import Lab
from outlive.lab.sentinel import owned_lab

from .machine_scene import nothing_lost

VNI, MTU = 42, 1450
CLIENT_ADDRESS, CLIENT_MAC = "10.90.0.2/24", "52:54:00:90:00:02"
FOLLOWED_S = 90.0
APART = '[placement]\napart = "site"\n'
HOT = machines.Wish("hot", network="blue", address="10.90.0.150", mac="52:54:00:90:00:96", disk_on=None, more=APART)

_numbers = itertools.count()


@pytest.fixture
def sites() -> Iterator[Lab]:
    """Four hosts in two sites, and the client on a virtual network."""
    with owned_lab(f"v{os.getpid() % 10000}x{next(_numbers)}", 4, 2, print) as lab:
        ready.until_ready(lab, FOLLOWED_S)
        outside = [{"address": underlay.client_address(lab.plan), "macs": [CLIENT_MAC]}]
        ready.any_client(lab).put("/v1/networks/blue", {"vni": VNI, "mtu": MTU, "outside": outside})
        underlay.join(lab.plan, VNI, CLIENT_ADDRESS, CLIENT_MAC, MTU)
        yield lab


def forwarded(lab: Lab, host: str, device: str) -> set[tuple[str, str]]:
    """MAC and address of each entry of a host's VXLAN end."""
    namespace = lab.plan.host(host).namespace
    shown = commands.ip("netns", "exec", namespace, "bridge", "fdb", "show", "dev", device, tolerate=True)
    words = [line.split() for line in shown.splitlines() if " dst " in line]
    return {(line[0], line[line.index("dst") + 1]) for line in words}


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + FOLLOWED_S
    while not holds():
        assert time.monotonic() < deadline, f"it does not hold that {what}"
        time.sleep(0.05)


def test_connections_over_a_virtual_network_go_on_when_the_other_site_takes_over(sites: Lab, tmp_path: Path) -> None:
    machines.begin(sites, tiny(), HOT)
    primary, standby = machines.until_followed(sites, HOT.name, FOLLOWED_S)
    assert sites.plan.host(primary).site != sites.plan.host(standby).site
    there = (HOT.mac, sites.plan.host(primary).address)
    until(lambda: there in forwarded(sites, standby, f"olvx{VNI}"), "its standby knows where it runs")
    asking = Asking(HOT.address, connections=4, request="inc", think_ms=2, after_s=30.0)
    with Clients(asking, tmp_path / "record", namespace=sites.plan.client) as clients:
        clients.until_answered(4, FOLLOWED_S, answers=25)
        sites.kill(primary)
        ready.until_running(sites, HOT.name, FOLLOWED_S, besides=(primary,))
        time.sleep(2)
        nothing_lost(clients.stop())
    until(lambda: HOT.mac not in {mac for mac, _ in forwarded(sites, standby, f"olvx{VNI}")}, "it is known to run here")
