"""What a monitor asks of an agent: alive, able to act, and figures that Prometheus can read and keep."""

import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from outlive.api.figures import BOUNDS_S, Tally
from outlive.api.readiness import reasons
from outlive.api.view import View
from outlive.cluster.node_state import Session

from ..one_host import OneHost, workload

LABELS = {
    "host",
    "version",
    "verdict",
    "state",
    "desired",
    "machine",
    "call",
    "outcome",
    "method",
    "path",
    "status",
    "workload",
    "le",
}
MOST_SERIES = 600


def text(one_host: OneHost, accept: str = "") -> str:
    return b"".join(one_host.client.lines("/metrics", {"Accept": accept})).decode()


def read(one_host: OneHost) -> dict[str, Metric]:
    return {each.name: each for each in text_string_to_metric_families(text(one_host))}


def ours(one_host: OneHost) -> Iterator[Metric]:
    return (metric for name, metric in read(one_host).items() if name.startswith("outlive_"))


def value(metrics: dict[str, Metric], name: str, **labels: str) -> float:
    [found] = [each.value for metric in metrics.values() for each in metric.samples
               if each.name == name and labels.items() <= each.labels.items()]  # fmt: skip
    return found


def test_names_types_units_and_texts_are_as_prometheus_asks(one_host: OneHost) -> None:
    found = list(ours(one_host))
    assert len(found) > 15
    for metric in found:
        assert re.fullmatch(r"outlive(_[a-z0-9]+)+", metric.name), metric.name
        assert metric.documentation.endswith("."), metric.name
        assert metric.type in ("gauge", "counter", "histogram"), metric.name
        for sample in metric.samples:
            assert metric.type != "counter" or sample.name.endswith(("_total", "_created")), sample
            assert not re.search(r"_(ms|milliseconds|minutes|kib|mib)(_|$)", sample.name), sample
            assert set(sample.labels) <= LABELS, sample
        if "duration" in metric.name or "left" in metric.name or "lag" in metric.name:
            assert metric.name.endswith("_seconds"), metric.name


def test_buckets_grow_and_end_with_all(one_host: OneHost) -> None:
    histograms = [metric for metric in ours(one_host) if metric.type == "histogram"]
    assert {metric.name for metric in histograms} >= {
        "outlive_step_duration_seconds",
        "outlive_store_call_duration_seconds",
    }
    for metric in histograms:
        series: dict[tuple[tuple[str, str], ...], list[Any]] = {}
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                rest = tuple(sorted((name, said) for name, said in sample.labels.items() if name != "le"))
                series.setdefault(rest, []).append((float(sample.labels["le"]), sample.value))
        for buckets in series.values():
            assert [bound for bound, _ in buckets] == [*BOUNDS_S, float("inf")]
            counts = [count for _, count in buckets]
            assert counts == sorted(counts)


def test_the_figures_are_of_this_cluster(one_host: OneHost) -> None:
    one_host.apply("measured")
    try:
        metrics = read(one_host)
        assert 0 < value(metrics, "outlive_claim_left_seconds") < 60
        for name in ("outlive_ready", "outlive_store_reachable", "outlive_leading"):
            assert value(metrics, name) == 1
        assert value(metrics, "outlive_hosts", verdict="alive") == 1
        assert value(metrics, "outlive_placements", state="running") >= 1
        assert value(metrics, "outlive_step_duration_seconds_count", machine="leader") > 10
        assert value(metrics, "outlive_store_call_duration_seconds_count", call="transact") > 0
        assert value(metrics, "outlive_api_requests_total", method="GET", path="/v1/workloads/{name}", status="200") > 0
    finally:
        one_host.forget("measured")


def test_whatever_is_asked_for_makes_no_more_series(one_host: OneHost) -> None:
    from outlive.client.connection import Answered

    for number in range(30):
        for path in (f"/v1/workloads/no-{number}", f"/nothing/{number}", f"/v1/hosts?x{number}=1"):
            with pytest.raises(Answered):
                one_host.client.get(path)
        one_host.client.put(f"/v1/workloads/m-{number}?dry_run=1", workload(f"m-{number}", "/bin/true").encode())
    assert sum(len(metric.samples) for metric in ours(one_host)) < MOST_SERIES
    assert "no-1" not in text(one_host)


def test_open_metrics_is_told_to_who_asks_for_it(one_host: OneHost) -> None:
    told = text(one_host, "application/openmetrics-text; version=1.0.0")
    assert told.endswith("# EOF\n")
    assert "outlive_claim_left_seconds" in {each.name for each in open_metrics(told)}  # type: ignore[no-untyped-call]


def test_a_host_that_acts_is_ready(one_host: OneHost) -> None:
    assert one_host.client.get("/readyz") == {"host": "one", "ready": True}


def test_a_host_that_cannot_act_says_every_reason() -> None:
    now = time.monotonic()

    def view(reachable: bool = True, at: float = now, **session: Any) -> View:
        standing = Session(**{"incarnation": 1, "deadline_at": now + 2, "guarded": True} | session)
        node = SimpleNamespace(session=standing, at=at)
        return cast(View, SimpleNamespace(store_reachable=reachable, node=node, now=lambda: now))

    assert reasons(view()) == ()
    assert reasons(view(reachable=False)) == ("the store does not answer",)
    assert reasons(view(deadline_at=now - 1)) == ("it holds no claim",)
    assert len(reasons(view(reachable=False, at=now - 60, incarnation=0, guarded=False))) == 4


def test_a_tally_counts_what_is_exactly_a_bound_with_it() -> None:
    tally = Tally()
    for took_s in (BOUNDS_S[0], BOUNDS_S[0] * 1.5, 1e9):
        tally.note(took_s)
    assert [count for _, count in tally.up_to()][:2] == [1, 2]
    assert list(tally.up_to())[-1] == ("+Inf", 3)
