"""The check-up: what is well is called well, each thing that is broken is found, and nothing keeps it from its end."""

import asyncio
import datetime
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlive.agent import checkup, checkup_cluster, checkup_machine, finding, founding, presence
from outlive.agent.finding import Finding, Result, tried
from outlive.agent.first_host import Places, Wish, found_host
from outlive.cli import main
from outlive.cluster import records as rec
from outlive.cluster.transaction import Delete, Put, Transaction
from outlive.config.agent_file import AgentConfig
from outlive.errors import Failed
from outlive.store.sqlite import SqliteStore

from ..ports import free_port


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as found:
        yield found


@pytest.fixture
def host(tmp_path: Path, port: int) -> AgentConfig:
    """A host that was set up and whose agent does not run."""
    return found_host(Places.below(tmp_path), Wish(name="one", port=port), lambda step: None)[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the machine's own checks out."""
    monkeypatch.setattr(checkup_machine, "MACHINE", ())
    monkeypatch.setattr(checkup, "VMS", ())


def examined(path: Path | None) -> dict[str, Finding]:
    async def gather() -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        async for each in checkup.examine(path):
            if each.id not in found or each.result is not Result.OK:
                found[each.id] = each
        return found

    return asyncio.run(gather())


def results(folder: Path) -> dict[str, Finding]:
    """What is not well."""
    return {id: each for id, each in examined(folder / "agent.toml").items() if each.result is not Result.OK}


def write(path: Path, *writes: Put | Delete) -> None:
    async def transact() -> None:
        store = await SqliteStore.open(path, timeout_s=60)
        await store.transact(Transaction((), writes), timeout_s=60)
        await store.close()

    asyncio.run(transact())


@pytest.mark.usefixtures("quick")
def test_a_host_that_was_just_set_up_is_well(host: AgentConfig, tmp_path: Path) -> None:
    found = examined(tmp_path / "agent.toml")
    assert {each.result for each in found.values()} == {Result.OK}
    assert set(found) == {
        "config", "cluster-key", "cgroup-root", "certificates", "room", "store", "records", "port", "peer-port",
        "datastore.local", "datastore.local.protected", "datastore.local.sync", "clock-jumps",
        "vm.memory", "watchdog",
    }  # fmt: skip
    assert all(each.found and not each.fix for each in found.values())


@pytest.mark.usefixtures("quick")
def test_a_check_up_leaves_nothing_behind(host: AgentConfig, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        kept = (path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
        return {str(path): path.read_bytes() for path in kept}

    before = files()
    examined(tmp_path / "agent.toml")
    assert files() == before


def test_this_machine_can_be_checked_before_anything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "AGENT_FILE", Path("/nonexistent/agent.toml"))
    before = set(Path("/dev/shm").iterdir()), os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    found = examined(None)
    assert before == (
        set(Path("/dev/shm").iterdir()),
        os.listdir("/run/netns") if os.path.isdir("/run/netns") else [],
    )
    assert {id for id, _ in checkup_machine.MACHINE} <= set(found)
    assert "outlive up" in found["config"].found
    assert [each for each in found.values() if each.result is Result.FAILED and each.id != "port"] == []
    assert all(each.fix for each in found.values() if each.result is not Result.OK)


def break_file(name: str, content: bytes) -> Callable[[AgentConfig, Path], None]:
    def breaking(host: AgentConfig, folder: Path) -> None:
        (folder / name).write_bytes(content)

    return breaking


def remove(name: str) -> Callable[[AgentConfig, Path], None]:
    return lambda host, folder: (folder / name).unlink()


def foreign_certificate(host: AgentConfig, folder: Path) -> None:
    other = founding.Authority(folder / "other")
    other.make("f" * 16)
    (folder / "other/ca.pem").replace(folder / "tls/ca.pem")


def others_key(host: AgentConfig, folder: Path) -> None:
    founding.Authority(folder / "tls").issue("two", "127.0.0.1")
    (folder / "tls/two.key").replace(folder / "tls/one.key")


def bad_record(host: AgentConfig, folder: Path) -> None:
    write(host.data_folder / "store.sqlite", Put(rec.WORKLOADS + "web", b"{"))


def other_cluster(host: AgentConfig, folder: Path) -> None:
    write(host.data_folder / "store.sqlite", Put(rec.CLUSTER, rec.encode(rec.ClusterRecord("f" * 16))))


def no_cluster(host: AgentConfig, folder: Path) -> None:
    write(host.data_folder / "store.sqlite", Delete(rec.CLUSTER))


def foreign_datastore(host: AgentConfig, folder: Path) -> None:
    marker = folder / "datastore/outlive-datastore.json"
    marker.write_text(json.dumps({"format": 1, "cluster": "f" * 16}))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("breaking", "id", "result", "told"),
    [
        (break_file("agent.toml", b"host = 7"), "config", Result.FAILED, "agent.toml"),
        (remove("agent.toml"), "config", Result.FAILED, "cannot be read"),
        (remove("cluster.key"), "cluster-key", Result.FAILED, "No such file"),
        (break_file("cluster.key", b"xyz"), "cluster-key", Result.FAILED, "it is not 32 bytes"),
        (break_file("cluster.key", b"00"), "cluster-key", Result.FAILED, "it is not 32 bytes"),
        (lambda host, folder: (folder / "cluster.key").chmod(0o644), "cluster-key", Result.WARNING, "by others"),
        (remove("tls/one.pem"), "certificates", Result.FAILED, "No such file"),
        (break_file("tls/one.pem", b"-----BEGIN"), "certificates", Result.FAILED, "cannot be used"),
        (foreign_certificate, "certificates", Result.FAILED, "cannot be used"),
        (others_key, "certificates", Result.FAILED, "is not the key of"),
        (remove("data/store.sqlite"), "store", Result.FAILED, "there is none"),
        (break_file("data/store.sqlite", b""), "store", Result.FAILED, "empty"),
        (break_file("data/store.sqlite", b"SQLite format 4"), "store", Result.FAILED, "store"),
        (bad_record, "records", Result.FAILED, "workloads/web"),
        (other_cluster, "cluster", Result.FAILED, "f" * 16),
        (no_cluster, "cluster", Result.FAILED, "no cluster"),
        (foreign_datastore, "datastore.local", Result.FAILED, "another cluster"),
        (remove("datastore/outlive-datastore.json"), "datastore.local", Result.FAILED, "is not at"),
        (break_file("datastore/protected.json", b"{"), "datastore.local", Result.FAILED, "not believed"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found_and_has_its_fix(
    host: AgentConfig,
    tmp_path: Path,
    breaking: Callable[[AgentConfig, Path], None],
    id: str,
    result: Result,
    told: str,
) -> None:
    breaking(host, tmp_path)
    wrong = results(tmp_path)
    assert (wrong[id].result, told in wrong[id].found) == (result, True), wrong[id]
    assert wrong[id].fix


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("days", "result"), [(-1, Result.FAILED), (10, Result.WARNING), (400, Result.OK)])
def test_a_certificate_is_told_before_it_ends(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, days: int, result: Result
) -> None:
    monkeypatch.setattr(founding, "VALID_DAYS", days)
    found_host(Places.below(tmp_path), Wish(name="one", port=port), lambda step: None)
    found = examined(tmp_path / "agent.toml")["certificates"]
    assert found.result is result
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    assert f"{ends:%Y-%m-%d}" in found.found


@pytest.mark.usefixtures("quick")
def test_a_port_of_another_program_is_found(host: AgentConfig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", host.port))
        assert "taken by another program" in results(tmp_path)["port"].found


@pytest.mark.usefixtures("quick")
def test_a_port_that_this_hosts_agent_has_is_well(
    host: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "agent_pid", lambda run_folder: 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", host.port))
        assert "is this host's agent's" in examined(tmp_path / "agent.toml")["port"].found


@pytest.mark.usefixtures("quick")
def test_an_address_of_another_machine_is_found(tmp_path: Path) -> None:
    found_host(Places.below(tmp_path), Wish(name="one", address="192.0.2.1"), lambda step: None)
    assert "none of this host's addresses" in results(tmp_path)["port"].found


@pytest.mark.usefixtures("quick")
def test_a_place_for_cgroups_that_is_none_is_found(host: AgentConfig, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(file.read_text().replace(str(host.cgroup_root), str(tmp_path)))
    assert "in no control groups" in results(tmp_path)["cgroup-root"].found


@pytest.mark.usefixtures("quick")
def test_slow_storage_is_told(host: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup_cluster, "SYNC_SLOW_S", 0.0)
    assert results(tmp_path)["datastore.local.sync"].result is Result.WARNING


@pytest.mark.usefixtures("quick")
def test_storage_that_hangs_does_not_hold_the_check_up(
    host: AgentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup_cluster, "SYNC_S", 0.2)
    monkeypatch.setattr(checkup_cluster, "_TIME_A_SYNC", "import time; time.sleep(60)")
    before = time.monotonic()
    assert "not done after" in results(tmp_path)["datastore.local.sync"].found
    assert time.monotonic() - before < 30


def test_a_wall_clock_that_was_set_is_told() -> None:
    assert checkup_machine.clock_jumps(checkup_machine.wall_ahead_s()).result is Result.OK
    jumped = checkup_machine.clock_jumps(checkup_machine.wall_ahead_s() - 3600)
    assert (jumped.result, "+3600" in jumped.found) == (Result.WARNING, True)


@pytest.mark.parametrize(
    ("release", "result"),
    [("5.1.0", Result.FAILED), ("5.10.0-amd64", Result.WARNING), ("5.15.0", Result.WARNING), ("6.1.0-9", Result.OK),
     ("strange", Result.FAILED)],
)  # fmt: skip
def test_kernels_are_told_by_what_they_lack(monkeypatch: pytest.MonkeyPatch, release: str, result: Result) -> None:
    class Named:
        pass

    named = Named()
    named.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", lambda: named)
    assert checkup_machine.kernel().result is result


def raising(error: BaseException) -> Callable[[], Finding]:
    def check() -> Finding:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "told"),
    [(Failed("It broke.", cause="so"), "It broke. (so)"), (OSError(5, "Input/output error"), "Input/output error")],
)
async def test_a_check_that_breaks_is_a_finding(error: Exception, told: str) -> None:
    [found] = await tried("x", raising(error))
    assert (found.id, found.result, told in found.found) == ("x", Result.FAILED, True)


async def test_a_check_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LONGEST_S", 0.05)

    async def hang() -> Finding:
        await asyncio.sleep(60)
        raise AssertionError

    [found] = await tried("x", hang)
    assert "no answer within" in found.found


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("breaking", "code"), [(None, 5), (remove("cluster.key"), 1)], ids=["agent-not-running", "no-key"]
)
def test_doctor_ends_with_what_it_found(
    host: AgentConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    breaking: Callable[[AgentConfig, Path], None] | None,
    code: int,
) -> None:
    if breaking:
        breaking(host, tmp_path)
    words = ["doctor", "--config", str(tmp_path / "agent.toml")]
    assert main.run(words) == code
    assert "outlive up" in capsys.readouterr().out
    assert main.run([*words, "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert {"id": "agent", "result": "warning"}.items() <= next(
        each for each in told["checks"] if each["id"] == "agent"
    ).items()
    assert sum(told["counts"].values()) == len(told["checks"])


@pytest.mark.usefixtures("quick")
def test_doctor_is_content_with_a_machine_that_has_nothing_yet(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from outlive.lab import leftovers

    monkeypatch.setattr(checkup, "AGENT_FILE", Path("/nonexistent/agent.toml"))
    monkeypatch.setattr(leftovers, "leftovers", lambda: ([], []))
    monkeypatch.setattr(checkup, "NOT_SET_UP", AgentConfig("x", "127.0.0.1", checkup.NOT_SET_UP.cluster, port=port))
    assert main.run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("All is well.")
