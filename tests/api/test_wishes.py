"""What the API is asked for: done once, refused with a reason, tried out without leaving a trace."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from outlive.api.company import as_looked_at, check_order
from outlive.api.wishes import check_addresses
from outlive.client.connection import Answered
from outlive.cluster import records as rec
from outlive.cluster.mirror import Entry, Mirror
from outlive.cluster.workload import VirtualIP
from outlive.errors import UsageInvalid

from ..cluster.small_world import host, service
from ..one_host import OneHost, until, workload

SLEEP = ("/usr/bin/sleep", "3600")


@pytest.fixture
def web(one_host: OneHost) -> Any:
    one_host.apply("wished")
    yield "wished"
    one_host.forget("wished")


def put(one_host: OneHost, name: str, text: str, query: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = one_host.client.put(f"/v1/workloads/{name}{query}", text.encode())
    return answer


def standing_still(one_host: OneHost) -> Any:
    """All that a wish could change."""
    client = one_host.client
    workloads = [client.get(f"/v1/workloads/{name}") for name in sorted(one_host.names())]
    return workloads, client.get("/v1/operations"), client.get("/v1/events?limit=5000")["events"]


def test_applying_the_same_file_again_changes_nothing(one_host: OneHost, web: str) -> None:
    before = one_host.outlook(web)
    answer = put(one_host, web, workload(web, *SLEEP))
    assert answer == {"workload": web, "changed": False, "revision": one_host.outlook(web)["revision"]}
    assert one_host.outlook(web) == before


def test_a_changed_file_restarts_the_workload_with_the_change(one_host: OneHost, web: str) -> None:
    before = one_host.outlook(web)["generation"]
    assert put(one_host, web, workload(web, "/usr/bin/sleep", "3601"))["changed"]
    stands = one_host.outlook(web)
    assert stands["state"] != "running" or stands["generation"] > before, "the old one is not taken for the new one"
    until(lambda: one_host.outlook(web)["state"] == "running", "it runs again")
    assert one_host.outlook(web)["generation"] > before
    assert one_host.client.get(f"/v1/workloads/{web}")["placement"]["version"] == 2


def test_stop_and_start_are_wishes_that_may_be_repeated(one_host: OneHost, web: str) -> None:
    path = f"/v1/workloads/{web}/desired"
    assert one_host.client.put(path, {"desired": "running"})["changed"] is False
    assert one_host.client.put(path, {"desired": "stopped"})["changed"] is True
    assert one_host.client.put(path, {"desired": "stopped"})["changed"] is False
    until(lambda: one_host.outlook(web)["state"] == "stopped" and not one_host.outlook(web)["host"], "it is stopped")
    assert one_host.client.put(path, {"desired": "running"})["changed"] is True
    until(lambda: one_host.outlook(web)["state"] == "running", "it runs again")


def test_what_is_removed_is_forgotten_and_may_come_again(one_host: OneHost) -> None:
    one_host.apply("again")
    one_host.forget("again")
    with pytest.raises(Answered) as caught:
        one_host.client.get("/v1/workloads/again")
    assert caught.value.id == "not-found"
    one_host.apply("again")
    assert one_host.outlook("again")["generation"] >= 1
    one_host.forget("again")


@pytest.mark.parametrize("wish", ["apply-new", "apply-changed", "stop", "remove", "failover"])
def test_a_dry_run_tells_the_decisions_and_leaves_no_trace(one_host: OneHost, web: str, wish: str) -> None:
    client = one_host.client
    until(lambda: one_host.outlook(web)["state"] == "running", "it runs")
    before = standing_still(one_host)
    match wish:
        case "apply-new":
            answer = put(one_host, "dry", workload("dry", *SLEEP), "?dry_run=1")
        case "apply-changed":
            answer = put(one_host, web, workload(web, "/usr/bin/sleep", "1"), "?dry_run=1")
        case "stop":
            answer = client.put(f"/v1/workloads/{web}/desired?dry_run=1", {"desired": "stopped"})
        case "remove":
            answer = client.delete(f"/v1/workloads/{web}?dry_run=1")
        case _:
            answer = client.post("/v1/operations?dry_run=1", {"kind": "failover", "workload": web})
    assert [each["command"] for each in answer["commands"]], answer
    assert any("put" in write for each in answer["commands"] for write in each.get("writes", []))
    assert standing_still(one_host) == before


def test_a_dry_run_says_what_then_happens(one_host: OneHost) -> None:
    text = workload("foretold", *SLEEP)
    told = put(one_host, "foretold", text, "?dry_run=1")["commands"]
    [write] = [write for each in told for write in each.get("writes", []) if "placements/" in write.get("put", "")]
    put(one_host, "foretold", text)
    until(lambda: one_host.outlook("foretold")["state"] == "running", "it runs")
    placed = one_host.client.get("/v1/workloads/foretold")["placement"]
    assert (write["value"]["host"], write["value"]["generation"]) == (placed["host"], placed["generation"])
    one_host.forget("foretold")


def test_migration_without_another_host_is_refused_before_anything_changes(one_host: OneHost, web: str) -> None:
    client = one_host.client
    before = one_host.outlook(web)
    operation = client.post("/v1/operations", {"kind": "migrate", "workload": web})["operation"]
    ended = client.get(f"/v1/operations/{operation['id']}?wait_s=30")
    assert ended["state"] == "refused"
    assert "no host can have it" in ended["reason"]
    assert one_host.outlook(web) == before
    assert operation["id"] in {each["id"] for each in client.get("/v1/operations")["operations"]}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"kind": "migrate", "workload": "nothing"}, "no workload nothing"),
        ({"kind": "migrate", "workload": "wished", "target": "nowhere"}, "no host nowhere"),
    ],
)
def test_operations_on_what_is_not_there_are_refused(
    one_host: OneHost, web: str, body: dict[str, Any], told: str
) -> None:
    with pytest.raises(Answered) as caught:
        one_host.client.post("/v1/operations", body)
    assert (caught.value.id, told in caught.value.sentence) == ("not-found", True)


def test_two_applies_at_once_leave_one_of_both_whole(one_host: OneHost) -> None:
    texts = [workload("raced", "/usr/bin/sleep", str(3600 + number)) for number in range(4)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda text: put(one_host, "raced", text), texts))
    assert all(answer["changed"] for answer in answers)
    until(lambda: one_host.outlook("raced")["state"] == "running", "it runs")
    whole = one_host.client.get("/v1/workloads/raced")
    commands = {f"{3600 + number}" for number in range(4)}
    assert whole["record"]["workload"]["modules"][0]["command"][1] in commands
    assert whole["record"]["version"] == whole["placement"]["version"]
    one_host.forget("raced")


def test_a_virtual_ip_that_is_taken_is_refused(one_host: OneHost) -> None:
    address = '[[virtual_ip]]\naddress = "10.88.0.9/24"\n'
    put(one_host, "first", workload("first", *SLEEP, more=address))
    with pytest.raises(Answered) as caught:
        put(one_host, "second", workload("second", *SLEEP, more=address))
    assert "first's already" in caught.value.sentence
    one_host.forget("first")


def test_a_hosts_own_address_is_no_virtual_ip() -> None:
    picture = Mirror(hosts=Mirror().hosts.set("a", Entry(host("a", address="10.88.0.1"), 1, 1)))
    check_addresses(picture, service("web", virtual_ips=(VirtualIP("10.88.0.2/24"),)))
    with pytest.raises(UsageInvalid, match="host a's own address"):
        check_addresses(picture, service("web", virtual_ips=(VirtualIP("10.88.0.1/24"),)))


@pytest.mark.parametrize(
    ("there", "asked", "circle"),
    [
        ({}, ("web", ("web",)), "web after web"),
        ({"db": ("web",)}, ("web", ("db",)), "web after db after web"),
        ({"db": ("disk", "net"), "net": ("web",), "disk": ()}, ("web", ("db",)), "web after db after net after web"),
    ],
)
def test_workloads_that_would_wait_for_each_other_are_refused_and_named(
    there: dict[str, tuple[str, ...]], asked: tuple[str, tuple[str, ...]], circle: str
) -> None:
    picture = Mirror()
    for name, after in there.items():
        entry = Entry(rec.WorkloadRecord(service(name, after=after)), 1, 1)
        picture = replace(picture, workloads=picture.workloads.set(name, entry))
    name, after = asked
    with pytest.raises(UsageInvalid) as refused:
        check_order(picture, service(name, after=after))
    assert refused.value.cause == f"these wait for each other: {circle}"
    check_order(picture, service(name, after=("not-there-yet",)))
    check_order(picture, service("after-all", after=(name, *there)))


def test_an_order_that_goes_round_in_a_circle_is_not_kept(one_host: OneHost) -> None:
    put(one_host, "first", 'after = ["second"]\n' + workload("first", *SLEEP))
    with pytest.raises(Answered, match="second would never be started") as caught:
        put(one_host, "second", 'after = ["first"]\n' + workload("second", *SLEEP))
    assert (caught.value.exit_code, "second after first after second" in caught.value.cause) == (2, True)
    assert "second" not in one_host.names()
    one_host.forget("first")


def test_a_file_under_another_name_is_refused(one_host: OneHost) -> None:
    with pytest.raises(Answered) as caught:
        put(one_host, "other", workload("name", *SLEEP))
    assert caught.value.exit_code == 2
    assert not {"other", "name"} & one_host.names()


def test_every_mistake_of_a_file_is_told_at_once(one_host: OneHost) -> None:
    with pytest.raises(Answered) as caught:
        put(one_host, "bad", 'name = "bad"\nkind = "boat"\n[module.main]\ncommand = 7\n', "?source=bad.toml")
    assert caught.value.id == "workload-file.invalid"
    assert "bad.toml:2:" in caught.value.cause
    assert "bad.toml:4:" in caught.value.cause


def test_two_applies_at_once_never_make_a_circle(one_host: OneHost) -> None:
    put(one_host, "round", workload("round", *SLEEP))
    put(one_host, "about", workload("about", *SLEEP))

    def ask(name: str, other: str) -> str:
        try:
            put(one_host, name, f'after = ["{other}"]\n' + workload(name, *SLEEP))
        except Answered as refused:
            return refused.sentence
        return ""

    for _ in range(3):
        with ThreadPoolExecutor() as pool:
            told = list(pool.map(ask, ("round", "about"), ("about", "round")))
        assert sorted(map(bool, told)) == [False, True], told
        assert "would never be started" in max(told)
        for name in ("round", "about"):
            put(one_host, name, workload(name, *SLEEP))
    one_host.forget("round", "about")


def test_what_the_one_who_applies_looked_at_is_compared_over_all_steps() -> None:
    picture = Mirror()
    for number, (name, after) in enumerate({"db": ("disk",), "disk": (), "web": ()}.items(), 10):
        entry = Entry(rec.WorkloadRecord(service(name, after=after)), number, number)
        picture = replace(picture, workloads=picture.workloads.set(name, entry))
    found = as_looked_at(picture, service("app", after=("db", "unknown")))
    assert {(each.key, each.revision) for each in found} == {
        ("workloads/db", 10), ("workloads/disk", 11), ("workloads/unknown", 0),
    }  # fmt: skip


def test_rules_that_contradict_each_other_are_refused_and_unknown_names_are_told(one_host: OneHost) -> None:
    answer = put(one_host, "loner", workload("loner", *SLEEP, more='[placement]\napart_from = ["friend"]\n'))
    assert answer["notes"] == ["There is no workload friend yet, named in apart_from: the rule holds once there are."]
    with pytest.raises(Answered, match="friend could never be placed") as caught:
        put(one_host, "friend", workload("friend", *SLEEP, more='[placement]\ntogether_with = ["loner"]\n'))
    assert "friend and loner are to be apart" in caught.value.cause
    one_host.forget("loner")


def test_a_wish_that_leaves_too_few_hosts_to_lose_is_refused_unless_forced(one_host: OneHost) -> None:
    client = one_host.client
    try:
        # One host can do no better, and is not told so with every wish.
        assert "notes" not in put(one_host, "greedy", workload("greedy", *SLEEP))
        one_host.forget("greedy")
        client.put("/v1/policies", {"admission": {"mode": "refuse"}})
        with pytest.raises(Answered) as caught:
            put(one_host, "greedy", workload("greedy", *SLEEP))
        assert (caught.value.id, caught.value.exit_code) == ("admission.refused", 3)
        assert "greedy" not in one_host.names()
        forced = put(one_host, "greedy", workload("greedy", *SLEEP), "?force=1")
        assert "the policy is that it can lose 1" in forced["notes"][0]
        # What takes no more room than before is not weighed.
        assert "notes" not in put(one_host, "greedy", workload("greedy", "/usr/bin/sleep", "3601"))
    finally:
        client.put("/v1/policies", {"admission": {"mode": "warn"}})
        one_host.forget("greedy")
