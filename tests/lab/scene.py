"""A Redis in a lab, clients that count through it, and what must hold when the test is over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlive.lab import hosts, ready
from outlive.lab import service_demo as demo
from outlive.lab.lab import Lab
from outlive.lab.watching import Counting, Sightings, counting_clients, watched

from .looks import agent_pid, recorded

WORKLOAD = demo.WORKLOAD
TAKEOVER_S = 60.0
SETTLED_S = 60.0


@dataclass
class Scene:
    """What a test plays with.

    primary, first: the host that runs Redis when the test begins, and its generation.
    before:         the events that were recorded before it began.
    """

    lab: Lab
    primary: str
    first: int
    counting: Counting
    sightings: Sightings
    before: frozenset[str]

    @property
    def leader(self) -> str:
        """The host that leads now."""
        return str(
            ready.until(self.lab, "somebody leads", lambda found: found["leader"] is not None, SETTLED_S)["leader"]
        )

    def others(self, *besides: str) -> list[str]:
        """The hosts that are neither the primary nor these."""
        return [host.name for host in self.lab.plan.hosts if host.name not in (self.primary, *besides)]

    def counts_again(self, timeout_s: float = TAKEOVER_S) -> None:
        """Clients are answered anew from now on."""
        now = time.time()
        assert self.counting.wait_for(lambda: self.counting.acknowledged[-1][0] > now + 0.2, timeout_s)

    def runs_elsewhere(self, *besides: str) -> str:
        """Wait until another host than the primary runs Redis; returns it."""

        def moved(found: dict[str, Any]) -> bool:
            each = ready.workload(found, WORKLOAD)
            return each is not None and each["state"] == "running" and each["host"] != self.primary

        found = ready.until(self.lab, "Redis runs elsewhere", moved, TAKEOVER_S, besides=(self.primary, *besides))
        each = ready.workload(found, WORKLOAD)
        assert each is not None
        return str(each["host"])

    def runs_here(self) -> dict[str, Any]:
        """Wait until the primary runs Redis (still or again); returns how it stands."""

        def here(found: dict[str, Any]) -> bool:
            each = ready.workload(found, WORKLOAD)
            return each is not None and each["state"] == "running" and each["host"] == self.primary

        each = ready.workload(ready.until(self.lab, "Redis runs here", here, TAKEOVER_S), WORKLOAD)
        assert each is not None
        return each

    def until_judged(self, host: str, *verdicts: str) -> None:
        """Wait until the leader holds a host to be one of these."""

        def judged(found: dict[str, Any]) -> bool:
            return any(each["name"] == host and each["verdict"] in verdicts for each in found["hosts"])

        ready.until(self.lab, f"{host} is held to be {' or '.join(verdicts)}", judged, TAKEOVER_S, besides=(host,))

    def generation(self, *, besides: tuple[str, ...] = ()) -> int:
        """The generation that stands in the store."""
        each = ready.workload(ready.outlook(self.lab, besides=besides), WORKLOAD)
        assert each is not None
        return int(each["generation"])

    def events(self, *, besides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Everything that was recorded since the test began, in order."""
        return [event for event in recorded(self.lab, besides=besides) if event["id"] not in self.before]

    def kinds(self, *, besides: tuple[str, ...] = ()) -> list[str]:
        """What was recorded since the test began, by kind."""
        return [event["kind"] for event in self.events(besides=besides)]

    def until_told(self, *kinds: str, besides: tuple[str, ...] = ()) -> None:
        """Wait until all these kinds are recorded: hosts carry what happened to the store after it did."""
        ready.until(
            self.lab, f"{', '.join(kinds)} are recorded", lambda _: set(kinds) <= set(self.kinds(besides=besides)),
            SETTLED_S, besides=besides,
        )  # fmt: skip

    def module_pids(self, host: str | None = None) -> list[int]:
        """Redis's own processes on a host, without those that look after its health."""
        group = hosts.pids(self.lab.plan, host or self.primary, f"{hosts.WORKLOADS}/{WORKLOAD}/redis")
        found = [pid for pid in group if _program(pid) == "redis-server"]
        assert found, "Redis has no processes there"
        return found

    def agent_pid(self, host: str | None = None) -> int:
        """The agent's own process on a host: its keeper's child."""
        return agent_pid(self.lab, host or self.primary)


def _program(pid: int) -> str:
    """What a process runs; '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def on_stage(lab: Lab) -> Iterator[Scene]:
    """Redis runs and clients count; afterwards check that nothing was lost, doubled, or run twice."""
    ready.until_ready(lab, SETTLED_S)
    ready.any_client(lab).put(f"/v1/workloads/{WORKLOAD}", demo.REDIS.encode())
    primary = ready.until_running(lab, WORKLOAD, SETTLED_S)
    with (
        watched(lab, WORKLOAD) as sightings,
        counting_clients(lab, demo.ADDRESS, demo.PORT, demo.CLIENTS) as counting,
    ):
        assert counting.wait_for(lambda: len(counting.acknowledged) > 20, SETTLED_S)
        each = ready.workload(ready.outlook(lab), WORKLOAD)
        assert each is not None
        before = frozenset(event["id"] for event in recorded(lab))
        yield Scene(lab, primary, each["generation"], counting, sightings, before)
        account = counting.finish()
    assert not sightings.double_run, sightings.both[:5]
    assert account, "the clients could not verify"
    assert account["lost"] == 0, account
    assert account["duplicated"] == 0, account
    assert account["acknowledged"] > 20
