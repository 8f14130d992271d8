"""A real agent on a host of its own: killed, stopped, robbed of its guard, lied to; its workload goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from outlive.agent import presence
from outlive.config.agent_file import AgentConfig, read_agent

from ..native.guarding import Client
from ..one_host import OneHost, ip, until, workload

ADDRESS = "10.88.0.50"


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """The shared host has no workloads when a test is over."""
    yield
    if "one_host" in request.fixturenames:
        host: OneHost = request.getfixturevalue("one_host")
        host.forget(*host.names())


def config(host: OneHost) -> AgentConfig:
    return read_agent(host.folder / "agent.toml")


def agent(host: OneHost) -> int:
    pid = presence.agent_pid(config(host).run_folder)
    assert pid is not None, "no agent answers"
    return pid


def another_agent(host: OneHost, before: int) -> None:
    until(lambda: presence.agent_pid(config(host).run_folder) not in (None, before), "another agent answers")
    until(lambda: host.client.get("/v1/cluster")["outlook"]["leader"] == "one", "it leads")


def pids(host: OneHost, name: str, module: str = "main") -> list[int]:
    root = config(host).cgroup_root
    assert root is not None
    try:
        return [int(line) for line in (root / name / module / "cgroup.procs").read_text().split()]
    except OSError:  # it is not there, or is being removed
        return []


def kinds(host: OneHost, name: str) -> list[str]:
    events = host.client.get(f"/v1/events?workload={name}&limit=1000")["events"]
    return [event["kind"] for event in events]


def logged(host: OneHost, event: str) -> list[dict[str, object]]:
    *lines, _ = (config(host).data_folder / "agent.log").read_text().split("\n")  # the last may be on its way
    return [told for told in map(json.loads, lines) if told["event"] == event]


def guarded(host: OneHost) -> set[str]:
    """In which states the guard has workloads."""
    with closing(Client(config(host).run_folder / presence.GUARD_SOCKET)) as client:
        return set(client.entries().values())


def addresses(host: OneHost) -> str:
    return ip("-n", host.namespace, "addr", "show", "dev", "eth0")


def hold_for_nobody(host: OneHost, address: str) -> None:
    """Add a virtual IP as an agent does that is no more; this host's iproute2 cannot set who added it."""
    script = (
        "import asyncio\nfrom outlive.network.virtual_ip import VirtualIps\n"
        "async def main():\n  async with VirtualIps() as ips:\n"
        f"    await ips.add(await ips.resolve('{address}', 'eth0'), 3600.0)\n"
        "asyncio.run(main())"
    )
    words = ["nsenter", f"--net=/run/netns/{host.namespace}", "--", sys.executable, "-c", script]
    subprocess.run(words, check=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def applied(host: OneHost, name: str, more: str = "") -> list[int]:
    host.client.put(f"/v1/workloads/{name}", workload(name, "/usr/bin/sleep", "3600", more=more).encode())
    until(lambda: host.outlook(name)["state"] == "running", f"{name} runs")
    return pids(host, name)


def test_an_agent_that_is_killed_comes_back_and_its_workload_never_noticed(patient_host: OneHost) -> None:
    before = applied(patient_host, "kept", 'data_on = "local"')
    first = patient_host.outlook("kept")["generation"]
    for _ in range(2):
        killed = agent(patient_host)
        os.kill(killed, signal.SIGKILL)
        another_agent(patient_host, killed)
        assert pids(patient_host, "kept") == before
    until(lambda: "workload.adopted" in kinds(patient_host, "kept"), "that it was adopted is recorded")
    # What was adopted is watched as what was started.
    os.kill(before[0], signal.SIGKILL)
    until(lambda: pids(patient_host, "kept") not in ([], before), "the module was restored")
    assert patient_host.outlook("kept")["generation"] == first


def test_an_agent_that_ends_leaves_its_workload_to_the_next(patient_host: OneHost) -> None:
    before = applied(patient_host, "web")
    ending = agent(patient_host)
    os.kill(ending, signal.SIGTERM)
    until(lambda: presence.agent_pid(config(patient_host).run_folder) is None, "the agent has ended")
    assert pids(patient_host, "web") == before
    until(lambda: bool(logged(patient_host, "agent.left_workloads")), "that is logged")
    assert logged(patient_host, "agent.left_workloads")[-1]["workloads"] == "web"
    assert patient_host.run("up", "--folder", str(patient_host.folder), "--name", "one", "--json").code == 0
    assert pids(patient_host, "web") == before


@pytest.mark.soak  # an agent that is stopped stays, in the lab
def test_no_agent_in_time_means_no_workload(one_host: OneHost) -> None:
    applied(one_host, "ended", f'[[virtual_ip]]\naddress = "{ADDRESS}/24"\n')
    assert ADDRESS in addresses(one_host)
    first = one_host.outlook("ended")["generation"]
    stopped = agent(one_host)
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(lambda: not pids(one_host, "ended") and ADDRESS not in addresses(one_host), "the guard ended it")
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: bool(pids(one_host, "ended")), "it runs again")
    until(lambda: one_host.outlook("ended")["state"] == "running", "that is known")
    assert agent(one_host) == stopped
    assert one_host.outlook("ended")["generation"] > first
    until(lambda: "guard.fired" in kinds(one_host, "ended"), "that the guard fired is recorded")


