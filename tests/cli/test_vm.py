"""Virtual machines are made by one command, taken over from libvirt, and looked at before anything happens."""

import io
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from outlive.cli import main
from outlive.config.workload_file import parse_workload, workload_from_document

from .pretended_agent import Answer, Asked, pretended, problem

ROOT = Path(__file__).parents[2]
DOMAINS = ROOT / "tests" / "config" / "domains"
DB = (
    "vm",
    "create",
    "db",
    "--site",
    "a",
    "--replica-site",
    "b",
    "--memory",
    "1G",
    "--cpus",
    "2",
    "--disk",
    "10G",
    "--nic",
    "br0",
)
MIB = 1 << 20


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.run(list(words))
    said = capsys.readouterr()
    assert "Traceback" not in said.err, said.err
    return code, said.out, said.err


def stands(state: str, standing: str, host: str | None = "a", reason: str = "") -> dict[str, Any]:
    return {"name": "db", "state": state, "standing": standing, "host": host, "reason": reason, "remedy": "wait"}


class Story:
    """Answers a `create`: each look at the workload shows the next of its states, the last for ever."""

    def __init__(self, *looks: dict[str, Any], there: tuple[str, ...] = ()) -> None:
        self.looks, self.there = list(looks), there

    def __call__(self, asked: Asked) -> Answer:
        match asked.method, asked.path.partition("?")[0]:
            case "GET", "/v1/workloads":
                return 200, {"workloads": [{"name": name} for name in self.there]}
            case "PUT", _:
                return 200, {"changed": True}
            case "GET", _:
                return 200, self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return problem(404, "not-found", "There is nothing here.")


def test_one_call_makes_the_machine_and_its_replica_and_it_waits_until_it_is_protected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def seeding(done: int) -> dict[str, Any]:
        replica = {"host": "b", "state": "seeding", "done_bytes": done * MIB, "total_bytes": 1024 * MIB}
        return {"outlook": stands("running", "at risk"), "replica": replica}

    story = Story(
        {"outlook": stands("unplaced", "at risk", None), "replica": None},
        {"outlook": stands("starting", "at risk")},
        seeding(0),
        seeding(512),
        {"outlook": stands("running", "protected"), "replica": {"host": "b", "state": "paired"}},
    )
    with pretended(story) as agent:
        code, out, err = ran(capsys, *DB, "--socket", agent.socket)
    assert (code, out) == (0, "Protected. db runs on a.\n")
    (put,) = agent.of("PUT")
    assert put.path == "/v1/workloads/db?source=command%20line"
    workload = parse_workload(put.body)
    assert workload.protection == "hot"
    assert (workload.placement.sites, workload.placement.prefer_sites, workload.placement.apart) == (
        ("a", "b"),
        ("a",),
        "site",
    )
    assert [line for line in err.splitlines() if "MiB/s" not in line] == [
        "db was asked for.",
        "db: unplaced",
        "db: starting on a",
        "db: running on a; its replica on b is seeding",
    ]
    assert "  50 % (512 of 1024 MiB" in err


def test_its_result_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    with pretended(Story({"outlook": stands("running", "protected")})) as agent:
        code, out, _ = ran(capsys, *DB, "--json", "--socket", agent.socket)
    assert (code, json.loads(out)) == (0, {"changed": True, "outlook": stands("running", "protected")})


def test_a_machine_that_is_not_protected_in_time_is_degraded_and_one_that_does_not_run_has_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pretended(Story({"outlook": stands("running", "at risk", reason="no host for it")})) as agent:
        code, _, err = ran(capsys, *DB, "--wait", "0.2", "--socket", agent.socket)
    assert (code, "db runs on a, and is not protected after 0.2 s." in err, "no host for it" in err) == (5, True, True)
    with pretended(Story({"outlook": stands("failed", "at risk", reason="no image")})) as agent:
        code, _, err = ran(capsys, *DB, "--wait", "0.2", "--socket", agent.socket)
    assert (code, "db is not running after 0.2 s; it is failed." in err, "no image" in err) == (1, True, True)


def test_a_machine_that_is_there_is_not_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pretended(Story(there=("db",))) as agent:
        code, _, err = ran(capsys, *DB, "--socket", agent.socket)
        assert (code, "There is a workload db already." in err, agent.of("PUT")) == (3, True, [])


