"""`outlive up` and `down` from end to end: one command, said twice, its mistakes, and nothing left behind."""

import os
import subprocess
from pathlib import Path

import pytest

from outlive.agent import exclusive, outset, presence
from outlive.agent.first_host import Places, Wish, found_host
from outlive.cli import main
from outlive.config.agent_file import read_agent

from ..one_host import OneHost, clear_away, until


def test_up_again_does_nothing_and_down_again_neither_and_what_ran_runs_after_up(other_host: OneHost) -> None:
    folder = str(other_host.folder)
    pid = presence.agent_pid(other_host.folder / "run")
    again = other_host.run("up", "--folder", folder, "--json")
    assert (again.code, again.json["fresh"], again.json["started"]) == (0, False, False)
    assert "nothing had to be done" in again.err
    assert presence.agent_pid(other_host.folder / "run") == pid
    other_host.apply("web")
    refused = other_host.run("down", "--folder", folder)
    assert refused.code == 3
    assert "web run on one, and will be stopped" in refused.err
    down = other_host.run("down", "--folder", folder, "--yes", "--json")
    assert (down.code, down.json) == (0, {"ended": True, "stopped": ["web"], "guard_ended": True})
    assert presence.agent_pid(other_host.folder / "run") is None
    assert presence.listener(other_host.folder / "run" / presence.GUARD_SOCKET) is None
    root = read_agent(other_host.folder / "agent.toml").cgroup_root
    assert root is not None
    assert "populated 0" in (root.parent / "cgroup.events").read_text()
    once_more = other_host.run("down", "--folder", folder, "--json")
    assert (once_more.code, once_more.json["ended"], once_more.json["guard_ended"]) == (0, False, False)
    assert other_host.run("status").code == 4
    begun = other_host.run("up", "--folder", folder, "--json")
    assert (begun.code, begun.json["fresh"], begun.json["started"]) == (0, False, True)
    until(lambda: other_host.outlook("web")["state"] == "running", "it runs again")


def test_up_finds_no_agent_or_starts_another_and_workloads_go_on(patient_host: OneHost) -> None:
    folder = str(patient_host.folder)
    patient_host.apply("web")
    before = patient_host.outlook("web")
    pid = presence.agent_pid(patient_host.folder / "run")
    assert pid is not None
    keeper = presence.kept_by(pid)
    assert keeper is not None
    subprocess.run(["kill", "-9", str(keeper), str(pid)], check=True)
    until(lambda: presence.agent_pid(patient_host.folder / "run") is None, "the agent is gone")
    assert patient_host.run("up", "--folder", folder).code == 0
    until(lambda: patient_host.outlook("web") == before, "it was adopted, not started anew")

    pid = presence.agent_pid(patient_host.folder / "run")
    again = patient_host.run("up", "--folder", folder, "--restart", "--json")
    assert (again.code, again.json["started"]) == (0, True)
    assert presence.agent_pid(patient_host.folder / "run") not in (None, pid)
    until(lambda: patient_host.outlook("web") == before, "it was adopted again")
    kinds = {event["kind"] for event in patient_host.client.get("/v1/events?workload=web")["events"]}
    assert not kinds & {"workload.stopping", "module.failed", "guard.fired"}


def test_other_wishes_for_a_host_that_is_set_up_are_refused(one_host: OneHost) -> None:
    ran = one_host.run("up", "--folder", str(one_host.folder), "--name", "two", "--json")
    assert (ran.code, ran.json["id"]) == (2, "up.differs")


def test_an_agent_that_cannot_start_is_told_with_its_last_words(one_host: OneHost, tmp_path: Path) -> None:
    host = OneHost(tmp_path, one_host.namespace)
    try:
        found_host(Places.below(tmp_path), Wish(name="two"), lambda step: None)
        (tmp_path / "cluster.key").write_text("none")
        ran = host.run("up", "--folder", str(tmp_path), "--json")
        assert (ran.code, ran.json["id"]) == (1, "agent.not-started")
        assert "cluster.key" in ran.json["detail"]
    finally:
        clear_away(host)


def test_without_a_leader_up_says_what_it_waited_for(one_host: OneHost, tmp_path: Path) -> None:
    host = OneHost(tmp_path, one_host.namespace)
    try:
        ran = host.run("up", "--folder", str(tmp_path), "--port", "4999", "--name", "two", "--wait", "0")
        assert ran.code == 1
        assert "there is no leader after 0 s" in ran.err
        assert host.run("up", "--folder", str(tmp_path)).code == 0
    finally:
        clear_away(host)


def test_no_start_only_sets_up(tmp_path: Path, one_host: OneHost) -> None:
    host = OneHost(tmp_path, one_host.namespace)
    ran = host.run("up", "--folder", str(tmp_path), "--no-start", "--name", "two")
    assert (ran.code, "its agent was not started" in ran.err) == (0, True)
    assert presence.agent_pid(tmp_path / "run") is None
    clear_away(host)


@pytest.mark.parametrize("words", [["up", "--folder", "/nonexistent"], ["down"]], ids=["up", "down"])
def test_only_root_may(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main.run(words) == 2
    assert "say it again with sudo" in capsys.readouterr().err
    assert not Path("/nonexistent").exists()


def test_down_where_nothing_is_set_up_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["down", "--folder", str(tmp_path)]) == 0
    assert "nothing to end" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_way_to_systemd_is_told_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from outlive.cli import up

    config, _ = found_host(Places.below(tmp_path), Wish(name="one"), lambda step: None)
    monkeypatch.setattr(up, "SYSTEMD", tmp_path)
    up.tell_next(config, Places.below(tmp_path), None, fresh=True, started=True, runs=True)
    assert "systemctl enable --now outlive-agent" in capsys.readouterr().err


def test_ending_a_process_that_is_gone_is_no_error() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    outset.end(ended.pid, 1.0)


def test_up_said_twice_at_the_same_moment_starts_one_agent_and_both_wait_for_it(
    tmp_path: Path, one_host: OneHost
) -> None:
    host = OneHost(tmp_path, one_host.namespace)
    try:
        assert host.run("up", "--folder", str(tmp_path), "--no-start", "--name", "two", "--port", "7499").code == 0
        both = [host.start("up", "--folder", str(tmp_path)) for _ in range(2)]
        said = [each.communicate(timeout=60) for each in both]
        assert [each.returncode for each in both] == [0, 0], said
        assert presence.agent_pid(tmp_path / "run") == exclusive.holder(tmp_path / "run") is not None
    finally:
        clear_away(host)


def test_a_store_that_is_half_said_or_wrong_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "host"
    for words, sentence in (
        (("--store", "etcd://h", "--store-user", "outlive"), "--store-password-file"),
        (("--store", "etcd://h:0"), "a colon and a port"),
        (("--store", "mysql://h"), "must be sqlite:///PATH"),
        (("--store-ca", __file__), "store_tls"),
    ):
        assert main.run(["up", "--folder", str(folder), "--no-start", *words]) == 2
        assert sentence in capsys.readouterr().err
        assert not (folder / "agent.toml").exists()
