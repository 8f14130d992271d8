"""Commands that wait or follow: Ctrl-C detaches, says so, and what was asked for goes on."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outlive.cli.waiting import NotBrought, until_brought
from outlive.client import Client

from ..one_host import OneHost, until, workload
from .pretended_agent import pretended

NEVER_READY = '[module.main.readiness]\nline = "ready"\ntimeout_s = 600.0\n'


@contextmanager
def started(one_host: OneHost, *words: str) -> "Iterator[subprocess.Popen[str]]":
    with one_host.start(*words) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupted(process: "subprocess.Popen[str]") -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told
    return process.returncode, told


def test_a_waiting_apply_detaches_and_the_workload_goes_on(one_host: OneHost, tmp_path: Path) -> None:
    file = tmp_path / "slow.toml"
    file.write_text(workload("slow", "/usr/bin/sleep", "3600") + NEVER_READY)
    with started(one_host, "apply", str(file)) as process:
        assert process.stderr is not None
        while "slow: starting on one" not in process.stderr.readline():
            pass
        code, told = interrupted(process)
    assert code == 130
    assert "Detached. slow goes on by itself; see `outlive ps`." in told
    assert one_host.outlook("slow")["state"] == "starting"
    waiting = one_host.run("start", "slow", "--wait", "0.3")
    assert (waiting.code, "slow is not running after 0.3 s; it is starting." in waiting.err) == (1, True)
    one_host.forget("slow")


def test_a_waiting_rm_detaches_and_it_is_removed(one_host: OneHost) -> None:
    stubborn = "trap '' TERM; echo here; sleep 3600 & wait; wait"
    file = workload("stubborn", "/bin/sh", "-c", stubborn).replace("stop_grace_s = 1.0", "stop_grace_s = 6.0")
    one_host.client.put("/v1/workloads/stubborn", file.encode())
    until(lambda: "here" in one_host.run("logs", "stubborn").out, "it runs, and heeds no signal")
    until(lambda: one_host.outlook("stubborn")["state"] == "running", "that is known")
    with started(one_host, "rm", "stubborn", "--yes") as process:
        until(lambda: one_host.outlook("stubborn")["state"] == "stopping", "it is being stopped")
        code, told = interrupted(process)
    assert (code, "Detached. stubborn goes on being removed" in told) == (130, True)
    until(lambda: "stubborn" not in one_host.names(), "it is forgotten all the same")


@pytest.mark.parametrize(
    "words", [("events", "--follow"), ("logs", "followed", "--follow")], ids=lambda words: words[0]
)
def test_following_ends_with_ctrl_c_and_shows_what_comes(one_host: OneHost, words: tuple[str, ...]) -> None:
    one_host.apply("followed", "/bin/sh", "-c", "while :; do echo tick; sleep 0.2; done")
    with started(one_host, *words) as process:
        assert process.stdout is not None
        expected = "tick" if words[0] == "logs" else "workload=followed"
        while expected not in process.stdout.readline():
            pass
        code, told = interrupted(process)
    assert (code, told.strip()) == (130, "Interrupted.")
    one_host.forget("followed")


def test_following_goes_on_when_the_agent_is_started_again(other_host: OneHost) -> None:
    from outlive.agent.presence import agent_pid

    with started(other_host, "events", "--follow", "-n", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = agent_pid(other_host.folder / "run")
        assert pid is not None
        subprocess.run(["kill", "-9", str(pid)], check=True)
        while "agent.started" not in process.stdout.readline():
            pass
    assert agent_pid(other_host.folder / "run") not in (None, pid)


def test_who_waits_for_a_new_version_is_told_that_the_workload_was_stopped_meanwhile() -> None:
    says = {
        "record": {"rollout": {"state": "waiting"}, "desired": "stopped"},
        "outlook": {"rollout": "it is brought to app@2.0.0 once it is started"},
    }
    with pretended(lambda _: (200, says)) as agent, pytest.raises(NotBrought) as told:
        until_brought(Client(agent.socket), "web", 60.0)
    assert "web was stopped: it is brought to app@2.0.0 once it is started." in str(told.value)
