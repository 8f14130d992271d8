"""A person's word that a host is off is taken only where nothing tells of its life."""

import pytest

from outlive.errors import OutliveError

from ..one_host import OneHost


def test_a_host_that_lives_is_not_taken_for_dead(one_host: OneHost) -> None:
    with pytest.raises(OutliveError) as refused:
        one_host.client.post("/v1/hosts/one/dead", {"host": "one", "by": "ann"})
    assert refused.value.exit_code == 3
    assert "holds its claim" in refused.value.cause
    assert one_host.client.get("/v1/fences")["fences"] == []


@pytest.mark.parametrize(
    ("host", "body", "code"),
    [
        ("nowhere", {"host": "nowhere"}, 1),
        ("one", {"host": "two"}, 2),
        ("one", {"host": "one", "by": "x" * 1000}, 2),
        ("one", {}, 2),
    ],
)
def test_a_word_that_is_not_about_a_host_of_the_cluster_is_refused(
    one_host: OneHost, host: str, body: dict[str, str], code: int
) -> None:
    with pytest.raises(OutliveError) as refused:
        one_host.client.post(f"/v1/hosts/{host}/dead", body)
    assert refused.value.exit_code == code


def test_what_the_cluster_asks_for_is_told(one_host: OneHost) -> None:
    assert one_host.client.get("/v1/fences") == {"proof_of_end": "claim", "fences": [], "methods": []}
