"""A cold virtual machine goes on from its disk wherever its host's fate takes it; what was synced is there."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlive.lab import hosts, machines, ready
from outlive.lab.guests.clients import Asking, Clients, Server
from outlive.lab.guests.history import judge
from outlive.lab.guests.tiny import tiny
from outlive.lab.lab import Lab
from outlive.lab.watching import watched

AGAIN_S = 60.0


@dataclass
class Stage:
    lab: Lab
    primary: str

    def server(self, timeout_s: float = AGAIN_S) -> Server:
        return Server.reach(machines.ADDRESS, timeout_s, namespace=self.lab.plan.client)

    def qemu_pids(self, host: str) -> list[int]:
        return hosts.pids(self.lab.plan, host, f"{hosts.WORKLOADS}/{machines.WORKLOAD}/vm")

    def starts(self, host: str) -> int:
        events = ready.any_client(self.lab).get(f"/v1/events?limit=500&host={host}")["events"]
        return [event["kind"] for event in events].count("agent.started")

    def agent_pid(self, host: str) -> int:
        for pid in hosts.pids(self.lab.plan, host, hosts.AGENT):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"agent" in words and b"--keep" not in words:
                return pid
        raise AssertionError("no agent runs there")


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    guest = tiny()
    ready.until_ready(lab, 30)
    with watched(lab, machines.WORKLOAD) as sightings:
        yield Stage(lab, machines.begin(lab, guest))
    assert not sightings.double_run, sightings.both[:5]


def test_after_a_power_cut_it_boots_elsewhere_and_every_synced_number_is_there(stage: Stage, tmp_path: Path) -> None:
    asking = Asking(machines.ADDRESS, connections=2, request="dw", think_ms=5, after_s=0.2)
    with Clients(asking, tmp_path / "record", namespace=stage.lab.plan.client) as clients:
        clients.until_answered(2, 30)
        time.sleep(1)
        stage.lab.kill(stage.primary)
        history = clients.stop()
    outcome = judge(history, alone=False)
    assert outcome.answered > 20
    highest = max(each.value for each in history.answers)
    ready.until_running(stage.lab, machines.WORKLOAD, AGAIN_S, besides=(stage.primary,))
    with stage.server() as server:
        assert int(server.state()["written"]) >= highest


def test_a_machine_survives_its_agent_and_is_restored_where_it_died(stage: Stage) -> None:
    before = stage.qemu_pids(stage.primary)
    started = stage.starts(stage.primary)
    os.kill(stage.agent_pid(stage.primary), signal.SIGKILL)
    ready.until(stage.lab, "its agent is back", lambda _: stage.starts(stage.primary) > started, AGAIN_S)
    time.sleep(1)
    assert stage.qemu_pids(stage.primary) == before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    with stage.server() as server:
        assert server.state()
    assert ready.until_running(stage.lab, machines.WORKLOAD, AGAIN_S) == stage.primary
    assert stage.qemu_pids(stage.primary) != before


def test_its_disk_cannot_be_opened_a_second_time_from_outside_the_cluster(stage: Stage) -> None:
    disk = stage.lab.plan.datastore / "data" / machines.WORKLOAD / "data.raw"
    second = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "write 0 4096", str(disk)], capture_output=True, text=True, check=False
    )
    assert second.returncode != 0
    assert "lock" in second.stderr


def test_told_to_stop_it_shuts_down_by_its_power_button_and_starts_again_from_its_disk(stage: Stage) -> None:
    with stage.server() as server:
        written = int(server.ask("dw 900 1").split()[0])
    client = ready.any_client(stage.lab)
    began = time.monotonic()
    client.put(f"/v1/workloads/{machines.WORKLOAD}/desired", b'{"desired": "stopped"}')
    ready.until(
        stage.lab,
        "it has stopped",
        lambda found: (ready.workload(found, machines.WORKLOAD) or {})["state"] == "stopped",
        AGAIN_S,
    )
    assert time.monotonic() - began < 9.5  # less than what the file gives the guest before it is killed
    client.put(f"/v1/workloads/{machines.WORKLOAD}/desired", b'{"desired": "running"}')
    with stage.server() as server:
        assert int(server.state()["written"]) >= written
