"""Networks are made, changed and removed by the API; what cannot be, or is in use, is refused with its reason."""

import pytest

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
