"""Following a move: how far it is while it goes on, and how long the machine stood still once it is done.

Ctrl-C detaches: the move goes on, and `--cancel` takes it back.
"""

import re
import time
from typing import TYPE_CHECKING, Any

from .connect import say
from .copying import CopyLine
from .waiting import NotInTime

if TYPE_CHECKING:
    from outlive.client import Client

LOOK_S = 0.3
ENDED = ("done", "failed", "refused", "cancelled")
_MS = re.compile(r"(\d+) ms")


def until_moved(client: "Client", workload: str, operation: str, wait_s: float) -> dict[str, Any]:
    """Wait until a move has ended, telling how far it is. Raises NotInTime."""
    deadline, line = time.monotonic() + wait_s, CopyLine()
    try:
        while time.monotonic() < deadline:
            answer: dict[str, Any] = client.get(f"/v1/operations/{operation}?wait_s={LOOK_S}")
            if answer["state"] in ENDED:
                return answer
            _tell(line, client.get(f"/v1/workloads/{workload}"))
    except KeyboardInterrupt:
        line.end()
        say(f"Detached. The move goes on by itself; take it back with `outlive migrate {workload} --cancel`.")
        raise
    finally:
        line.end()
    raise NotInTime(
        f"The move of {workload} has not ended after {wait_s:g} s.",
        remedy=f"it goes on by itself; take it back with `outlive migrate {workload} --cancel`",
    )


def _tell(line: CopyLine, answer: dict[str, Any]) -> None:
    move = (answer.get("machine") or {}).get("move") or {}
    done, total = int(move.get("done_bytes") or 0), int(move.get("total_bytes") or 0)
    if not total:
        return
    if move["phase"] != line.what:
        line.end()
        line.begin(time.monotonic(), done, move["phase"])
    line.tell(done, total, time.monotonic())


def stood_still_ms(client: "Client", workload: str) -> int | None:
    """How long the machine stood still in its last move, by the hosts' wall clocks; None when that is not known."""
    events = client.get(f"/v1/events?workload={workload}&limit=50")["events"]
    running = next((event for event in reversed(events) if event["kind"] == "workload.running"), None)
    kinds = ("machine.sent", "machine.handed_over")
    left = next((event for event in reversed(events) if event["kind"] in kinds), None)
    if running is None or left is None or running["unix_ms"] < left["unix_ms"]:
        return None
    before = _MS.search(left["text"])
    return int(running["unix_ms"] - left["unix_ms"]) + (int(before[1]) if before else 0)


def cancel(client: "Client", workload: str) -> dict[str, Any] | None:
    """Take back the move of a workload that is under way; None when there is none."""
    for each in client.pages("/v1/operations", "operations"):
        if each["workload"] == workload and each["kind"] == "migrate" and each["state"] in ("asked", "running"):
            answer: dict[str, Any] = client.delete(f"/v1/operations/{each['id']}")
            return answer
    return None
