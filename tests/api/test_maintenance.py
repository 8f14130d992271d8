"""A host is emptied by the API, unless something would have to stop; how far it is can be followed, and it ends."""

import pytest

from outlive.errors import OutliveError

from ..one_host import OneHost, until

PATH = "/v1/hosts/one/maintenance"


@pytest.fixture(autouse=True)
def in_service_afterwards(one_host: OneHost) -> object:
    yield
    one_host.client.delete(PATH)


def test_a_host_without_workloads_is_empty_at_once_and_says_so_until_it_is_over(one_host: OneHost) -> None:
    client = one_host.client
    foretold = client.put(f"{PATH}?dry_run=1", {"reason": "memory"})
    assert foretold["changed"]
    assert client.get("/v1/maintenance")["hosts"] == []
    assert client.put(PATH, {"reason": "memory", "by": "root"})["changed"]
    assert not client.put(PATH, {})["changed"]
    until(lambda: client.get(PATH)["record"]["empty"], "the leader finds it empty")
    told = client.get(f"{PATH}?wait_s=5")
    assert (told["done"], told["record"]["by"], told["record"]["reason"]) == (True, "root on one", "memory")
    [shown] = client.get("/v1/hosts")["hosts"]
    assert shown["maintenance"] == "empty"
    assert client.delete(PATH)["changed"]
    assert not client.delete(PATH)["changed"]
    wanted = ["maintenance.began", "host.emptied", "maintenance.ended"]

    def told_in_order() -> bool:
        kinds = [event["kind"] for event in client.get("/v1/events?host=one")["events"]]
        return [kind for kind in kinds if kind in wanted][-3:] == wanted

    until(told_in_order, "all of it is recorded")


def test_what_could_go_nowhere_else_is_told_and_nothing_is_changed_unless_it_is_forced(one_host: OneHost) -> None:
    client = one_host.client
    one_host.apply("kept", "/usr/bin/sleep", "3600")
    try:
        with pytest.raises(OutliveError, match="no other host can have kept") as refused:
            client.put(PATH, {})
        assert refused.value.id == "maintenance.no-place-elsewhere"
        assert refused.value.exit_code == 3
        assert client.get(PATH)["record"] is None
        [each] = client.get(PATH)["plan"]
        assert (each["workload"], each["to"]) == ("kept", None)
        client.put(PATH, {"force": True})
        until(lambda: one_host.outlook("kept")["host"] is None, "it is stopped")
        assert "maintenance" in one_host.outlook("kept")["reason"]
        client.delete(f"{PATH}?back=1")
        until(lambda: one_host.outlook("kept")["state"] == "running", "it runs again")
        until(lambda: client.get(PATH)["record"] is None, "nothing is left to come back")
    finally:
        client.delete(PATH)
        one_host.forget("kept")


@pytest.mark.parametrize("body", [b"[", b'{"force": "yes"}', b'{"more": 1}', b'{"reason": "%s"}' % (b"x" * 501)])
def test_what_is_no_wish_is_refused(one_host: OneHost, body: bytes) -> None:
    with pytest.raises(OutliveError):
        one_host.client.put(PATH, body)
    with pytest.raises(OutliveError, match="no host nobody"):
        one_host.client.put("/v1/hosts/nobody/maintenance", {})
