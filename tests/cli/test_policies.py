"""The commands of the cluster as a whole: policies, freezing, and emptying a host."""

from ..one_host import OneHost
from .test_completion import completed


def test_policies_are_shown_and_set_and_nonsense_is_told(one_host: OneHost) -> None:
    shown = one_host.run("policy", "show")
    assert shown.code == 0
    assert "0,2,6,14,30" in shown.out
    done = one_host.run("policy", "set", "retry_minutes=0,1", "admission.mode=off", "--json")
    assert (done.code, done.json["policies"]["retry_minutes"]) == (0, [0.0, 1.0])
    again = one_host.run("policy", "set", "retry_minutes=0,1")
    assert (again.code, "so already" in again.err) == (0, True)
    for words, code, said in (
        (("retry_minutes=soon",), 2, "retry_minutes cannot be"),
        (("restarts_per_host=0",), 2, "restarts_per_host is from 1"),
        (("speed=9",), 2, "no policy 'speed'"),
        (("restarts_per_host",), 2, "KEY=VALUE"),
    ):
        ran = one_host.run("policy", "set", *words)
        assert (ran.code, said in ran.err) == (code, True), ran.err
    one_host.run("policy", "set", "retry_minutes=0,2,6,14,30", "admission.mode=warn")


def test_a_frozen_cluster_says_so_at_the_top_until_it_is_unfrozen(one_host: OneHost) -> None:
    frozen = one_host.run("freeze", "--reason", "new switch")
    assert (frozen.code, "outlive unfreeze" in frozen.err) == (0, True)
    status = one_host.run("status")
    assert status.code == 5
    first = status.out.splitlines()[0]
    assert first.startswith("FROZEN by ")
    assert "on one since 20" in first
    assert "new switch" in first
    assert "frozen already" in one_host.run("freeze").err
    assert one_host.run("unfreeze", "--json").json["changed"]
    assert "not frozen" in one_host.run("unfreeze").err
    assert not one_host.run("status").out.startswith("FROZEN")


def test_a_host_is_emptied_and_given_back(one_host: OneHost) -> None:
    one_host.apply("kept", "/usr/bin/sleep", "3600")
    try:
        refused = one_host.run("drain", "one")
        assert (refused.code, "no other host can have kept" in refused.err) == (3, True)
        unasked = one_host.run("maintenance", "on", "one", "--force")
        assert unasked.code == 2
        assert "kept: can go nowhere" in unasked.err
        assert "--yes" in unasked.err
        assert "nowhere" in one_host.run("maintenance", "show", "one").out
        emptied = one_host.run("maintenance", "on", "one", "--force", "--yes", "--reason", "memory")
        assert (emptied.code, "one is empty." in emptied.err) == (0, True)
        assert "(memory)" in one_host.run("maintenance", "show").out
        assert "alive, empty" in one_host.run("status").out
        back = one_host.run("maintenance", "off", "one")
        assert (back.code, "may have workloads again" in back.err) == (0, True)
        assert "No host is in maintenance." in one_host.run("maintenance", "show").out
    finally:
        one_host.client.delete("/v1/hosts/one/maintenance")
        one_host.forget("kept")


def test_policies_are_completed() -> None:
    assert completed("outlive policy set admission.") == ["admission.can_lose_hosts=", "admission.mode="]
    assert completed("outlive policy set admission.mode=r") == ["admission.mode=refuse"]
