"""A real machine by the API: its picture, its console, its checkpoints, and going on from one of them."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from outlive.client import Client
from outlive.client.connection import Answered, Streamed
from outlive.lab.guests.tiny import READY, tiny

from ..one_host import OneHost, until

NAME = "machine"
SERVICE = "no-machine"
PNG = b"\x89PNG\r\n\x1a\n"


def file_of(protection: str) -> bytes:
    guest = tiny()
    warm = 'on = "local"\ninterval_s = 3600\n'
    return f"""
name = "{NAME}"
kind = "vm"
protection = "{protection}"
[vm]
memory_mib = 128
stop_s = 5
[vm.boot]
kernel = "{guest.kernel}"
initrd = "{guest.initrd}"
append = "{guest.append}"
[warm]
{warm}
""".encode()


@pytest.fixture(scope="module")
def machine(one_host: OneHost) -> Iterator[Client]:
    """A warm machine that has booted."""
    client = one_host.client
    client.put(f"/v1/workloads/{NAME}", file_of("warm"))
    until(lambda: one_host.outlook(NAME)["state"] == "running", "it runs")
    with client.stream(f"/v1/workloads/{NAME}/console?replay=65536", 60) as console:
        read_until(console, READY.encode())
    yield client
    one_host.forget(NAME)


def read_until(console: Streamed, text: bytes) -> bytes:
    said = b""
    while text not in said:
        piece = console.read()
        assert piece, f"the console ended after {said!r}"
        said += piece
    return said


def typed(client: Client, console: Streamed, keys: bytes) -> Any:
    return client.post_bytes(f"/v1/workloads/{NAME}/console/{console.header('Outlive-Console-Session')}", keys)


def ended(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    operation = client.post("/v1/operations", {"workload": NAME, **body})["operation"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/operations/{operation['id']}?wait_s=10")
        if found["state"] not in ("asked", "running"):
            return found
    raise AssertionError(f"{operation} has not ended")


def test_its_display_is_a_picture(machine: Client) -> None:
    assert machine.content(f"/v1/workloads/{NAME}/screenshot", 1 << 26).startswith(PNG)
    assert machine.content(f"/v1/hosts/one/machines/{NAME}/screenshot", 1 << 26).startswith(PNG)


def test_several_use_its_console_at_once_and_each_sees_what_any_typed(machine: Client) -> None:
    at = f"/v1/workloads/{NAME}/console"
    with machine.stream(f"{at}?replay=4096", 60) as first, machine.stream(f"{at}?replay=0", 60) as second:
        assert first.header("Outlive-Host") == "one"
        read_until(first, b"#")
        assert typed(machine, second, b"echo $((6 * 7))x\r") == {"taken": 17}
        assert b"echo $((6" in read_until(second, b"42x")
        read_until(first, b"42x")
        typed(machine, first, b"echo $((7 * 7))y\r")
        read_until(second, b"49y")
        session = second.header("Outlive-Console-Session")
    until(lambda: is_refused(machine, f"{at}/{session}"), "a console that was left cannot be typed at")
    with machine.stream(f"{at}?replay=2000", 60) as third:
        read_until(third, b"49y")


def is_refused(client: Client, path: str) -> bool:
    try:
        client.post_bytes(path, b"\0")
    except Answered as error:
        return error.id == "not-found"
    return False


def test_a_host_tells_how_a_machine_stands_on_it(machine: Client) -> None:
    told = machine.get(f"/v1/hosts/one/machines/{NAME}")
    assert (told["host"], told["role"], told["state"], told["phase"]) == ("one", "primary", "running", "free")
    shown = machine.get(f"/v1/workloads/{NAME}")
    assert shown["machine"] | {"progress": None} == told | {"progress": None}
    assert shown["replica"] is None
    assert shown["record"]["workload"]["machine"]["version"].startswith("pc-q35-")


def test_the_same_file_again_changes_nothing(machine: Client) -> None:
    again = machine.put(f"/v1/workloads/{NAME}", file_of("warm"))
    assert (again["workload"], again["changed"]) == (NAME, False)


def test_a_checkpoint_is_made_listed_verified_and_gone_on_from(machine: Client, one_host: OneHost) -> None:
    at = f"/v1/workloads/{NAME}/checkpoints"
    with machine.stream(f"/v1/workloads/{NAME}/console?replay=0", 60) as console:
        typed(machine, console, b"kept=before\r\n")
        read_until(console, b"kept=before")
    made = ended(machine, {"kind": "checkpoint", "checkpoint": "before"})
    assert (made["state"], made["checkpoint"]) == ("done", "before"), made
    listed = machine.get(at)
    assert (listed["workload"], listed["on"]) == (NAME, "local")
    [named] = [each for each in listed["checkpoints"] if each["label"] == "before"]
    assert (named["host"], named["problem"], named["bytes"] > 0) == ("one", "", True)
    found = [json.loads(line) for line in machine.lines(f"{at}/verify")]
    whole = {each["name"] for each in found if each.get("whole")}
    assert named["name"] in whole
    one = [json.loads(line) for line in machine.lines(f"{at}/verify?checkpoint=before")]
    assert one[-1] == {"name": named["name"], "whole": True, "problem": ""}
    with machine.stream(f"/v1/workloads/{NAME}/console?replay=0", 60) as console:
        typed(machine, console, b"kept=after\r\n")
        read_until(console, b"kept=after")
    before = one_host.outlook(NAME)["generation"]
    dry = machine.post("/v1/operations?dry_run=1", {"kind": "resume", "workload": NAME, "checkpoint": "before"})
    assert dry["commands"]
    resumed = ended(machine, {"kind": "resume", "checkpoint": "before"})
    assert resumed["state"] == "done", resumed
    assert one_host.outlook(NAME)["generation"] > before
    with machine.stream(f"/v1/workloads/{NAME}/console?replay=0", 60) as console:
        typed(machine, console, b"echo is=$kept\r\n")
        read_until(console, b"is=before")


def test_what_is_asked_wrongly_about_checkpoints_is_refused(machine: Client) -> None:
    at = f"/v1/workloads/{NAME}/checkpoints"
    for path in (f"{at}/verify?checkpoint=nothing", f"/v1/hosts/two/machines/{NAME}/checkpoints"):
        with pytest.raises(Answered) as caught:
            machine.get(path)
        assert caught.value.told["id"] in ("checkpoint.missing", "not-found")
    with pytest.raises(Answered, match="cannot name a checkpoint"):
        machine.get(f"{at}/verify?checkpoint=..%2Fx")
    for body, id in (
        ({"kind": "resume", "checkpoint": "nothing"}, "checkpoint.missing"),
        ({"kind": "checkpoint", "checkpoint": "a/b"}, "usage.invalid"),
        ({"kind": "checkpoint", "checkpoint": f"g{1:020d}-{1:010d}"}, "usage.invalid"),
        ({"kind": "checkpoint", "target": "one"}, "usage.invalid"),
        ({"kind": "migrate", "checkpoint": "x"}, "usage.invalid"),
    ):
        with pytest.raises(Answered) as caught:
            machine.post("/v1/operations", {"workload": NAME, **body})
        assert caught.value.id == id, body


def test_a_console_ends_with_its_machine_and_then_is_refused_with_the_reason(
    machine: Client, one_host: OneHost
) -> None:
    with machine.stream(f"/v1/workloads/{NAME}/console?replay=0", 60) as console:
        ending = threading.Thread(
            target=machine.put, args=(f"/v1/workloads/{NAME}/desired", {"desired": "stopped"}), daemon=True
        )
        ending.start()
        while console.read():
            pass
        ending.join()
    until(lambda: one_host.outlook(NAME)["host"] is None, "it is stopped")
    for path in ("screenshot", "console?replay=0"):
        with pytest.raises(Answered) as caught:
            machine.content(f"/v1/workloads/{NAME}/{path}", 1 << 20)
        assert (caught.value.id, caught.value.sentence) == ("machine.not-running", f"{NAME} does not run.")
    shown = machine.get(f"/v1/workloads/{NAME}")
    assert (shown["machine"], shown["replica"]) == (None, None)
    assert machine.get(f"/v1/workloads/{NAME}/checkpoints")["checkpoints"], "they outlive the machine's stop"


def test_a_service_has_neither_console_nor_checkpoints(one_host: OneHost) -> None:
    one_host.apply(SERVICE)
    client = one_host.client
    try:
        for path in ("screenshot", "console"):
            with pytest.raises(Answered, match="is a service"):
                client.get(f"/v1/workloads/{SERVICE}/{path}")
        nothing: dict[str, Any] = {"workload": SERVICE, "on": "", "checkpoints": []}
        assert client.get(f"/v1/workloads/{SERVICE}/checkpoints") == {**nothing, "next": None}
        assert list(client.lines(f"/v1/workloads/{SERVICE}/checkpoints/verify")) == []
        operation = client.post("/v1/operations", {"kind": "checkpoint", "workload": SERVICE})["operation"]
        refused = client.get(f"/v1/operations/{operation['id']}?wait_s=30")
        assert (refused["state"], "keeps no checkpoints" in refused["reason"]) == ("refused", True)
        with pytest.raises(Answered, match="has ended already"):
            client.delete(f"/v1/operations/{operation['id']}")
        assert "machine" not in client.get(f"/v1/workloads/{SERVICE}")
    finally:
        one_host.forget(SERVICE)


def test_a_machine_on_a_network_that_is_not_there_is_refused(one_host: OneHost) -> None:
    nic = b'[[vm.nic]]\nname = "lan"\nnetwork = "nowhere"\n'
    text = file_of("cold").replace(b'"machine"', b'"unwired"').split(b"[warm]")[0] + nic
    with pytest.raises(Answered) as caught:
        one_host.client.put("/v1/workloads/unwired", text)
    assert "network nowhere, which does not exist" in caught.value.sentence
    assert "outlive network create nowhere" in caught.value.remedy
    assert "unwired" not in one_host.names()
