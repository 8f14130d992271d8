"""Scripts are read with every error named, and a seed's faults can be written as one."""

from random import Random

import pytest

from outlive.sim import scenario
from outlive.sim.chance import draw
from outlive.sim.faults import Fault


def test_script_says_hosts_workloads_faults_and_length() -> None:
    script = scenario.read(
        """
        # a comment
        host a site=north cpus=2 label=disk:fast
        hosts b c
        workload web modules=db,app cpus=1.5 attempts=2 isolation=leave sites=north priority=7 data=none apply=3
        workload mail apply=never
        timing claim_ttl_s=6 dead_s=2.5
        at 5 s: crash b for 20 s   # and why
        at 6.5 s: migrate web c
        run 40 s
        """
    )
    hosts, workloads = script.setup.hosts, script.setup.workloads
    assert [each.host.name for each in hosts] == ["a", "b", "c"]
    assert (hosts[0].host.site, hosts[0].host.capacity.cpus, hosts[0].host.labels) == ("north", 2.0, {"disk": "fast"})
    assert [module.name for module in workloads[0].workload.modules] == ["db", "app"]
    assert workloads[0].workload.modules[1].after == ("db",)
    assert workloads[0].workload.data_on is None
    assert [each.applied_at_s for each in workloads] == [3.0, None]
    assert (script.setup.timing.claim_ttl_s, script.setup.timing.dead_s) == (6, 2.5)
    assert script.faults == (Fault(5.0, "crash", ("b",), 20.0), Fault(6.5, "migrate", ("web", "c")))
    assert script.setup.end_s == 40.0


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("at noon: crash a", "say when and what"),
        ("at 5 s: crush a", "no verb 'crush'"),
        ("at 5 s: crash", "takes 1 to 1 arguments, not 0"),
        ("at 5 s: crash z", "no host 'z'"),
        ("at 5 s: cut a b+z", "no host 'z'"),
        ("wait 5 s", "a line begins with"),
        ("workload web colour=red", "'colour=red' is none of"),
        ("workload web cpus=many", "could not convert"),
        ("timing patience_s=3", "no timing 'patience_s'"),
        ("run a while", "say how long"),
        ("host", "not enough values"),
    ],
)
def test_bad_line_is_named_with_what_is_wrong(line: str, cause: str) -> None:
    with pytest.raises(scenario.BadScript) as caught:
        scenario.read(f"hosts a b\n{line}\n", "mine.scenario")
    assert caught.value.sentence == f"Line 2 of mine.scenario cannot be done: {line!r}."
    assert cause in caught.value.cause
    assert caught.value.exit_code == 2


def test_script_without_hosts_is_refused() -> None:
    with pytest.raises(scenario.BadScript, match="has no hosts"):
        scenario.read("run 5 s")


def test_faults_of_a_seed_can_be_kept_as_a_scenario() -> None:
    _, faults = draw(Random(9))
    lines = [str(fault) for fault in faults]
    workloads = [f"workload w{number} modules=db,app,web" for number in range(5)]
    script = scenario.read("\n".join(["hosts a b c d e", *workloads, *lines]))
    assert [str(fault) for fault in script.faults] == lines
