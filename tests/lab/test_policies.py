"""Operators' wishes of the whole cluster, for real: a host is emptied and given back, a frozen one is left alone."""

import time
from collections.abc import Callable

import pytest

from outlive.lab import hosts, ready
from outlive.lab import service_demo as demo

from .scene import WORKLOAD, Scene

SURELY_OVER_S = 6.0


def until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def test_a_host_is_emptied_of_its_service_and_has_it_back_and_no_client_loses_anything(scene: Scene) -> None:
    client, path = ready.any_client(scene.lab), f"/v1/hosts/{scene.primary}/maintenance"
    begun = client.put(path, {"reason": "memory"})
    assert begun["changed"]
    assert [each["how"] for each in begun["plan"]] in (["restarted"], [])
    scene.runs_elsewhere()
    until(lambda: client.get(f"{path}?wait_s=10")["done"], "it is never empty")
    scene.counts_again()
    assert not hosts.pids(scene.lab.plan, scene.primary, f"{hosts.WORKLOADS}/{WORKLOAD}")
    client.delete(f"{path}?back=1")
    scene.runs_here()
    scene.counts_again()
    until(lambda: client.get(path)["record"] is None, "its maintenance never ends")
    until(lambda: scene.kinds().count("migrate.done") >= 2, "its moves are not recorded")
    assert scene.kinds().count("migrate.done") == 2


@pytest.mark.soak
def test_while_the_cluster_is_frozen_a_host_that_is_cut_off_goes_on_and_nothing_is_moved(scene: Scene) -> None:
    client = ready.any_client(scene.lab)
    client.put("/v1/policies/frozen", {"reason": "new switch"})
    try:
        scene.lab.partition(scene.primary)
        scene.until_judged(scene.primary, "partitioned", "isolated")
        time.sleep(SURELY_OVER_S)
        assert hosts.pids(scene.lab.plan, scene.primary, f"{hosts.WORKLOADS}/{WORKLOAD}")
        assert scene.generation(besides=(scene.primary,)) == scene.first
        scene.lab.heal()
        ready.until_ready(scene.lab, 60)
        scene.counts_again()
    finally:
        scene.lab.heal()
        ready.any_client(scene.lab).delete("/v1/policies/frozen")
    assert scene.generation() == scene.first


@pytest.mark.soak
def test_what_is_to_be_left_alone_goes_on_on_an_isolated_host(scene: Scene) -> None:
    left = f'on_isolation = "leave"\n{demo.REDIS}'
    ready.any_client(scene.lab).put(f"/v1/workloads/{WORKLOAD}", left.encode())
    while scene.runs_here()["generation"] == scene.first:
        time.sleep(0.1)
    scene.counts_again()
    generation = scene.generation()
    scene.lab.isolate(scene.primary)
    scene.until_judged(scene.primary, "isolated", "partitioned")
    time.sleep(SURELY_OVER_S)
    assert scene.module_pids()
    assert scene.generation(besides=(scene.primary,)) == generation
    scene.lab.heal(scene.primary)
    ready.until_ready(scene.lab, 60)
    scene.counts_again()
    assert scene.generation() == generation
