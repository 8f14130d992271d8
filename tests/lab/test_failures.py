"""Real failures of a real Redis and its hosts. Each test ends with the promises checked by the scene."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from outlive.cluster.timing import Timing
from outlive.lab import hosts, network, ready
from outlive.native import outlive_command

from .scene import WORKLOAD, Scene

TIMING = Timing()
SURELY_OVER_S = TIMING.claim_surely_over_s()
SOON_S = 60.0


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def until_nothing_runs(scene: Scene, host: str) -> None:
    """Wait until a host has no process of the workload: killed ones are there for a moment."""
    until(lambda: not hosts.pids(scene.lab.plan, host, f"{hosts.WORKLOADS}/{WORKLOAD}"), f"nothing runs on {host}")


def has_address(scene: Scene, host: str) -> bool:
    shown = network.ip("-n", scene.lab.plan.host(host).namespace, "-4", "addr", "show", "dev", "eth0")
    return "10.77.0.100/" in shown


def test_a_host_that_loses_power_is_replaced_in_time_and_why_tells_the_whole_chain(scene: Scene) -> None:
    cut_at = time.time()
    scene.lab.kill(scene.primary)
    # Clients see silence, not connections that are reset by a dying kernel.
    assert network.ip("-n", scene.lab.plan.switch, "link", "show", "dev", scene.primary).count("state DOWN") == 1
    scene.runs_elsewhere()
    scene.counts_again()
    besides = (scene.primary,)

    scene.until_told("verdict.dead", "failover.started", "workload.running", besides=besides)
    events = scene.events(besides=besides)
    dead = [event for event in events if event["kind"] == "verdict.dead" and event["host"] == scene.primary]
    assert len(dead) == 1
    placed = next(event for event in events if event["kind"] == "failover.started")
    assert placed["unix_ms"] / 1000 > cut_at + TIMING.claim_ttl_s - TIMING.renew_s * 2
    print(f"restart issued {placed['unix_ms'] / 1000 - cut_at:.2f} s after the cut")
    survivor = ready.any_client(scene.lab, besides=(scene.primary,))
    command = [*outlive_command("why", WORKLOAD, "--socket", survivor.path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=SOON_S, check=True, cwd="/").stdout
    kinds = ["verdict.dead", "workload.fenced", "failover.started", "workload.prepared", "module.running"]
    places = [told.find(kind) for kind in (*kinds, "workload.running")]
    assert -1 not in places, told
    assert places == sorted(places)


def test_a_module_that_crashes_is_restored_in_place(scene: Scene) -> None:
    [pid] = scene.module_pids()
    os.kill(pid, signal.SIGKILL)
    scene.until_told("module.failed", "restore.ordered", "module.restored")
    stands = scene.runs_here()
    scene.counts_again()
    assert stands["generation"] == scene.first


@pytest.mark.soak  # one that crashes stays, and the scenario module-hang
def test_a_module_that_hangs_is_found_by_its_health_check_and_restored(scene: Scene) -> None:
    [pid] = scene.module_pids()
    os.kill(pid, signal.SIGSTOP)
    ready.until(scene.lab, "it is restored", lambda found: "module.restored" in scene.kinds(), 60)
    scene.counts_again()
    assert scene.generation() == scene.first


def test_a_module_that_fails_again_and_again_moves_to_another_host(scene: Scene) -> None:
    deadline = time.monotonic() + 90
    while ready.until_running(scene.lab, WORKLOAD, SOON_S) == scene.primary:
        assert time.monotonic() < deadline
        pids = hosts.pids(scene.lab.plan, scene.primary, f"{hosts.WORKLOADS}/{WORKLOAD}/redis")
        for pid in pids:
            with suppress(ProcessLookupError):  # one that looked after its health
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    scene.counts_again()
    scene.until_told("restore.given_up")
    ready.until(scene.lab, "it was tried", lambda _: scene.kinds().count("restore.ordered") >= 3, SOON_S)


def test_a_stopped_agent_cannot_keep_its_workload_and_the_guard_sees_to_that(scene: Scene) -> None:
    scene.lab.pause(scene.primary, agent_only=True)
    until_nothing_runs(scene, scene.primary)
    until(lambda: not has_address(scene, scene.primary), "its address is taken away")
    scene.runs_elsewhere()
    scene.counts_again()
    scene.lab.resume(scene.primary, agent_only=True)
    ready.until_ready(scene.lab, 60)


def test_a_host_paused_for_longer_than_its_claim_does_not_act_when_it_wakes(scene: Scene) -> None:
    scene.lab.pause(scene.primary)
    scene.runs_elsewhere()
    scene.counts_again()
    scene.lab.resume(scene.primary)
    ready.until_ready(scene.lab, 60)
    scene.counts_again()
    until_nothing_runs(scene, scene.primary)


def test_a_short_pause_changes_nothing(scene: Scene) -> None:
    scene.lab.pause(scene.primary)
    time.sleep(1.0)
    scene.lab.resume(scene.primary)
    scene.counts_again()
    assert scene.generation() == scene.first


def test_an_isolated_host_stops_and_its_workload_goes_elsewhere_without_a_death(scene: Scene) -> None:
    scene.lab.isolate(scene.primary)
    scene.runs_elsewhere()
    scene.counts_again()
    assert "verdict.dead" not in scene.kinds(besides=(scene.primary,))
    scene.lab.heal(scene.primary)
    ready.until_ready(scene.lab, 60)
    scene.counts_again()


def test_a_partition_with_the_primary_on_the_larger_side_disturbs_nobody(scene: Scene) -> None:
    away = scene.others()[0]
    scene.lab.partition(away)
    # Whether the host itself has said by then that it is cut off is a matter of milliseconds.
    scene.until_judged(away, "partitioned", "isolated")
    time.sleep(SURELY_OVER_S)
    scene.counts_again()
    assert scene.generation(besides=(away,)) == scene.first
    scene.lab.heal()
    ready.until_ready(scene.lab, 60)
    scene.counts_again()


def test_a_partition_with_the_primary_on_the_smaller_side_moves_it(scene: Scene) -> None:
    scene.lab.partition(scene.primary)
    scene.runs_elsewhere()
    scene.counts_again()
    scene.lab.heal()
    ready.until_ready(scene.lab, 60)
    scene.counts_again()


@pytest.mark.soak  # a partition of each side alone stays, and the pair that is cut off without its clients
def test_a_primary_and_another_host_cut_off_together_go_on_and_are_not_doubled(scene: Scene) -> None:
    companion = scene.others()[0]
    scene.lab.partition(scene.primary, companion, with_client=True)
    time.sleep(SURELY_OVER_S + 3)
    scene.counts_again()
    scene.lab.heal()
    ready.until_ready(scene.lab, 60)
    scene.counts_again()
    assert scene.generation() == scene.first


def test_the_leaders_host_killed_leaves_a_cluster_that_leads_itself_again(scene: Scene) -> None:
    leader = scene.leader
    killed_at = time.monotonic()
    scene.lab.kill(leader)
    found = ready.until(
        scene.lab, "another leads", lambda found: found["leader"] not in (None, leader), SOON_S, besides=(leader,)
    )
    print(f"{found['leader']} led {time.monotonic() - killed_at:.2f} s after the leader's end")
    if leader == scene.primary:
        scene.runs_elsewhere()
    scene.counts_again()


@pytest.mark.soak  # a host that was switched on again is the last of three in the next one
def test_two_of_three_hosts_killed_leave_one_that_runs_it(scene: Scene) -> None:
    victim = scene.others()[0]
    scene.lab.kill(victim)
    scene.lab.kill(scene.primary)
    assert scene.runs_elsewhere(victim) == scene.others(victim)[0]
    scene.counts_again()


@pytest.mark.soak  # the shared lab's hosts are switched on again after every test that kills one
def test_a_host_switched_on_again_joins_and_can_take_over(scene: Scene) -> None:
    scene.lab.kill(scene.primary)
    successor = scene.runs_elsewhere()
    scene.lab.start(scene.primary)
    ready.until_ready(scene.lab, 60)
    for other in scene.others(successor):
        scene.lab.kill(other)
    scene.lab.kill(successor)
    scene.runs_here()
    scene.counts_again()


def test_a_store_that_is_locked_for_longer_than_a_claim_stops_everything_and_lets_it_begin_anew(scene: Scene) -> None:
    locker = sqlite3.connect(scene.lab.plan.store, isolation_level=None, timeout=SOON_S)
    locker.execute("BEGIN IMMEDIATE")
    time.sleep(TIMING.claim_ttl_s)
    for host in scene.lab.plan.hosts:
        until_nothing_runs(scene, host.name)
    locker.execute("ROLLBACK")
    locker.close()
    scene.counts_again()
    assert scene.generation() > scene.first


def test_a_full_disk_of_the_primary_is_survived(scene: Scene) -> None:
    scene.lab.fill_disk(scene.primary)
    time.sleep(2)
    scene.counts_again()
    scene.lab.heal(scene.primary)
    scene.counts_again()


def test_a_datastore_as_good_as_hung_does_not_make_a_live_host_dead(scene: Scene) -> None:
    [other, *_] = scene.others()
    scene.lab.slow_datastore(other, 1)
    time.sleep(TIMING.slot_stale_s + SURELY_OVER_S)
    assert "verdict.dead" not in scene.kinds()
    scene.counts_again()
    scene.lab.heal(other)
    ready.until_ready(scene.lab, 60)


@pytest.mark.soak  # tests/agent has it on one host, and there the second guard has to end a workload too
def test_a_guard_killed_is_replaced_at_once_and_the_workload_stays(scene: Scene) -> None:
    guard = hosts.pids(scene.lab.plan, scene.primary, hosts.GUARD)
    for pid in guard:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while set(hosts.pids(scene.lab.plan, scene.primary, hosts.GUARD)) <= set(guard):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(SURELY_OVER_S)
    scene.counts_again()
    assert scene.generation() == scene.first
