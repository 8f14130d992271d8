"""Pictures, checkpoints and networks of machines: what is asked of the agent, what is shown, and what it ends with."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlive.api.networks import free_number
from outlive.cli import main

from ..one_host import OneHost
from .pretended_agent import Answer, Asked, Pieces, pretended, problem

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + b"\x08\x02\x00\x00\x00"
MIB = 1 << 20


def checkpoint(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "label": "", "generation": 3, "host": "a", "created_unix_s": 1_700_000_000.0,
        "reason": "interval", "parent": None, "bytes": 3 * MIB, "pause_ms": 4.25, "problem": "", **more,
    }  # fmt: skip


class Machines:
    """An agent with one machine, db, on host a."""

    def __init__(self, state: str = "done", reason: str = "") -> None:
        self.state, self.reason = state, reason
        self.checkpoints = [checkpoint("g1-2", label="before-upgrade", parent="g1-1"), checkpoint("g1-1")]
        self.checked = [{"name": "g1-2", "whole": True, "problem": ""}, {"name": "g1-1", "whole": True, "problem": ""}]
        self.picture = PNG
        self.pressed: list[str] = []

    def __call__(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        match asked.method, path:
            case "GET", "/v1/workloads/db":
                return 200, {"outlook": {"host": "a", "state": "running", "standing": "protected", "reason": ""}}
            case "GET", "/v1/workloads/db/screenshot":
                return 200, self.picture
            case "GET", "/v1/workloads/db/checkpoints":
                return 200, {"workload": "db", "on": "shared", "checkpoints": self.checkpoints}
            case "GET", "/v1/workloads/db/checkpoints/verify":
                told = [{"name": "g1-2", "done_bytes": MIB, "total_bytes": 3 * MIB}, *self.checked]
                return 200, Pieces(json.dumps(each).encode() + b"\n" for each in told)
            case "POST", "/v1/workloads/db/button":
                self.pressed.append(asked.json["press"])
                return 200, {"workload": "db", "host": "a", "pressed": asked.json["press"]}
            case "POST", "/v1/operations":
                return 202, {
                    "operation": {"id": "op-1", **asked.json},
                    "commands": [{"command": "Transact", "act": query}],
                }
            case "GET", "/v1/operations/op-1":
                return 200, {"id": "op-1", "state": self.state, "reason": self.reason}
        return problem(404, "not-found", "There is nothing here.")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def run(machines: Machines, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        with pretended(machines) as agent:
            code = main.run([*words, "--socket", agent.socket])
            said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err
        return code, said.out, said.err

    return run


def test_a_picture_is_saved_with_its_size(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "db.png"
    code, out, err = run("screenshot", "db", "-o", str(file))
    assert (code, out, err, file.read_bytes()) == (0, "", f"Wrote {file}: 640 × 480.\n", PNG)
    code, out, _ = run("screenshot", "db", "-o", str(file), "--json")
    told = {"workload": "db", "file": str(file), "bytes": len(PNG), "width": 640, "height": 480}
    assert (code, json.loads(out)) == (0, told)


def test_what_is_no_picture_or_cannot_be_written_is_told(run: Run, machines: Machines, tmp_path: Path) -> None:
    code, _, err = run("screenshot", "db", "-o", str(tmp_path / "none" / "x.png"))
    assert (code, "No such file or directory" in err) == (1, True)
    machines.picture = b"<html>"
    code, _, err = run("screenshot", "db", "-o", str(tmp_path / "x.png"))
    assert (code, "6 bytes that are no PNG" in err, list(tmp_path.iterdir())) == (1, True, [])
    assert run("screenshot", "db")[0] == 2
    assert run("screenshot", "db", "-o", "-", "--json")[0] == 2


def test_a_checkpoint_is_an_operation_that_is_followed_to_its_end(run: Run, machines: Machines) -> None:
    machines.reason = "g1-3 has 12.5 MiB; paused 4.2 ms"
    code, out, err = run("checkpoint", "db", "--as", "before-upgrade", "--json")
    asked = {"kind": "checkpoint", "workload": "db", "target": None, "checkpoint": "before-upgrade"}
    assert (code, json.loads(out)["operation"]["state"]) == (0, "done")
    assert "Done: g1-3 has 12.5 MiB; paused 4.2 ms.\n" in err
    code, out, _ = run("checkpoint", "db", "--as", "before-upgrade", "--dry-run")
    assert (code, out) == (0, 'Transact: {"act": "dry_run=1"}\n')
    code, out, _ = run("checkpoint", "db", "--wait", "0", "--json")
    assert json.loads(out)["operation"] == {"id": "op-1", **asked, "checkpoint": ""}


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("refused", 3), ("cancelled", 1)])
def test_a_checkpoint_that_was_not_made_ends_with_the_reason(
    run: Run, machines: Machines, state: str, code: int
) -> None:
    machines.state, machines.reason = state, "the datastore is full"
    ended, _, err = run("checkpoint", "db")
    assert (ended, "the datastore is full" in err) == (code, True)


def test_checkpoints_are_listed_with_what_they_take(run: Run, machines: Machines) -> None:
    machines.checkpoints.append(checkpoint("g1-0", problem="its manifest is not JSON"))
    code, out, _ = run("checkpoints", "db")
    assert code == 0
    [row] = [line.split() for line in out.splitlines() if "before-upgrade" in line]
    assert (row[:2], row[-3:]) == (["g1-2", "(before-upgrade)"], ["g1-1", "3.0", "4.2"])
    assert "cannot be read: its manifest is not JSON" in out
    assert json.loads(run("checkpoints", "db", "--json")[1])["checkpoints"] == machines.checkpoints
    machines.checkpoints = []
    assert run("checkpoints", "db")[1:] == ("", "db has no checkpoints yet. They will be on shared.\n")


def test_resuming_asks_first_and_then_is_an_operation(run: Run) -> None:
    code, _, err = run("resume", "db")
    assert (code, "db runs on a. Give up what it did since its newest checkpoint?" in err) == (3, True)
    code, out, err = run("resume", "db", "--at", "before-upgrade", "--yes", "--wait", "0", "--json")
    operation = json.loads(out)["operation"]
    assert (code, operation["kind"], operation["checkpoint"]) == (0, "resume", "before-upgrade")
    assert run("resume", "db", "--dry-run")[:2] == (0, 'Transact: {"act": "dry_run=1"}\n')


def test_checkpoints_are_verified_to_their_last_byte(run: Run, machines: Machines) -> None:
    assert run("verify", "db") == (0, "g1-2 is whole.\ng1-1 is whole.\n", "")
    machines.checked[0] |= {"whole": False, "problem": "block 7 of memory.pages differs from its digest"}
    code, out, err = run("verify", "db", "g1-2")
    assert (code, out.splitlines()[0]) == (5, "g1-2 is damaged: block 7 of memory.pages differs from its digest.")
    assert "the newest whole one is g1-1" in err
    code, out, _ = run("verify", "db", "--json")
    assert (code, json.loads(out)["checkpoints"]) == (5, machines.checked)
    machines.checked = []
    assert run("verify", "db")[::2] == (0, "db has no checkpoints yet.\n")


@pytest.mark.parametrize(
    "words", [("verify", "db", "../x"), ("resume", "db", "--at", "a/b"), ("checkpoint", "db", "--as", "")]
)
def test_what_cannot_name_a_checkpoint_is_not_asked_for(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run(*words)
    assert (code, "cannot name a checkpoint" in err) == (2, True)


def test_networks_are_made_once_changed_listed_and_removed(one_host: OneHost) -> None:
    run = one_host.run
    made = run("network", "create", "lab-a", "--vni", "1", "--subnet", "10.9.0.0/24")
    assert (made.code, made.out) == (0, "Made the network lab-a: number 1, MTU 1450.\n")
    other = run("network", "create", "lab-b", "--json").json["network"]
    assert other["vni"] == free_number("lab-b", {1}), "whoever asks is given the same"
    again = run("network", "create", "lab-a")
    assert (again.code, again.out) == (0, "")
    assert "The network lab-a is there already: number 1, MTU 1450.\n" in again.err
    assert run("network", "create", "lab-a", "--mtu", "1400").out == "Changed the network lab-a: number 1, MTU 1400.\n"
    [row] = [line.split() for line in run("network", "list").out.splitlines() if "lab-a" in line]
    assert row == ["lab-a", "1", "1400", "10.9.0.0/24"]
    assert [each["name"] for each in run("network", "list", "--json").json["networks"]] == ["lab-a", "lab-b"]
    assert run("network", "create", "lab-c", "--vni", "1").code == 2
    removed = run("network", "rm", "lab-a", "lab-b")
    assert (removed.code, removed.err) == (0, "The network lab-a is gone.\nThe network lab-b is gone.\n")
    assert run("network", "rm", "lab-a").code == 1
    assert "There are no networks yet" in run("network", "list").err
    assert run("network", "create", "Bad_Name").code == 2


def test_buttons_are_pressed_where_the_machine_runs_and_a_reset_asks_first(run: Run, machines: Machines) -> None:
    assert run("vm", "pause", "db")[0] == 0
    code, out, _ = run("vm", "unpause", "db", "--json")
    assert (code, json.loads(out)["pressed"]) == (0, "unpause")
    assert run("vm", "reset", "db")[0] == 3
    assert run("vm", "reset", "db", "--yes")[0] == 0
    assert machines.pressed == ["pause", "unpause", "reset"]
