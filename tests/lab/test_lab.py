"""The lab itself: it is cleared away whatever ends it, and can be torn down in the middle of anything."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outlive.errors import RefusedForSafety
from outlive.lab import hosts, network, ready
from outlive.lab import service_demo as demo
from outlive.lab.lab import Lab
from outlive.lab.plan import LabMissing, LabPlan

CLEARED_S = 60.0


def is_cleared(plan: LabPlan) -> bool:
    """Nothing of the lab is left: namespaces, groups, folders, mounts."""
    namespaces = {plan.switch, plan.client, *(host.namespace for host in plan.hosts)}
    mounts = Path("/proc/self/mountinfo").read_text()
    return (
        not namespaces & network.namespaces()
        and not hosts.group(plan).exists()
        and not plan.root.exists()
        and plan.folder not in mounts
    )


def wait_until_cleared(plan: LabPlan) -> None:
    deadline = time.monotonic() + CLEARED_S
    while not is_cleared(plan):
        assert time.monotonic() < deadline, "the lab was not cleared away"
        time.sleep(0.1)


def test_down_leaves_nothing_and_can_be_said_twice(lab: Lab) -> None:
    lab.down()
    assert is_cleared(lab.plan)
    lab.down()


def test_a_lab_that_is_up_is_not_made_again(lab: Lab) -> None:
    with pytest.raises(RefusedForSafety):
        Lab.up(lab.plan.name)
    assert set(lab.on()) == {"a", "b", "c"}


def test_a_lab_torn_down_in_the_middle_of_a_failover_leaves_nothing(lab: Lab) -> None:
    ready.until_ready(lab, CLEARED_S)
    ready.any_client(lab).put(f"/v1/workloads/{demo.WORKLOAD}", demo.REDIS.encode())
    primary = ready.until_running(lab, demo.WORKLOAD, CLEARED_S)
    lab.kill(primary)
    time.sleep(1)
    lab.down()
    assert is_cleared(lab.plan)


def owner(name: str) -> "subprocess.Popen[bytes]":
    """A process of its own that owns a lab and says when it is up."""
    program = (
        "import time\n"
        "from outlive.lab.sentinel import owned_lab\n"
        f"with owned_lab({name!r}, 2, 1, lambda step: None):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(300)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd="/")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_lab_whose_owner_is_killed_or_interrupted_is_cleared_away(how: signal.Signals) -> None:
    name = f"o{os.getpid() % 100000}{'k' if how is signal.SIGKILL else 'i'}"
    with owner(name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        plan = Lab.open(name).plan
        assert not is_cleared(plan)
        os.kill(process.pid, how)
        process.wait(CLEARED_S)
        wait_until_cleared(plan)
    with pytest.raises(LabMissing):
        Lab.open(name)


def test_a_lab_left_behind_by_a_crash_is_cleared_away_by_the_next(lab: Lab) -> None:
    for host in lab.plan.hosts:
        hosts.kill(lab.plan, host.name)
    again = Lab.up(lab.plan.name, 1)
    assert again.on() == ["a"]
    again.down()
    assert is_cleared(lab.plan)
