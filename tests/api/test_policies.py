"""Policies are shown, changed key by key, and a cluster is frozen and unfrozen, by the API; each change is an event."""

import pytest

from outlive.errors import OutliveError

from ..one_host import OneHost, until


def test_what_is_named_is_changed_and_the_rest_stays(one_host: OneHost) -> None:
    client = one_host.client
    before = client.get("/v1/policies")["policies"]
    answer = client.put("/v1/policies", b'{"admission": {"mode": "off"}, "retry_minutes": [0, 1]}')
    assert answer["changed"]
    assert not client.put("/v1/policies", b'{"retry_minutes": [0, 1]}')["changed"]
    stands = client.get("/v1/policies")
    assert stands["policies"] == {
        **before,
        "admission": {**before["admission"], "mode": "off"},
        "retry_minutes": [0.0, 1.0],
    }
    event = next(each for each in client.get("/v1/events")["events"] if each["id"] == answer["event"])
    assert "admission.mode: warn → off" in event["text"]
    client.put("/v1/policies", {name: value for name, value in before.items() if name != "frozen"})
    assert client.get("/v1/policies")["policies"] == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"restarts_per_host": 0}', "restarts_per_host"),
        (b'{"frozen": null}', "frozen"),
        (b'{"admission": {"mode": "so"}}', "so"),
        (b'{"retry_minutes": []}', "retry_minutes"),
        (b"[", "body"),
    ],
)
def test_what_cannot_be_a_policy_is_refused(one_host: OneHost, body: bytes, says: str) -> None:
    with pytest.raises(OutliveError) as refused:
        one_host.client.put("/v1/policies", body)
    assert says in f"{refused.value} {refused.value.cause}"


def test_a_cluster_is_frozen_by_somebody_for_a_reason_until_it_is_unfrozen(one_host: OneHost) -> None:
    client = one_host.client
    foretold = client.put("/v1/policies/frozen?dry_run=1", {"reason": "new switch", "by": "root"})
    assert foretold["changed"]
    assert client.get("/v1/policies")["policies"]["frozen"] is None
    frozen = client.put("/v1/policies/frozen", {"reason": "new switch", "by": "root"})["policies"]["frozen"]
    try:
        assert (frozen["by"], frozen["reason"]) == ("root on one", "new switch")
        assert frozen["since_unix_ms"] > 1_600_000_000_000
        assert not client.put("/v1/policies/frozen", {"reason": "another"})["changed"]
    finally:
        assert client.delete("/v1/policies/frozen")["changed"]
    assert not client.delete("/v1/policies/frozen")["changed"]

    def kinds() -> list[str]:
        return [each["kind"] for each in client.get("/v1/events")["events"]]

    until(lambda: "cluster.unfrozen" in kinds(), "both events are in the store")
    assert kinds().index("cluster.frozen") < kinds().index("cluster.unfrozen")
