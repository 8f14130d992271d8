"""What follows a workload wherever it goes: its logs, its address, its story."""

import itertools
import subprocess
import time

from outlive.lab import network, ready
from outlive.native import outlive_command

from .scene import WORKLOAD, Scene
from .shared import SharedLab

SOON_S = 60.0

TALKER = """
name = "talker"
[module.talk]
command = ["/bin/sh", "-c", "while :; do echo at {host}; sleep 0.2; done"]
"""


def test_logs_are_followed_across_hosts(shared: SharedLab) -> None:
    lab = shared.lab()
    client = ready.any_client(lab)
    client.put("/v1/workloads/talker", TALKER.encode())
    first = ready.until_all_know_it_runs(lab, "talker", SOON_S)
    watcher = next(host.name for host in lab.plan.hosts if host.name != first)
    command = outlive_command("logs", "-f", "talker", "--socket", str(lab.plan.api(watcher)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as following:
        assert following.stdout is not None
        line = following.stdout.readline()
        assert f"at {first}" in line
        target = next(host.name for host in lab.plan.hosts if host.name not in (first, watcher))
        client.post("/v1/operations", {"kind": "migrate", "workload": "talker", "target": target})
        deadline = time.monotonic() + SOON_S
        while f"at {target}" not in following.stdout.readline():
            assert time.monotonic() < deadline
        following.terminate()
    told = subprocess.run(
        outlive_command("logs", "-n", "1000", "talker", "--socket", str(lab.plan.api(watcher))),
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=True,
        cwd="/",
    ).stdout
    assert f"at {first}" in told
    assert f"at {target}" in told


def test_migrate_is_a_planned_stop_and_start_with_a_small_gap(scene: Scene) -> None:
    target = scene.others()[0]
    began = time.time()
    client = ready.any_client(scene.lab)
    asked = client.post("/v1/operations", {"kind": "migrate", "workload": WORKLOAD, "target": target})["operation"]
    deadline = time.monotonic() + SOON_S
    while (ended := client.get(f"/v1/operations/{asked['id']}?wait_s=10"))["state"] in ("asked", "running"):
        assert time.monotonic() < deadline, ended
    assert ended["state"] == "done", ended
    scene.counts_again()
    assert scene.runs_elsewhere() == target
    times = [each[0] for each in scene.counting.acknowledged if each[0] > began - 1]
    gap_s = max(later - earlier for earlier, later in itertools.pairwise(times))
    print(f"clients waited {gap_s:.2f} s during the migration")


def test_the_address_is_in_one_place_and_announced_again_when_the_network_heals(scene: Scene) -> None:
    def has(name: str) -> bool:
        shown = network.ip("-n", scene.lab.plan.host(name).namespace, "-4", "addr", "show", "dev", "eth0")
        return "10.77.0.100/" in shown

    assert [host.name for host in scene.lab.plan.hosts if has(host.name)] == [scene.primary]
    companion = scene.others()[0]
    scene.lab.partition(scene.primary, companion)
    time.sleep(3)  # long enough that hosts are missed, too short for a claim to end
    scene.lab.heal()
    scene.counts_again()
    assert [host.name for host in scene.lab.plan.hosts if has(host.name)] == [scene.primary]


def test_a_leftover_address_of_ours_is_removed_and_a_foreign_one_stays(scene: Scene) -> None:
    namespace = scene.lab.plan.host(scene.others()[0]).namespace
    network.ip("-n", namespace, "addr", "add", "10.77.0.100/24", "dev", "eth0", "proto", "111", tolerate=True)
    network.ip("-n", namespace, "addr", "add", "10.77.0.200/24", "dev", "eth0")
    deadline = time.monotonic() + SOON_S
    while "10.77.0.100" in network.ip("-n", namespace, "-4", "addr", "show", "dev", "eth0"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "10.77.0.200" in network.ip("-n", namespace, "-4", "addr", "show", "dev", "eth0")
    scene.counts_again()
