"""Asking a lab's cluster how it is: by any host that answers, until something holds.

For `lab up`, the demo and the tests, which all wait for states of the real cluster. Nothing is changed here.
"""

import time
from collections.abc import Callable
from typing import Any

from outlive.client import Client
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
        except ClusterUnreachable as error:
            last = str(error)
        time.sleep(POLL_S)
    raise LabNotReady(f"After {timeout_s:g} s it does not hold that {what}.", cause=str(last)[:2000])


def until_ready(lab: Lab, timeout_s: float) -> dict[str, Any]:
    """Wait until there is a leader, it holds every host to be alive, and each host answers.

    A host claims and beats before its API listens. Raises LabNotReady.
    """
    count = len(lab.on())

    def ready(found: dict[str, Any]) -> bool:
        alive = [host for host in found["hosts"] if host["verdict"] == "alive" and host["claim"]]
        if found["leader"] is None or len(alive) < count:
            return False
        for host in lab.on():
            Client(str(lab.plan.api(host))).get("/healthz")
        return True

    return until(lab, "there is a leader, and all hosts are alive and answer", ready, timeout_s)


def workload(found: dict[str, Any], name: str) -> dict[str, Any] | None:
    """One workload in an outlook."""
    return next((each for each in found["workloads"] if each["name"] == name), None)


def until_running(lab: Lab, name: str, timeout_s: float, *, besides: tuple[str, ...] = ()) -> str:
    """Wait until a workload runs; returns its host."""

    def running(found: dict[str, Any]) -> bool:
        each = workload(found, name)
        return each is not None and each["state"] == "running"

    each = workload(until(lab, f"{name} runs", running, timeout_s, besides=besides), name)
    assert each is not None
    return str(each["host"])
