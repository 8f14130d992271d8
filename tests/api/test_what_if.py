"""What would happen if hosts died, asked of a real agent: told, refused with a reason, and nothing changed by it."""

from typing import Any

import pytest

from outlive.client.connection import Answered

from ..one_host import OneHost


@pytest.fixture
def web(one_host: OneHost) -> Any:
    one_host.apply("asked-about")
    yield "asked-about"
    one_host.forget("asked-about")


def test_the_loss_of_the_only_host_leaves_everything_without_a_place(one_host: OneHost, web: str) -> None:
    before = one_host.client.get(f"/v1/workloads/{web}")
    told = one_host.client.post("/v1/what-if", {"lose": ["one"]})
    assert {key: told[key] for key in ("lost", "leader", "decisions", "whole", "commands")} == {
        "lost": ["one"], "leader": None, "decisions": [], "whole": True, "commands": [],
    }  # fmt: skip
    assert told["without"] == [{"workload": web, "reason": "there is no host left"}]
    after = one_host.client.get(f"/v1/workloads/{web}")
    assert (after["record"], after["placement"]) == (before["record"], before["placement"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "Say which hosts"),
        ({"lose": ["nowhere"]}, "no host nowhere"),
        ({"lose_sites": ["mars"]}, "no host in a site mars"),
        ({"loose": ["one"]}, "not what was expected"),
    ],
)
def test_who_is_lost_must_be_there(one_host: OneHost, body: dict[str, Any], told: str) -> None:
    with pytest.raises(Answered, match=told):
        one_host.client.post("/v1/what-if", body)


def test_the_command_says_it_in_words_and_as_an_object(one_host: OneHost, web: str) -> None:
    said = one_host.run("what-if", "--lose", "one")
    assert said.code == 5
    assert "Without one:" in said.out
    assert f"{web}: there is no host left" in said.out
    site = one_host.client.get("/v1/hosts/one")["site"]
    assert one_host.run("what-if", "--lose-site", site, "--json").json["lost"] == ["one"]
    assert one_host.run("what-if").code == 2


def test_status_tells_how_many_hosts_may_be_lost_and_what_would_be_without_a_place(one_host: OneHost, web: str) -> None:
    said = one_host.run("status")
    assert "any 0 of its hosts may be lost" in said.out
    assert f"Without one, no place for:\n  {web}: no host can have it: no hosts" in said.out
    losable = one_host.client.get("/v1/cluster")["outlook"]["losable"]
    assert (losable["hosts"], losable["exact"], losable["worst"]) == (0, True, ["one"])