def test_what_is_asked_for_without_waiting_is_only_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pretended(Story()) as agent:
        code, out, _ = ran(capsys, *DB, "--wait", "0", "--socket", agent.socket)
        assert (code, out, [each.method for each in agent.asked]) == (0, "", ["GET", "PUT"])


def dry(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = ran(capsys, "vm", "create", "x", *words, "--dry-run", "--socket", "/nonexistent.sock")
    assert (code, err) == (0, "")
    parse_workload(out)
    return tomllib.loads(out)


def test_a_dry_run_prints_the_file_and_asks_nobody(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "user.yaml").write_text("#cloud-config\n")
    document = dry(
        capsys, "--warm", "--on", "shared", "--memory", "1.5G", "--site", "north",
        "--disk", "/srv/a.qcow2,size=20G,name=main", "--disk", "source=/srv/b.raw,on=other,bus=scsi,read_only",
        "--disk", "512", "--nic", "network=office,mac=52:54:00:00:00:01", "--nic", "br1,model=e1000e",
        "--kernel", "/k", "--initrd", "/i", "--append", "a b", "--type", "pc", "--cpu-model", "Haswell",
        "--firmware", "uefi", "--guest-agent", "--user-data", str(tmp_path / "user.yaml"),
    )  # fmt: skip
    vm = document["vm"]
    assert document["placement"] == {"prefer_sites": ["north"]}
    assert (vm["memory_mib"], vm["type"], vm["cpu_model"], vm["firmware"], vm["guest_agent"]) == (
        1536, "pc", "Haswell", "uefi", True,
    )  # fmt: skip
    assert vm["boot"] == {"kernel": "/k", "initrd": "/i", "append": "a b"}
    assert vm["disk"] == [
        {"name": "main", "source": "/srv/a.qcow2", "size_mib": 20480, "on": "shared", "format": "qcow2"},
        {"name": "disk-1", "source": "/srv/b.raw", "on": "other", "bus": "scsi", "read_only": True},
        {"name": "disk-2", "size_mib": 512, "on": "shared"},
    ]
    assert vm["nic"][0] == {"name": "nic0", "network": "office", "mac": "52:54:00:00:00:01"}
    assert {**vm["nic"][1], "mac": ""} == {"name": "nic1", "bridge": "br1", "model": "e1000e", "mac": ""}
    assert vm["cloud_init"] == {"user_data": "#cloud-config\n"}


def test_the_protection_follows_the_replica_unless_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry(capsys, "--site", "a", "--replica-site", "b", "--disk", "1G")["protection"] == "hot"
    assert dry(capsys, "--site", "a", "--replica-site", "a", "--disk", "1G")["placement"] == {
        "sites": ["a"],
        "prefer_sites": ["a"],
    }
    assert dry(capsys, "--on", "s", "--disk", "1G")["protection"] == "cold"
    assert dry(capsys, "--host", "h", "--disk", "1G")["placement"] == {"hosts": ["h"]}
    cold = dry(capsys, "--cold", "--on", "s", "--site", "a", "--replica-site", "b", "--disk", "1G")
    assert (cold["protection"], cold["placement"]) == ("cold", {"sites": ["a", "b"], "prefer_sites": ["a"]})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--disk", "1G"), "is kept on one host"),
        (("--on", "s"), "neither a disk nor a kernel"),
        (("--replica-site", "b", "--disk", "1G"), "--replica-site needs --site"),
        (("--on", "s", "--disk", "big"), "'big' is no size"),
        (("--on", "s", "--disk", "1G,speed=9"), "'speed=9' is not one of name=…"),
        (("--on", "s", "--disk", "1G,size=2G"), "size is said twice"),
        (("--on", "s", "--disk", "/x,read_only=maybe"), "neither true nor false"),
        (("--on", "s", "--disk", "1G", "--nic", "bridge="), "'bridge=' is not one of"),
        (("--on", "s", "--disk", "1G", "--nic", "br0,network=n"), "stands beside a bridge"),
        (("--on", "s", "--disk", "1G", "--memory", "1X"), "'1X' is no size"),
        (("--on", "s", "--disk", "1G", "--memory", "1"), "vm.memory_mib must be a whole number from 8"),
        (("--on", "s", "--disk", "/../x"), "vm.disk[0].source must be the absolute path"),
        (("--on", "s", "--disk", "1G", "--initrd", "/i"), "vm.boot.kernel is missing"),
        (("--hot", "--on", "s", "--disk", "1G"), 'must be "local" under hot protection'),
        (("--on", "s", "--disk", "1G", "--user-data", "/nonexistent"), "does not exist"),
    ],
)
def test_what_cannot_be_made_is_told_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, out, err = ran(capsys, "vm", "create", "x", *words, "--socket", "/nonexistent.sock")
    assert (code, out, told in err) == (2, "", True), err


