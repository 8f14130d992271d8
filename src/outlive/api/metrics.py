"""`/metrics`: what an agent knows of itself and its cluster, as Prometheus reads it.

Names are `outlive_…` with their unit last. Labels have values of a kind of which there are few: states, calls, declared
paths, and the machines on this very host; never what a request brings along.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from outlive import __version__
from outlive.cluster import records as rec

from .figures import Tally
from .readiness import reasons
from .view import View


def told(view: View, accept: str) -> tuple[bytes, str]:
    """All of it as text, and the kind of text, which the asker may choose among."""
    registry = CollectorRegistry()
    registry.register(_Agent(view))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


class _Agent(Collector):
    """One agent's figures, as they are when it is asked."""

    def __init__(self, view: View) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: there is one collector."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield from self._standing()
        yield from self._cluster()
        yield from self._work()
        yield from self._machines()

    def _standing(self) -> Iterator[Metric]:
        view, session = self._view, self._view.node.session
        yield _gauge("outlive_agent_info", "Which agent this is; always 1.", 1, host=view.host, version=__version__)
        yield _gauge("outlive_ready", "Whether this host can act: 1 or 0.", not reasons(view))
        yield _gauge("outlive_store_reachable", "Whether the store is being followed: 1 or 0.", view.store_reachable)
        left_s = max(0.0, session.deadline_at - view.now()) if session.incarnation else 0.0
        yield _gauge("outlive_claim_left_seconds", "For how long this host may still act; 0 without a claim.", left_s)
        leads = view.mirror.leader is not None and view.mirror.leader.record.host == view.host
        yield _gauge("outlive_leading", "Whether this host leads the cluster: 1 or 0.", leads)
        yield _gauge("outlive_store_revision", "The newest revision of the store that is known.", view.mirror.revision)

    def _cluster(self) -> Iterator[Metric]:
        picture = self._view.mirror
        verdicts: Counter[str] = Counter({verdict.value: 0 for verdict in rec.Verdict})
        verdicts.update(entry.record.verdict.value for entry in picture.verdicts.values())
        yield _counted("outlive_hosts", "Hosts by the leader's verdict on them.", "verdict", verdicts)
        states: Counter[str] = Counter({stage.value: 0 for stage in rec.Stage} | {"placed": 0, "nowhere": 0})
        for name, placed in picture.placements.items():
            report = picture.reports.get(name)
            mine = report is not None and report.record.generation == placed.record.generation
            state = report.record.stage.value if report is not None and mine else "placed"
            states["nowhere" if placed.record.host is None else state] += 1
        yield _counted("outlive_placements", "Placed workloads by how far their hosts are.", "state", states)
        wanted: Counter[str] = Counter({desired.value: 0 for desired in rec.Desired})
        wanted.update(entry.record.desired.value for entry in picture.workloads.values())
        yield _counted("outlive_workloads", "Workloads by what is wanted of them.", "desired", wanted)
        operations: Counter[str] = Counter({state.value: 0 for state in rec.OperationState})
        operations.update(entry.record.state.value for entry in picture.operations.values())
        yield _counted("outlive_operations", "Operations that are kept, by their state.", "state", operations)
        yield _gauge("outlive_bad_records", "Records of the store that cannot be read.", len(picture.bad))

    def _work(self) -> Iterator[Metric]:
        figures = self._view.figures
        yield _count("outlive_heartbeats_sent", "Heartbeats sent to other hosts.", figures.heartbeats_sent)
        datagrams = CounterMetricFamily(
            "outlive_datagrams", "Datagrams between agents, nearly all of them heartbeats.", labels=["outcome"]
        )
        for outcome, count in figures.datagrams.items():
            datagrams.add_metric([outcome], count)
        yield datagrams
        yield _gauge("outlive_loop_lag_seconds", "How late the agent's ticks came lately.", figures.loop_lag_s)
        yield _gauge("outlive_events_waiting", "Events that the store does not have yet.", figures.events_waiting)
        steps = "outlive_step_duration_seconds"
        yield _timed(steps, "How long the decision machines took for one event.", "machine", figures.steps)
        store = "outlive_store_call_duration_seconds"
        yield _timed(store, "How long calls of the store took.", "call", dict(figures.store))
        failures = CounterMetricFamily(
            "outlive_store_call_failures", "Calls of the store that failed.", labels=["call"]
        )
        for call in figures.store:
            failures.add_metric([call], figures.store_failures[call])
        yield failures
        names = ["method", "path", "status"]
        requests = CounterMetricFamily("outlive_api_requests", "Requests that the API answered.", labels=names)
        for (method, path, status), count in sorted(figures.requests.items()):
            requests.add_metric([method, path, str(status)], count)
        yield requests
        answers = HistogramMetricFamily("outlive_api_answer_duration_seconds", "How long the API took to answer.")
        answers.add_metric([], list(figures.answers.up_to()), figures.answers.sum_s)
        yield answers

    def _machines(self) -> Iterator[Metric]:
        """Those that are replicated from this host, as they fared in the last second."""
        families = {
            "epochs": GaugeMetricFamily(
                "outlive_machine_epochs_per_second", "Epochs cut of a machine on this host.", labels=["workload"]
            ),
            "pause_ms_median": GaugeMetricFamily(
                "outlive_machine_pause_median_seconds", "How long an epoch stopped a machine.", labels=["workload"]
            ),
            "pause_ms_p99": GaugeMetricFamily(
                "outlive_machine_pause_p99_seconds", "How long the longest stopped it, but 1 %.", labels=["workload"]
            ),
            "lag_ms": GaugeMetricFamily(
                "outlive_machine_lag_seconds", "How far behind a machine its standby is.", labels=["workload"]
            ),
        }
        for name, placed in sorted(self._view.mirror.placements.items()):
            progress = (self._view.local.told(name) or {}).get("progress") if self._is_here(placed.record) else None
            for word, family in families.items():
                if progress and word in progress:
                    family.add_metric([name], progress[word] if word == "epochs" else progress[word] / 1000)
        yield from families.values()

    def _is_here(self, placed: rec.PlacementRecord) -> bool:
        return self._view.host in (placed.host, placed.standby)


def _gauge(name: str, says: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, says, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


def _count(name: str, says: str, value: int) -> Metric:
    return CounterMetricFamily(name, says, value=value)


def _counted(name: str, says: str, label: str, counts: Counter[str]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=[label])
    for word, count in counts.items():
        family.add_metric([word], count)
    return family


def _timed(name: str, says: str, label: str, tallies: dict[str, Tally]) -> Metric:
    family = HistogramMetricFamily(name, says, labels=[label])
    for word, tally in tallies.items():
        family.add_metric([word], list(tally.up_to()), tally.sum_s)
    return family
