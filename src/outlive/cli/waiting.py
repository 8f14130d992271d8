"""Waiting for a workload to get where it was asked to be, with what is happening shown meanwhile.

Ctrl-C detaches: what was asked for goes on, and the command says so.
"""

import time
from typing import TYPE_CHECKING, Any

from outlive.errors import Failed

from .connect import say

if TYPE_CHECKING:
    from outlive.client import Client

POLL_S = 0.1


class NotInTime(Failed):
    """It was accepted, and has not happened yet."""

    id = "wait.over"


class NotBrought(Failed):
    """A workload was to come to another version of its package, and did not."""

    id = "rollout.failed"


def until_brought(client: "Client", workload: str, wait_s: float) -> float:
    """Wait until a workload's change of its package has ended, if there is one; the seconds that are left.

    Raises NotBrought when it was given up, NotInTime.
    """
    deadline = time.monotonic() + wait_s
    told, changing = "", False
    try:
        while True:
            answer: dict[str, Any] = client.get(f"/v1/workloads/{workload}")
            rollout, now = answer["record"]["rollout"], answer["outlook"]["rollout"]
            state = rollout["state"] if rollout else ""
            if state not in ("waiting", "trial"):
                break
            if state == "waiting" and answer["record"]["desired"] == "stopped":
                raise NotBrought(f"{workload} was stopped: {now}.", remedy=f"start it with `outlive start {workload}`")
            changing = True
            if now != told:
                say(f"{workload}: {now}")
                told = now
            if time.monotonic() > deadline:
                raise NotInTime(
                    f"{workload} is not at its new version after {wait_s:g} s: {now}.",
                    remedy=f"it goes on by itself; see `outlive ps` and `outlive why {workload}`",
                )
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        say(f"Detached. {workload} goes on by itself; see `outlive ps`.")
        raise
    if changing and state in ("back", "halted"):
        package = answer["record"]["workload"]["package"]
        raise NotBrought(
            f"{workload} {'goes back to' if state == 'back' else 'stays at'} {package['name']}@{package['version']}.",
            cause=rollout["reason"],
            remedy=f"see `outlive logs {workload}` and `outlive why {workload}`, and push a mended version",
        )
    return max(0.1, deadline - time.monotonic()) if changing else wait_s


def until_state(client: "Client", workload: str, state: str, wait_s: float) -> dict[str, Any]:
    """Wait until a workload is in a state as `ps` shows it. Raises NotInTime with the reason it is where it is."""
    deadline = time.monotonic() + wait_s
    told = ""
    try:
        while True:
            stands: dict[str, Any] = client.get(f"/v1/workloads/{workload}")["outlook"]
            if stands["state"] == state:
                return stands
            now = f"{workload}: {stands['state']}" + (f" on {stands['host']}" if stands["host"] else "")
            if now != told:
                say(now)
                told = now
            if time.monotonic() > deadline:
                raise NotInTime(
                    f"{workload} is not {state} after {wait_s:g} s; it is {stands['state']}.",
                    cause=stands["reason"],
                    remedy=f"it goes on by itself; see `outlive why {workload}` and `outlive logs {workload}`",
                )
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        say(f"Detached. {workload} goes on by itself; see `outlive ps`.")
        raise


def until_gone(client: "Client", workload: str, wait_s: float) -> None:
    """Wait until a removed workload is forgotten. Raises NotInTime."""
    deadline = time.monotonic() + wait_s
    try:
        while any(each["name"] == workload for each in client.pages("/v1/workloads", "workloads")):
            if time.monotonic() > deadline:
                raise NotInTime(f"{workload} is still being removed after {wait_s:g} s.", remedy="see `outlive ps`")
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        say(f"Detached. {workload} goes on being removed; see `outlive ps`.")
        raise


def until_ended(client: "Client", operation: str, wait_s: float) -> dict[str, Any]:
    """Wait until an operation has ended. Raises NotInTime."""
    deadline = time.monotonic() + wait_s
    try:
        while (left_s := deadline - time.monotonic()) > 0:
            answer: dict[str, Any] = client.get(f"/v1/operations/{operation}?wait_s={min(left_s, 10):.1f}")
            if answer["state"] in ("done", "failed", "refused", "cancelled"):
                return answer
    except KeyboardInterrupt:
        say(f"Detached. Operation {operation} goes on by itself; see `outlive events`.")
        raise
    raise NotInTime(f"Operation {operation} has not ended after {wait_s:g} s.", remedy="see `outlive events`")
