"""Founding a cluster of one host: whole, by itself consistent, and never twice."""

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outlive.agent import first_host, founding
from outlive.agent.first_host import HostDiffers, Places, Wish, found_host, machine_name
from outlive.cluster.host import NAME
from outlive.config.agent_file import AgentConfig, AgentFileError, read_agent
from outlive.errors import Failed, UsageInvalid


def found(folder: Path, **wish: object) -> tuple[AgentConfig, bool]:
    return found_host(Places.below(folder), Wish(**wish), lambda step: None)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file whose change would mean that something was made anew."""
    kept = {"agent.toml", "cluster.key", "outlive-datastore.json", "ca.pem", "ca.key", "one.pem", "one.key"}
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.name in kept}


def test_everything_that_an_agent_needs_is_there(tmp_path: Path) -> None:
    config, fresh = found(tmp_path, name="one")
    assert fresh
    assert config == read_agent(tmp_path / "agent.toml")
    assert (config.host, config.address, config.site) == ("one", "127.0.0.1", "default")
    assert (config.data_folder / "store.sqlite").exists()
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {"ca.pem", "ca.key", "one.pem", "one.key"}
    assert len(contents(tmp_path)) == 7


def test_secrets_are_for_root_alone(tmp_path: Path) -> None:
    found(tmp_path, name="one")
    for name in ("cluster.key", "tls/ca.key", "tls/one.key", "data/store.sqlite"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


def test_data_can_be_reached_by_workloads_of_other_users(tmp_path: Path) -> None:
    found(tmp_path)
    assert stat.S_IMODE((tmp_path / "datastore").stat().st_mode) & 0o111 == 0o111


def test_saying_it_twice_makes_nothing_anew(tmp_path: Path) -> None:
    found(tmp_path, name="one")
    before = contents(tmp_path)
    _, fresh = found(tmp_path)
    assert not fresh
    assert contents(tmp_path) == before
    found(tmp_path, name="one", address="127.0.0.1", site="default")


@pytest.mark.parametrize("wish", [{"name": "two"}, {"address": "127.0.0.2"}, {"site": "there"}, {"port": 4000}])
def test_a_host_that_is_set_up_otherwise_is_left_as_it_is(tmp_path: Path, wish: dict[str, object]) -> None:
    found(tmp_path, name="one")
    before = contents(tmp_path)
    with pytest.raises(HostDiffers) as caught:
        found(tmp_path, **wish)
    assert caught.value.exit_code == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize("wish", [{"name": "No Name"}, {"address": "nowhere"}, {"site": "-"}, {"port": 99999}])
def test_what_cannot_be_is_refused_and_leaves_no_file(tmp_path: Path, wish: dict[str, object]) -> None:
    with pytest.raises(UsageInvalid):
        found(tmp_path, **wish)
    assert not (tmp_path / "agent.toml").exists()


def test_a_file_with_mistakes_is_told_and_kept(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("host = 7\n")
    with pytest.raises(AgentFileError):
        found(tmp_path)
    assert (tmp_path / "agent.toml").read_text() == "host = 7\n"


@pytest.mark.parametrize("step", ["make_key", "found_store", "found_datastore"])
def test_whoever_is_interrupted_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(founding, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            found(tmp_path, name="one")
    cluster = read_agent(tmp_path / "agent.toml").cluster.id
    config, fresh = found(tmp_path)
    assert not fresh
    assert config.cluster.id == cluster
    assert len(contents(tmp_path)) == 7


def test_two_at_once_found_one_cluster(tmp_path: Path) -> None:
    words = [sys.executable, "-c", f"""
from pathlib import Path
from outlive.agent.first_host import *
print(found_host(Places.below(Path({str(tmp_path)!r})), Wish(name="one"), lambda step: None)[0].cluster.id)
"""]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: subprocess.run(words, capture_output=True, text=True, timeout=60), range(2)))
    assert [run.stderr for run in runs] == ["", ""]
    assert len({run.stdout for run in runs}) == 1


def test_one_that_hangs_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_host, "LOCKED_WITHIN_S", 0.1)
    with first_host._alone(tmp_path), pytest.raises(Failed, match="Another `outlive up`"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("machine", "name"),
    [("web-1.example.org", "web-1"), ("My_Host", "my-host"), ("---", "host"), ("", "host"), ("ä", "host"),
     ("x" * 80, "x" * 63)],
)  # fmt: skip
def test_a_machines_name_becomes_a_valid_one(monkeypatch: pytest.MonkeyPatch, machine: str, name: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    assert machine_name() == name
    assert NAME.fullmatch(name)


def test_an_installed_host_has_the_usual_places() -> None:
    places = Places.installed()
    assert [str(each) for each in (places.config, places.data, places.run)] == [
        "/etc/outlive/agent.toml",
        "/var/lib/outlive",
        "/run/outlive",
    ]
