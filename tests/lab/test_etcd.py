"""Failures in a lab whose store is an etcd in its network. Each test ends with the promises checked by the scene."""

import itertools
import os
import time
from collections.abc import Callable, Iterator

import pytest

from outlive.errors import UsageInvalid
from outlive.lab import hosts, ready
from outlive.lab.lab import Lab
from outlive.lab.plan import ETCD, plan
from outlive.lab.sentinel import owned_lab

from ..store.etcd_cluster import etcd_cluster
from .scene import SETTLED_S, TAKEOVER_S, Scene, on_stage
from .shared import SharedLab

_numbers = itertools.count()


@pytest.fixture
def etcd_scene() -> Iterator[Scene]:
    """A counted Redis in a lab of its own with three members of etcd."""
    with owned_lab(f"e{os.getpid() % 10000}x{next(_numbers)}", 3, 1, print, None, ETCD) as lab, on_stage(lab) as scene:
        yield scene


def test_a_host_that_loses_power_is_replaced_though_a_member_of_etcd_goes_with_it(etcd_scene: Scene) -> None:
    lab = etcd_scene.lab
    lab.kill(etcd_scene.primary)
    lab.kill("store1")
    etcd_scene.runs_elsewhere()
    etcd_scene.counts_again()
    lab.start("store1")
    lab.start(etcd_scene.primary)
    ready.until_ready(lab, SETTLED_S)


def test_a_store_that_is_a_file_cannot_be_cut_off(shared: SharedLab) -> None:
    with pytest.raises(UsageInvalid):
        shared.lab().cut_store("a")


@pytest.mark.parametrize("store", ["redis", "etcds://h", "etcd://h:0", "sqlite:///srv/store.db"])
def test_a_store_that_a_labs_hosts_could_not_reach_is_refused(store: str) -> None:
    with pytest.raises(UsageInvalid):
        plan("never", 3, 1, store)


@pytest.mark.soak
def test_a_lab_may_use_an_etcd_outside_and_be_cut_off_from_it() -> None:
    with etcd_cluster() as cluster:
        store = str(cluster.address("/labs"))
        name = f"e{os.getpid() % 10000}x{next(_numbers)}"
        with owned_lab(name, 3, 1, print, None, store) as lab, on_stage(lab) as scene:
            lab.kill(scene.primary)
            scene.runs_elsewhere()
            scene.counts_again()
            cluster.kill(cluster.leader())
            scene.counts_again()
            lab.kill("store1")
            lab.start("store1")
            scene.counts_again()


@pytest.mark.soak
def test_a_host_that_is_cut_off_from_the_store_alone_stops_and_is_replaced(etcd_scene: Scene) -> None:
    lab = etcd_scene.lab
    lab.cut_store(etcd_scene.primary)
    etcd_scene.runs_elsewhere()
    etcd_scene.counts_again()
    lab.heal()
    ready.until_ready(lab, SETTLED_S)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [Lab.kill, Lab.pause, Lab.isolate])
def test_members_may_die_stand_still_and_be_cut_off_while_hosts_die(
    etcd_scene: Scene, fault: Callable[[Lab, str], None]
) -> None:
    """One member at a time, around each power cut; then all of them at once, which nothing acknowledged may notice.

    No more than two power cuts: whose third host in a row dies soon is suspected, and waits.
    """
    lab = etcd_scene.lab
    for member in lab.plan.members[:2]:
        fault(lab, member)
        primary = ready.until_running(lab, "counter", TAKEOVER_S)
        lab.kill(primary)
        etcd_scene.primary = primary
        etcd_scene.runs_elsewhere()
        etcd_scene.counts_again()
        whole_again(lab, member)
        lab.start(primary)
        ready.until_ready(lab, 2 * SETTLED_S)
    for member in lab.plan.members:
        lab.kill(member)
    time.sleep(2.0)
    for member in lab.plan.members:
        lab.start(member)
    ready.until_ready(lab, 2 * SETTLED_S)
    etcd_scene.counts_again()


def whole_again(lab: Lab, member: str) -> None:
    if not hosts.is_on(lab.plan, member):
        lab.start(member)
    lab.resume(member)
    lab.heal(member)
