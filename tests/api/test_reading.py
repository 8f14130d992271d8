"""What the API shows: the same as the command line, in the same words, and problems for everything else."""

import json
import time
from typing import Any

import pytest

from outlive import __version__
from outlive.client.connection import Answered

from ..one_host import OneHost, until, workload


@pytest.fixture(scope="module")
def web(one_host: OneHost) -> Any:
    one_host.apply("reading", "/bin/sh", "-c", "echo hello; echo oh >&2; exec sleep 3600")
    yield "reading"
    one_host.forget("reading")


def test_health_names_the_host_and_its_version(one_host: OneHost) -> None:
    assert one_host.client.get("/healthz") == {"host": "one", "version": __version__, "store_reachable": True}


def test_the_cluster_is_shown_with_its_verdict(one_host: OneHost, web: str) -> None:
    answer = one_host.client.get("/v1/cluster")
    outlook = answer["outlook"]
    assert (answer["host"], outlook["leader"], outlook["standing"]) == ("one", "one", "at risk")
    assert outlook["sentence"].startswith("At risk: ")
    assert outlook["bad_records"] == {}
    assert answer["revision"] > 0


def test_hosts_and_workloads_are_lists_of_what_is_shown_one_by_one(one_host: OneHost, web: str) -> None:
    [host] = one_host.client.get("/v1/hosts")["hosts"]
    assert one_host.client.get("/v1/hosts/one") == host
    assert (host["verdict"], host["claim"], web in host["workloads"]) == ("alive", True, True)
    shown = {each["name"]: each for each in one_host.client.get("/v1/workloads")["workloads"]}
    whole = one_host.client.get(f"/v1/workloads/{web}")
    assert whole["outlook"] == shown[web]
    assert whole["record"]["workload"]["modules"][0]["command"][0] == "/bin/sh"
    assert (whole["placement"]["host"], whole["report"]["stage"]) == ("one", "running")


def test_why_is_a_chain_of_which_each_names_the_one_before(one_host: OneHost, web: str) -> None:
    chain = one_host.client.get(f"/v1/workloads/{web}/why")["chain"]
    assert chain[0]["kind"] == "workload.applied"
    assert chain[-1]["kind"] == "workload.running"
    assert [each["because"] for each in chain[1:]] == [each["id"] for each in chain[:-1]]
    assert [each["unix_ms"] for each in chain] == sorted(each["unix_ms"] for each in chain)


def test_events_can_be_chosen_by_workload_host_and_number(one_host: OneHost, web: str) -> None:
    about = one_host.client.get(f"/v1/events?workload={web}")["events"]
    assert {each["workload"] for each in about} == {web}
    assert one_host.client.get(f"/v1/events?workload={web}&limit=2")["events"] == about[-2:]
    assert {each["host"] for each in one_host.client.get("/v1/events?host=one")["events"]} == {"one"}
    assert one_host.client.get("/v1/events?workload=nothing")["events"] == []


def test_logs_are_lines_with_their_module_and_host(one_host: OneHost, web: str) -> None:
    def lines() -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in one_host.client.lines(f"/v1/workloads/{web}/logs")]

    until(lambda: len(lines()) >= 2, "both lines are there")
    told = {(each["host"], each["module"], each["stream"], each["text"]) for each in lines()}
    assert {("one", "main", "out", "hello"), ("one", "main", "err", "oh")} <= told
    assert all(abs(each["unix_ms"] / 1000 - time.time()) < 600 for each in lines())
    assert len(list(one_host.client.lines(f"/v1/workloads/{web}/logs?lines=1"))) == 1
    assert list(one_host.client.lines(f"/v1/workloads/{web}/logs?lines=0")) == []
    assert list(one_host.client.lines(f"/v1/workloads/{web}/logs?modules=other")) == []
    own = [json.loads(raw) for raw in one_host.client.lines(f"/v1/hosts/one/logs/{web}")]
    assert {each["text"] for each in own} == {"hello", "oh"}


@pytest.mark.parametrize(
    ("path", "status", "id"),
    [
        ("/v1/hosts/nowhere", 404, "not-found"),
        ("/v1/workloads/nothing", 404, "not-found"),
        ("/v1/workloads/nothing/why", 404, "not-found"),
        ("/v1/workloads/nothing/logs", 404, "not-found"),
        ("/v1/operations/none", 404, "not-found"),
        ("/v1/hosts/other/logs/web", 404, "not-found"),
        ("/", 404, "http.refused"),
        ("/v1", 404, "http.refused"),
        ("/v1/workloads/", 404, "http.refused"),
        ("/v1/workloads/a/b/c", 404, "http.refused"),
        ("/v1/workloads/..%2f..%2fetc", 404, "http.refused"),
        ("/v1/workloads/%00%ff", 404, "not-found"),
        ("/v1/events?limit=x", 422, "usage.invalid"),
        ("/v1/events?limit=-1", 422, "usage.invalid"),
        ("/v1/events?limit=1e400", 422, "usage.invalid"),
        ("/v1/events?limit=nan", 422, "usage.invalid"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_a_problem(one_host: OneHost, path: str, status: int, id: str) -> None:
    with pytest.raises(Answered) as caught:
        one_host.client.get(path)
    problem = caught.value.told
    assert problem["id"] == id
    assert problem["type"] == f"urn:outlive:problem:{id}"
    assert set(problem) == {"type", "id", "title", "detail", "remedy", "exit_code"}
    assert problem["title"]
    assert problem["exit_code"] == (2 if status == 422 else 1)


def test_an_operation_that_never_was_is_not_waited_for_in_vain(one_host: OneHost) -> None:
    began = time.monotonic()
    with pytest.raises(Answered):
        one_host.client.get("/v1/operations/none?wait_s=0.2")
    assert time.monotonic() - began < 30


def test_methods_that_a_path_does_not_have_are_refused(one_host: OneHost) -> None:
    with pytest.raises(Answered) as caught:
        one_host.client.delete("/v1/hosts")
    assert caught.value.told["id"] == "http.refused"


def test_an_applied_workload_is_found_at_once(one_host: OneHost) -> None:
    for number in range(5):
        name = f"at-once-{number}"
        one_host.client.put(f"/v1/workloads/{name}", workload(name, "/usr/bin/sleep", "3600").encode())
        assert one_host.outlook(name)["name"] == name
    one_host.forget(*(f"at-once-{number}" for number in range(5)))