def test_a_domain_is_written_as_a_file_and_what_was_left_is_told_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    web = str(DOMAINS / "web.xml")
    code, out, err = ran(capsys, "vm", "import", web, "--on", "shared")
    assert code == 0
    assert parse_workload(out).name == "web01"
    assert f"{web}:4: metadata: it belongs to other programs.\n" in err
    code, out, err = ran(capsys, "vm", "import", web, "--on", "shared", "--name", "new", "--json")
    read = json.loads(out)
    assert (code, read["document"]["name"], parse_workload(read["toml"]).name) == (0, "new", "new")
    assert [part["part"] for part in read["not_taken_over"]] == ["uuid", "metadata", "clock/timer"]


def test_a_domain_is_read_from_a_pipe_and_written_to_a_new_file_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Piped:
        buffer = io.BytesIO((DOMAINS / "kernel.xml").read_bytes())
        encoding, errors = "utf-8", "strict"

    monkeypatch.setattr(sys, "stdin", Piped())
    file = tmp_path / "sensor.toml"
    code, out, err = ran(capsys, "vm", "import", "-", "-o", str(file))
    assert (code, out, f"Wrote {file}." in err) == (0, "", True)
    before = file.read_text()
    assert parse_workload(before).name == "sensor"
    code, out, err = ran(capsys, "vm", "import", str(DOMAINS / "kernel.xml"), "-o", str(file))
    assert (code, "cannot be written" in err, "File exists" in err, file.read_text()) == (1, True, True, before)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((str(DOMAINS / "web.xml"),), "--on DATASTORE"),
        ((str(ROOT / "README.md"), "--on", "s"), "cannot be read as a libvirt domain"),
        (("/nonexistent.xml",), "does not exist"),
        (("/dev/zero", "--on", "s"), "larger than 1024 KiB"),
    ],
)
def test_what_is_no_domain_or_has_no_place_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, out, err = ran(capsys, "vm", "import", *words)
    assert (code, out, told in err) == (2, "", True), err


def test_a_file_is_looked_at_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "vm", "check", str(ROOT / "examples" / "vm-cold.toml"))
    assert code == 0
    assert out.splitlines()[0] == "mail is a virtual machine under cold protection."
    assert "52:54:00:29:ee:c3" in out, "the address that was given to its card"
    code, out, _ = ran(capsys, "vm", "check", str(ROOT / "examples" / "vm-hot.toml"), "--json")
    told = json.loads(out)
    assert (code, told["needs"], told["datastores"]) == (0, {"cpus": 2.0, "memory_mib": 1424}, [])
    assert workload_from_document(told["document"]).name == "db"


def test_mistakes_of_a_file_are_told_and_a_service_is_no_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "a"\nkind = "vm"\n[vm]\ncpus = 0\n')
    code, _, err = ran(capsys, "vm", "check", str(wrong))
    assert (code, f"{wrong}:4: vm.cpus must be" in err, "neither a disk nor a kernel" in err) == (2, True, True)
    code, _, err = ran(capsys, "vm", "check", str(ROOT / "examples" / "redis.toml"))
    assert (code, "describes a service, not a virtual machine" in err) == (2, True)


def test_apply_sends_the_texts_that_a_file_takes_from_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "user.yaml").write_text("#cloud-config\n")
    file = tmp_path / "db.toml"
    file.write_text(
        'name = "db"\nkind = "vm"\n[[vm.disk]]\nname = "root"\non = "s"\nsize_mib = 1\n'
        '[vm.cloud_init]\nuser_data_file = "user.yaml"\n'
    )
    with pretended(Story()) as agent:
        code, _, err = ran(capsys, "apply", str(file), "--wait", "0", "--socket", agent.socket)
        assert code == 0, err
    (put,) = agent.of("PUT")
    machine = parse_workload(put.body).machine
    assert machine is not None
    assert machine.cloud_init is not None
    assert machine.cloud_init.user_data == "#cloud-config\n"
