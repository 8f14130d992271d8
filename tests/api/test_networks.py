"""Networks are made, changed and removed by the API; what cannot be, or is in use, is refused with its reason."""

import pytest

from outlive.api.networks import free_number
from outlive.cluster.overlay import MOST_VNI
from outlive.errors import OutliveError

from ..one_host import OneHost


def test_a_network_is_made_listed_changed_and_removed(one_host: OneHost) -> None:
    client = one_host.client
    assert client.put("/v1/networks/blue", b'{"vni": 77}')["changed"]
    assert not client.put("/v1/networks/blue", b'{"vni": 77}')["changed"]
    assert client.put("/v1/networks/blue", b'{"vni": 78, "mtu": 1400}')["changed"]
    listed = client.get("/v1/networks")["networks"]
    assert [(each["name"], each["vni"], each["mtu"], each["workloads"]) for each in listed] == [("blue", 78, 1400, [])]
    assert client.delete("/v1/networks/blue")["changed"]
    assert client.get("/v1/networks")["networks"] == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"vni": 0}', "number 0"),
        (b'{"vni": 16777216}', "16777216"),
        (b'{"vni": 5, "mtu": 10}', "MTU"),
        (b'{"vni": 5, "subnet": "here"}', "subnet"),
        (b'{"vni": 5, "outside": [{"address": "nowhere"}]}', "outside"),
        (b'{"vni": "five"}', "expected"),
        (b'{"mtu": []}', "mtu"),
        (b"[", "body"),
    ],
)
def test_what_cannot_be_a_network_is_refused(one_host: OneHost, body: bytes, says: str) -> None:
    with pytest.raises(OutliveError) as refused:
        one_host.client.put("/v1/networks/red", body)
    assert says in f"{refused.value} {refused.value.cause}"
    assert "red" not in [each["name"] for each in one_host.client.get("/v1/networks")["networks"]]


def test_a_number_belongs_to_one_network(one_host: OneHost) -> None:
    one_host.client.put("/v1/networks/one", b'{"vni": 91}')
    with pytest.raises(OutliveError, match="one's already"):
        one_host.client.put("/v1/networks/two", b'{"vni": 91}')
    with pytest.raises(OutliveError, match="no network two"):
        one_host.client.delete("/v1/networks/two")
    one_host.client.delete("/v1/networks/one")


def test_a_network_without_a_number_is_given_a_free_one_that_its_name_leads_to(one_host: OneHost) -> None:
    client = one_host.client
    foretold = client.put("/v1/networks/free?dry_run=1", b"{}")
    assert (foretold["changed"], client.get("/v1/networks")["networks"]) == (True, [])
    made = client.put("/v1/networks/free", b'{"subnet": "10.9.0.0/24"}')["network"]
    assert made["vni"] == foretold["network"]["vni"] == free_number("free", ())
    assert client.put("/v1/networks/free", b"{}") == {"network": made, "changed": False}
    assert client.put("/v1/networks/free", b'{"mtu": 1400}')["network"] == {**made, "mtu": 1400}
    assert client.delete("/v1/networks/free?dry_run=1")["changed"]
    assert [each["name"] for each in client.get("/v1/networks")["networks"]] == ["free"]
    client.delete("/v1/networks/free")


def test_a_number_that_is_taken_is_passed_over() -> None:
    first = free_number("office", ())
    assert free_number("office", {first}) == first % MOST_VNI + 1
    assert free_number("office", {first, first % MOST_VNI + 1}) not in {first, first % MOST_VNI + 1}
    assert all(1 <= free_number(f"n{each}", ()) <= MOST_VNI for each in range(500))