def test_a_guard_that_is_killed_is_replaced_and_protects_again(one_host: OneHost) -> None:
    before = applied(one_host, "guarded")
    socket = config(one_host).run_folder / presence.GUARD_SOCKET
    first = presence.listener(socket)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: presence.listener(socket) not in (None, first), "another guard listens")
    assert pids(one_host, "guarded") == before
    until(lambda: "protected" in guarded(one_host), "it is told what it guards")
    # The second knows what the first knew: without an agent it ends the workload in time.
    stopped = agent(one_host)
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(lambda: not pids(one_host, "guarded"), "the new guard ended it")
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: bool(pids(one_host, "guarded")), "it runs again")


def test_a_garbled_journal_is_refused_and_everything_starts_afresh(one_host: OneHost) -> None:
    before = applied(one_host, "afresh")
    first = one_host.outlook("afresh")["generation"]
    journal = config(one_host).data_folder / "journal"
    killed = agent(one_host)
    os.kill(killed, signal.SIGSTOP)  # it may be about to write it itself
    journal.write_bytes(journal.read_bytes()[:-7])
    os.kill(killed, signal.SIGKILL)
    another_agent(one_host, killed)
    until(lambda: pids(one_host, "afresh") not in ([], before), "it runs afresh")
    until(lambda: one_host.outlook("afresh")["state"] == "running", "that is known")
    assert one_host.outlook("afresh")["generation"] == first + 1
    assert "bytes follow" in str(logged(one_host, "journal.refused")[-1]["reason"])
    assert journal.with_name("journal.bad").exists()


def test_what_is_left_below_our_cgroup_is_cleared_and_nothing_outside_is_touched(one_host: OneHost) -> None:
    root = config(one_host).cgroup_root
    assert root is not None
    left, outside = root / "forgotten" / "main", root.parent / "outside"
    for folder in (left, outside):
        folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as inner, subprocess.Popen(["sleep", "600"]) as outer:
        try:
            (left / "cgroup.procs").write_text(str(inner.pid))
            (outside / "cgroup.procs").write_text(str(outer.pid))
            killed = agent(one_host)
            os.kill(killed, signal.SIGKILL)
            another_agent(one_host, killed)
            assert inner.wait(60) == -signal.SIGKILL
            until(lambda: not left.exists(), "its group is removed")
            assert outer.poll() is None
        finally:
            inner.kill()
            outer.kill()


def test_a_second_agent_in_the_same_folders_is_refused(one_host: OneHost) -> None:
    first = agent(one_host)
    ran = one_host.run("agent", "--config", str(one_host.folder / "agent.toml"))
    assert ran.code == 3
    assert "Another agent uses" in ran.err
    assert str(first) in ran.err
    assert agent(one_host) == first


def test_addresses_are_as_they_should_be_whatever_others_do(one_host: OneHost) -> None:
    applied(one_host, "vip", f'[[virtual_ip]]\naddress = "{ADDRESS}/24"\n')
    try:
        hold_for_nobody(one_host, "10.88.0.77/24")
        ip("-n", one_host.namespace, "addr", "del", f"{ADDRESS}/24", "dev", "eth0")
        until(lambda: ADDRESS in addresses(one_host), "the missing address is back")
        until(lambda: "10.88.0.77" not in addresses(one_host), "the leftover address is gone")
        assert "10.88.0.1/24" in addresses(one_host)
    finally:
        one_host.forget("vip")
    until(lambda: ADDRESS not in addresses(one_host), "its address has gone with it")


def test_a_run_lock_whose_holder_is_killed_is_taken_again(one_host: OneHost) -> None:
    before = applied(one_host, "locked", 'data_on = "local"')
    try:
        state = config(one_host).run_folder / "modules" / "locked" / "lock"
        holder = json.loads(state.read_text())["pid"]
        os.kill(holder, signal.SIGKILL)
        until(lambda: json.loads(state.read_text() or "{}").get("pid") not in (None, holder), "another holds it")
        assert pids(one_host, "locked") == before
        until(lambda: bool(logged(one_host, "runlock.retaken")), "that is logged")
    finally:
        one_host.forget("locked")


def test_a_module_that_cannot_run_is_told_with_its_reason(one_host: OneHost) -> None:
    one_host.client.put("/v1/workloads/wrong", workload("wrong", "/no/such/program").encode())
    try:
        until(lambda: "module.failed" in kinds(one_host, "wrong"), "that it failed is recorded")
        events = one_host.client.get("/v1/events?workload=wrong&limit=1000")["events"]
        assert "/no/such/program" in next(event["text"] for event in events if event["kind"] == "module.failed")
    finally:
        one_host.forget("wrong")


def test_a_host_that_is_shut_down_in_order_gives_its_claim_back(other_host: OneHost) -> None:
    applied(other_host, "web", 'data_on = "local"')
    began_at = time.monotonic()
    os.kill(agent(other_host), signal.SIGUSR1)
    until(lambda: presence.agent_pid(config(other_host).run_folder) is None, "the agent has ended")
    assert not pids(other_host, "web")
    until(lambda: bool(logged(other_host, "agent.ended")), "that is logged")
    assert not logged(other_host, "agent.left_in_disorder")
    assert time.monotonic() - began_at < 60
    assert other_host.run("up", "--folder", str(other_host.folder), "--name", "one", "--json").code == 0
    until(lambda: other_host.outlook("web")["state"] == "running", "it runs again")
    assert not Path(config(other_host).data_folder / "journal.bad").exists()
