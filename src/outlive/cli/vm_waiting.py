"""Waiting until a machine is protected: it runs, and its replica is whole, with the copying told meanwhile.

Ctrl-C detaches: the machine goes on by itself, and the command says so.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outlive.errors import Degraded

from .connect import say
from .copying import CopyLine
from .waiting import POLL_S, NotInTime

if TYPE_CHECKING:
    from outlive.client import Client


class NotProtectedYet(Degraded):
    """It runs, and nothing would take it over yet."""

    id = "wait.unprotected"


@dataclass(slots=True)
class Telling:
    """Tells a state whenever it changes, and how far the copying is in between."""

    state: str = ""
    copying: CopyLine = field(default_factory=CopyLine)

    def tell(self, name: str, answer: dict[str, Any], at: float) -> None:
        """Tell how it stands. at: seconds on our own clock."""
        stands, replica = answer["outlook"], answer.get("replica") or {}
        state = f"{name}: {stands['state']}" + (f" on {stands['host']}" if stands["host"] else "")
        if replica.get("host"):
            state += f"; its replica on {replica['host']} is {replica.get('state', 'unknown')}"
        if state != self.state:
            self.copying.end()
            say(state)
            self.state = state
            self.copying.begin(at, int(replica.get("done_bytes") or 0))
        total = int(replica.get("total_bytes") or 0)
        if total > 0 and replica.get("state") == "seeding":
            self.copying.tell(int(replica.get("done_bytes") or 0), total, at)


def until_protected(client: "Client", name: str, wait_s: float) -> dict[str, Any]:
    """Wait until a workload runs and would go on if its host died.

    Raises NotInTime when it does not run by then, NotProtectedYet when only the second is missing.
    """
    telling, deadline = Telling(), time.monotonic() + wait_s
    try:
        while True:
            answer = client.get(f"/v1/workloads/{name}")
            stands: dict[str, Any] = answer["outlook"]
            if stands["state"] == "running" and stands["standing"] == "protected":
                return stands
            telling.tell(name, answer, time.monotonic())
            if time.monotonic() > deadline:
                raise _too_late(name, stands, wait_s)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        telling.copying.end()
        say(f"Detached. {name} goes on by itself; see `outlive ps`.")
        raise
    finally:
        telling.copying.end()


def _too_late(name: str, stands: dict[str, Any], wait_s: float) -> NotInTime | NotProtectedYet:
    if stands["state"] != "running":
        return NotInTime(
            f"{name} is not running after {wait_s:g} s; it is {stands['state']}.",
            cause=stands["reason"],
            remedy=f"it goes on by itself; see `outlive why {name}` and `outlive logs {name}`",
        )
    return NotProtectedYet(
        f"{name} runs on {stands['host']}, and is not protected after {wait_s:g} s.",
        cause=stands["reason"],
        remedy=stands["remedy"] or f"see `outlive status` and `outlive why {name}`",
    )
