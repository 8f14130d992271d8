"""Asking a lab's cluster how it is: by any host that answers, until something holds.

For `lab up`, the demo and the tests, which all wait for states of the real cluster. Nothing is changed here.
"""

import time
from collections.abc import Callable
from typing import Any

from outlive.client import Client
from outlive.client.connection import Answered
from outlive.errors import ClusterUnreachable, Failed

from .lab import Lab

POLL_S = 0.05


class LabNotReady(Failed):
    """The lab's cluster did not get there in time."""

    id = "lab.not-ready"


def any_client(lab: Lab, *, besides: tuple[str, ...] = ()) -> Client:
    """A client of the first host that answers. Raises ClusterUnreachable."""
    for host in lab.on():
        if host not in besides:
            client = Client(str(lab.plan.api(host)))
            try:
                client.get("/healthz")
            except ClusterUnreachable:
                continue
            return client
    raise ClusterUnreachable(f"No host of the lab {lab.plan.name} answers.", remedy="see its hosts' console.log")


def outlook(lab: Lab, *, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the cluster says of itself, as one of its hosts sees it."""
    found: dict[str, Any] = any_client(lab, besides=besides).get("/v1/cluster")["outlook"]
    return found


def until(
    lab: Lab, what: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float, *, besides: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Wait until the outlook is as wanted. Raises LabNotReady with the last outlook."""
    deadline = time.monotonic() + timeout_s
    last: object = "no host answered"
    while time.monotonic() < deadline:
        try:
            found = outlook(lab, besides=besides)
            last = found
            if holds(found):
                return found
        except (ClusterUnreachable, Answered) as error:
            if error.exit_code != ClusterUnreachable.exit_code:
                raise
            last = str(error)
        time.sleep(POLL_S)
    raise LabNotReady(f"After {timeout_s:g} s it does not hold that {what}.", cause=str(last)[:2000])


def until_everywhere(lab: Lab, what: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float) -> dict[str, Any]:
    """As `until`, by what every host says that is on: each has a picture of its own, which may be behind others'."""

    def everywhere(found: dict[str, Any]) -> bool:
        return holds(found) and all(
            holds(Client(str(lab.plan.api(host))).get("/v1/cluster")["outlook"]) for host in lab.on()
        )

    return until(lab, what, everywhere, timeout_s)


def until_ready(lab: Lab, timeout_s: float) -> dict[str, Any]:
    """Wait until each host says that there is a leader, and that every host is alive.

    A host claims and beats before its API listens, and one that stood still tells what it knew before. Raises
    LabNotReady.
    """
    count = len(lab.on())

    def ready(found: dict[str, Any]) -> bool:
        alive = [host for host in found["hosts"] if host["verdict"] == "alive" and host["claim"]]
        return found["leader"] is not None and len(alive) >= count

    return until_everywhere(lab, "there is a leader, and all hosts are alive and answer", ready, timeout_s)


def workload(found: dict[str, Any], name: str) -> dict[str, Any] | None:
    """One workload in an outlook."""
    return next((each for each in found["workloads"] if each["name"] == name), None)


def until_running(lab: Lab, name: str, timeout_s: float, *, besides: tuple[str, ...] = ()) -> str:
    """Wait until a workload runs; returns its host."""

    found = until(lab, f"{name} runs", lambda found: _runs(found, name), timeout_s, besides=besides)
    return str((workload(found, name) or {})["host"])


def until_all_know_it_runs(lab: Lab, name: str, timeout_s: float) -> str:
    """Wait until a workload runs and every host that is on says so; returns its host."""
    found = until_everywhere(lab, f"{name} runs", lambda found: _runs(found, name), timeout_s)
    return str((workload(found, name) or {})["host"])


def _runs(found: dict[str, Any], name: str) -> bool:
    each = workload(found, name)
    return each is not None and each["state"] == "running"
